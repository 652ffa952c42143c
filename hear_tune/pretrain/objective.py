"""The acoustic objective: layers of an encoder predict acoustic features of their input.

As in PASE (Pascual et al., "Learning problem-agnostic speech representations from multiple
self-supervised tasks", Interspeech 2019) and MERT (Li et al., ICLR 2024), which predicts the
constant-Q transform.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.ranges import at_least
from ..networks.config import ConfigError
from ..networks.encoders import Encoder
from ..networks.projection import STATISTICS
from .acoustic import TARGETS, Acoustics
from .statistics import LayerStatistics, Moments

STATISTICS_BATCHES = 64  # number of first batches of a run by which targets are standardised
_SMALLEST_DEVIATION = 1e-3  # of a target, in nepers, so that constant targets are not amplified


@dataclass(frozen=True)
class LayerTargets:
    """Targets of one layer.

    Parameters
    ----------
    layer : str
        Name of the layer.
    targets : list of str
        Acoustic features to predict: names in ``hear_tune.pretrain.acoustic.TARGETS``.
    weight : float
        Weight of each of these losses.
    """

    layer: str
    targets: list[str]
    weight: float = 1.0


class Prediction(NamedTuple):
    """Losses of predicted features.

    Attributes
    ----------
    loss : Tensor
        Sum of the weighted losses; scalar, differentiable.
    losses : dict of str to Tensor
        Unweighted losses by ``layer/target``, without gradient.
    """

    loss: Tensor
    losses: dict[str, Tensor]


class AcousticObjective(nn.Module):
    """Linear predictions of acoustic features, from several layers of an encoder.

    Features of windows are predicted from a layer's statistics over time, those of a whitened
    embedding, and features of timestamps from its frames; if the frames of the two differ in
    length, the finer ones are averaged. The loss is the mean squared error of standardised
    features, or the Kullback-Leibler divergence of distributions in nats. Predictions start at
    zero, so that the first steps train the heads, not the encoder.

    Parameters
    ----------
    asked : sequence of LayerTargets
        Targets by layer; a layer may occur several times.
    encoder : Encoder
        The encoder with these layers.

    Attributes
    ----------
    layers : list of str
        Names of the layers.

    Raises
    ------
    ConfigError
        If a target is unknown or given twice for a layer, or there are no targets.
    ValueError
        If a layer is unknown, or a weight is negative.
    """

    def __init__(self, asked: Sequence[LayerTargets], encoder: Encoder) -> None:
        super().__init__()
        self._weights: dict[tuple[str, str], float] = {}
        self.heads = nn.ModuleDict()
        self.standards = nn.ModuleDict()
        for layer, name, weight in ((a.layer, n, a.weight) for a in asked for n in a.targets):
            at_least(0, weight=weight)
            if name not in TARGETS:
                raise ConfigError(f"unknown target {name!r}: there are {', '.join(TARGETS)}")
            if (layer, name) in self._weights:
                raise ConfigError(f"{layer} is asked for {name} twice")
            self._weights[layer, name] = weight
            target = TARGETS[name]
            inputs = encoder.layer(layer).channels
            if not target.per_timestamp:
                inputs *= len(STATISTICS)
            self.heads[_key(layer, name)] = _linear(inputs, target.size)
            if not target.is_distribution:
                self.standards[name] = Standardised(target.size)
        if not self._weights:
            raise ConfigError("the objective asks for nothing: name targets, or leave it out")
        self.layers = list(dict.fromkeys(layer for layer, _ in self._weights))
        windows = [layer for layer, name in self._weights if not TARGETS[name].per_timestamp]
        self._of_windows = list(dict.fromkeys(windows))
        self.statistics = nn.ModuleDict(
            {_key(name): LayerStatistics(encoder.layer(name).channels) for name in self._of_windows}
        )

    def forward(self, audio: Tensor, features: Mapping[str, Tensor]) -> Prediction:
        """Compare predictions with acoustic features, in float32, also within autocast.

        Parameters
        ----------
        audio : Tensor
            Shape (batch, samples): input of the encoder.
        features : mapping of str to Tensor
            Outputs of the layers, each (batch, channels, frames).

        Raises
        ------
        ValueError
            If the audio has another shape, or its length is not a multiple of 729 samples.
        """
        losses: dict[tuple[str, str], Tensor] = {}
        with torch.autocast(audio.device.type, enabled=False):
            wanted = self._targets(audio)
            pooled = {
                layer: self.statistics[_key(layer)](features[layer])[..., None]
                for layer in self._of_windows
            }
            for layer, name in self._weights:
                of_frames = TARGETS[name].per_timestamp
                seen = features[layer].float() if of_frames else pooled[layer]
                seen, target = _aligned(seen, wanted[name])
                predicted = self.heads[_key(layer, name)](seen)
                compare = _divergence if TARGETS[name].is_distribution else F.mse_loss
                losses[layer, name] = compare(predicted, target)
            weighted = [self._weights[place] * loss for place, loss in losses.items()]
        return Prediction(
            torch.stack(weighted).sum(),
            {"/".join(place): loss.detach() for place, loss in losses.items()},
        )

    @torch.no_grad()
    def _targets(self, audio: Tensor) -> dict[str, Tensor]:
        """Compute each target once, (batch, size, frames)."""
        sound = Acoustics(audio)
        targets = {name: TARGETS[name].of(sound) for name in {name for _, name in self._weights}}
        for name, standard in self.standards.items():
            targets[name] = standard(targets[name])
        return targets


class Standardised(nn.Module):
    """Standardise a target by its mean and standard deviation over the first batches of a run.

    Parameters
    ----------
    size : int
        Number of values of the target, which are standardised separately.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.moments = Moments(size)

    def forward(self, target: Tensor) -> Tensor:
        """Standardise (batch, size, frames), after adding a first batch to the moments."""
        if self.training and self.moments.batches < STATISTICS_BATCHES:
            self.moments.add(target.mT.flatten(0, 1))
        deviation = self.moments.deviation.clamp(min=_SMALLEST_DEVIATION)
        return (target - self.moments.mean[:, None]) / deviation[:, None]


def _key(*names: str) -> str:
    """Join names to that of a module, which has no dots."""
    return "_".join(names).replace(".", "_")


def _linear(channels: int, size: int) -> nn.Conv1d:
    head = nn.Conv1d(channels, size, kernel_size=1)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    return head


def _aligned(features: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Average the finer of two sequences to the frames of the other."""
    frames = min(features.shape[-1], target.shape[-1])
    pool = F.adaptive_avg_pool1d
    return pool(features, frames), pool(target, frames)


def _divergence(predicted: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence from distributions to the softmax of the predictions."""
    terms = F.kl_div(F.log_softmax(predicted, dim=1), target, reduction="none")
    return terms.sum(dim=1).mean()
