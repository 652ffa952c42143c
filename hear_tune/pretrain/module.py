"""CLMR: contrastive learning of musical representations (Spijkervet & Burgoyne, ISMIR 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from ..checkpoints.pretrained import load_encoder
from ..common.ranges import at_least
from ..networks.config import ConfigError, EncoderConfig
from ..networks.encoders import Encoder, build_encoder
from ..networks.variants import DEFAULT_VARIANT, get_variant, variant_name
from . import TrainingError
from .augment import AugmentationChain, clmr_chain
from .average import moving_average
from .collapse import effective_rank, embedding_spread
from .loss import NTXent
from .objective import AcousticObjective, LayerTargets, Prediction
from .pairs import Pairs, to_float
from .projector import PROJECTION_SIZE, projection_head
from .statistics import LayerStatistics
from .whitening import drop_projections


def _mean(predictions: Sequence[Prediction]) -> dict[str, Tensor]:
    """Losses of each layer and target, averaged over the views."""
    losses = [prediction.losses for prediction in predictions]
    return {name: torch.stack([one[name] for one in losses]).mean() for name in losses[0]}


def _trained(weights: str, config: EncoderConfig) -> Encoder:
    encoder = load_encoder(weights)
    if encoder.config != config:
        raise ConfigError(f"{weights} is a {variant_name(encoder.config)}: give that variant")
    drop_projections(encoder)  # fitted to the weights as they were
    return encoder.train()


class CLMR(LightningModule):
    """An encoder under contrastive training.

    Two crops of a track, each augmented on its own, pass through the encoder and a projection head;
    NT-Xent pulls them together and pushes other tracks away. The defaults are those of the TUNE
    authors. Both views pass separately, as theirs do: batch normalisation sees one view at a time.

    Parameters
    ----------
    variant : str
        A published encoder: ``hear-tune variants`` lists them.
    weights : str, optional
        Name or path of trained weights of that variant to start from; by default random weights.
    projection_size : int
        Output size of the projection head, Linear - ReLU - Linear without biases.
    temperature : float
        Temperature of NT-Xent.
    augmentation : AugmentationChain, optional
        Chain of transforms; by default CLMR's.
    optimizer : callable
        Any torch optimizer, or `hear_tune.pretrain.lars.LARS`; by default Adam at 3e-4.
    lr_scheduler : callable, optional
        Any torch scheduler, stepped with the optimizer; by default none.
    average_decay : float
        Decay per step of an exponential moving average of the encoder's weights and batch
        statistics, which is exported instead of the encoder; 0 for no average.
    clmr_layer : str, optional
        Layer whose mean over time is contrasted; by default the last.
    clmr_statistics : bool
        Contrast the layer's statistics over time, those of a whitened embedding, not its mean.
    clmr_weight : float
        Weight of the contrastive loss beside that of the objective.
    objective : sequence of LayerTargets, optional
        Acoustic features that layers predict for both views; by default none. The prediction heads
        are discarded after training, like the projection head.
    seed : int
        Seed of the weights and augmentations, taken from the data's.

    Raises
    ------
    ConfigError
        If there is no such variant or target, the weights are of another variant, or no loss has a
        weight.
    FileNotFoundError, CheckpointError
        If the weights cannot be loaded.
    ValueError
        If a number is out of range, or there is no such layer.
    """

    def __init__(
        self,
        variant: str = DEFAULT_VARIANT,
        weights: str | None = None,
        projection_size: int = PROJECTION_SIZE,
        temperature: float = 0.5,
        augmentation: AugmentationChain | None = None,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(parameters, lr=3e-4),
        lr_scheduler: LRSchedulerCallable | None = None,
        average_decay: float = 0.0,
        clmr_layer: str | None = None,
        clmr_statistics: bool = False,
        clmr_weight: float = 1.0,
        objective: list[LayerTargets] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        at_least(1, projection_size=projection_size)
        at_least(0, clmr_weight=clmr_weight)
        if clmr_weight == 0 and not objective:
            raise ConfigError("nothing to train on: clmr_weight is 0, and there is no objective")
        config = get_variant(variant).config
        torch.manual_seed(seed)
        self.encoder = build_encoder(config) if weights is None else _trained(weights, config)
        self.before = self.encoder.training_record
        self.clmr_layer = clmr_layer or self.encoder.default_layer
        channels = self.encoder.layer(self.clmr_layer).channels
        self.statistics = LayerStatistics(channels) if clmr_statistics else None
        size = self.statistics.size if self.statistics else channels
        self.projector = projection_head(size, projection_size)
        self.average = moving_average(self.encoder, average_decay) if average_decay else None
        self.augmentation = clmr_chain() if augmentation is None else augmentation
        self.loss = NTXent(temperature)
        self.clmr_weight = clmr_weight
        self.asked = list(objective or ())
        self.objective = AcousticObjective(self.asked, self.encoder) if self.asked else None
        self.variant = variant
        self.average_decay = average_decay
        self.seed = seed
        self._make_optimizer = optimizer
        self._make_scheduler = lr_scheduler

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Layers that answer for something, each (batch, channels, frames), of (batch, samples)."""
        asked = [] if self.objective is None else self.objective.layers
        return self.encoder.features(audio[:, None], {self.clmr_layer, *asked})

    def training_step(self, pairs: Pairs) -> Tensor:
        """Loss of a batch of pairs."""
        generator = self._generator()
        views = [self.augmentation(to_float(view), generator) for view in pairs.crops.unbind(1)]
        heard = [self(view) for view in views]
        layers = [features[self.clmr_layer] for features in heard]
        first, second = map(self._pooled, layers)
        contrast = self.loss(self.projector(first), self.projector(second), pairs.groups)
        loss: Tensor = self.clmr_weight * contrast.loss
        parts: dict[str, Tensor] = {}
        if self.objective is not None:
            predictions = [self.objective(*one) for one in zip(views, heard, strict=True)]
            loss = loss + sum(prediction.loss for prediction in predictions) / len(views)
            parts = {"contrastive_loss": contrast.loss.detach(), **_mean(predictions)}
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()} at step {self.global_step}; the last "
                "checkpoint is from before; try a lower learning rate or full precision"
            )
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/contrastive_accuracy", contrast.accuracy, prog_bar=True)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:  # when Lightning writes a row
            means = layers[0].detach().mean(dim=-1)
            self.log("train/embedding_spread", embedding_spread(means))
            self.log("train/effective_rank", effective_rank(means))
            self.log_dict({f"train/{name}": part for name, part in parts.items()})
        return loss

    def _pooled(self, feature: Tensor) -> Tensor:
        """What is contrasted of the layer, (batch, size)."""
        return feature.mean(dim=-1) if self.statistics is None else self.statistics(feature)

    def _generator(self) -> torch.Generator:
        """Random generator of one batch, which depends only on the batch's place in the run."""
        place = [self.seed, self.global_rank, self.trainer.train_dataloader.delivered]  # type: ignore[union-attr]
        (state,) = np.random.SeedSequence(place).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state >> np.uint64(1)))

    @property
    def result(self) -> Encoder:
        """The trained encoder, with averaged weights if there is an average."""
        if self.average is None:
            return self.encoder
        assert isinstance(self.average.module, Encoder)
        return self.average.module

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """Step, and update the average."""
        super().optimizer_step(*args, **options)
        if self.average is not None:
            self.average.update_parameters(self.encoder)

    def configure_optimizers(self) -> Any:
        """Build the optimizer and, if there is one, the scheduler, stepped together."""
        optimizer = self._make_optimizer(p for p in self.parameters() if p.requires_grad)
        if self._make_scheduler is None:
            return optimizer
        scheduler = {"scheduler": self._make_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the variant, so that a run never goes on with another, and what came before it."""
        checkpoint["hear_tune_variant"] = self.variant
        checkpoint["hear_tune_before"] = self.before

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint whose tensors are of another run: say in what it differs."""
        found = checkpoint.get("hear_tune_variant")
        if found != self.variant:
            raise TrainingError(
                f"the checkpoint to resume from is of {found}, not of {self.variant}; "
                "choose another output folder, or --resume never"
            )
        heads = {name for name in checkpoint["state_dict"] if name.startswith("objective.")}
        if heads != {name for name in self.state_dict() if name.startswith("objective.")}:
            raise TrainingError(
                "the checkpoint to resume from has another objective: give the same, or choose "
                "another output folder"
            )
        parts = {name.partition(".")[0] for name in checkpoint["state_dict"]}
        if ("statistics" in parts) != (self.statistics is not None):
            raise TrainingError(
                "the checkpoint to resume from contrasts "
                f"{'statistics' if self.statistics is None else 'means'}: give the same "
                "clmr_statistics, or choose another output folder"
            )
        averaged = "average" in parts
        if averaged != (self.average is not None):
            raise TrainingError(
                f"the checkpoint to resume from has {'an' if averaged else 'no'} average of the "
                "weights: give the same average_decay, or choose another output folder"
            )
        self.before = checkpoint.get("hear_tune_before", self.before)
