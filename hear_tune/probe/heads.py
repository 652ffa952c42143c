"""Probes: small networks trained on embeddings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..datasets.task import Kind


@dataclass(frozen=True)
class Settings:
    """Architecture and training of a probe.

    Attributes
    ----------
    hidden : int
        Units of a hidden layer; 0 for none.
    dropout : float
        Probability of dropout before the last layer.
    learning_rate, weight_decay : float
        For Adam.
    batch_size : int
        In clips.
    max_epochs : int
        Largest number of epochs.
    check_every_steps : int
        Steps between validations; 0 for once per epoch.
    patience : int
        Stop after this many validations without a lower loss.
    reduce_patience : int
        Divide the learning rate by 10 after this many; 0 for never.
    standardize : bool
        Scale each column to mean 0 and standard deviation 1 on the training clips.
    """

    hidden: int = 0
    dropout: float = 0.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 64
    max_epochs: int = 10_000
    check_every_steps: int = 0
    patience: int = 10
    reduce_patience: int = 0
    standardize: bool = False


@dataclass(frozen=True)
class Examples:
    """Embeddings (n, size) and targets: class numbers (n,), or 0/1 or values (n, classes)."""

    vectors: Tensor
    targets: Tensor


_OUTPUTS: dict[Kind, Callable[[Tensor], Tensor]] = {
    "multiclass": lambda x: x.softmax(-1),
    "key": lambda x: x.softmax(-1),
    "multilabel": torch.sigmoid,
    "regression": lambda x: x,
}
_LOSSES: dict[Kind, Callable[[Tensor, Tensor], Tensor]] = {
    "multiclass": F.cross_entropy,
    "key": F.cross_entropy,
    "multilabel": F.binary_cross_entropy_with_logits,
    "regression": F.mse_loss,
}


class Head(nn.Module):
    """A linear layer, or two, on standardised or plain embeddings.

    Parameters
    ----------
    kind : str
        Kind of task: determines the output (sigmoid, softmax or linear) and the loss.
    examples : Examples
        Training examples, for their statistics and size.
    classes : int
        Number of outputs.
    settings : Settings
        Settings of the network.
    """

    mean: Tensor
    std: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(self, kind: Kind, examples: Examples, classes: int, settings: Settings) -> None:
        super().__init__()
        self.kind = kind
        size = examples.vectors.shape[1]
        mean, std = _statistics(examples.vectors, settings.standardize)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        # regression targets are standardised for training
        offset, scale = _statistics(examples.targets, kind == "regression")
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)
        layers: list[nn.Module] = []
        if settings.hidden:
            layers += [nn.Linear(size, settings.hidden), nn.ReLU()]
            size = settings.hidden
        self.layers = nn.Sequential(*layers, nn.Dropout(settings.dropout), nn.Linear(size, classes))

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits or standardised values (n, classes) of embeddings (n, size)."""
        outputs: Tensor = self.layers((vectors - self.mean) / self.std)
        return outputs

    def loss(self, examples: Examples) -> Tensor:
        """Mean loss over examples."""
        targets = examples.targets
        if self.kind == "regression":
            targets = (targets - self.offset) / self.scale
        return _LOSSES[self.kind](self(examples.vectors), targets)

    @torch.no_grad()
    def predict(self, vectors: Tensor) -> Tensor:
        """Probabilities or values, (n, classes)."""
        self.eval()
        outputs = _OUTPUTS[self.kind](self(vectors))
        if self.kind == "regression":
            outputs = outputs * self.scale + self.offset
        return outputs


def train(
    kind: Kind, classes: int, training: Examples, valid: Examples, settings: Settings, seed: int
) -> Head:
    """Train a head until its validation loss stops falling; return the best."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(kind, training, classes, settings)
        _fit(head, training, valid, settings)
    return head


def _fit(head: Head, training: Examples, valid: Examples, settings: Settings) -> None:
    optimizer = torch.optim.Adam(
        head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    rate = _reducer(optimizer, settings.reduce_patience)
    per_epoch = -(-len(training.vectors) // settings.batch_size)
    interval = settings.check_every_steps or per_epoch
    best, best_state, waited = float("inf"), copy.deepcopy(head.state_dict()), 0
    for step, batch in enumerate(_batches(training, settings), 1):
        head.train()
        optimizer.zero_grad()
        head.loss(batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % interval:
            continue
        head.eval()
        with torch.no_grad():
            loss = float(head.loss(valid))
        rate(loss)
        if loss < best:
            best, best_state, waited = loss, copy.deepcopy(head.state_dict()), 0
        else:
            waited += 1
        if waited == settings.patience:
            break
    head.load_state_dict(best_state)


def _reducer(optimizer: torch.optim.Optimizer, patience: int) -> Callable[[float], None]:
    if not patience:
        return lambda _: None
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=patience)
    return scheduler.step


def _batches(examples: Examples, settings: Settings) -> Iterator[Examples]:
    for _ in range(settings.max_epochs):
        for rows in torch.randperm(len(examples.vectors)).split(  # type: ignore[no-untyped-call]
            settings.batch_size
        ):
            yield Examples(examples.vectors[rows], examples.targets[rows])


def _statistics(values: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    if not wanted:
        return torch.zeros(()), torch.ones(())
    std = values.std(dim=0, correction=0)
    return values.mean(dim=0), torch.where(std > 0, std, 1.0)
