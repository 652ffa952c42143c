"""Whitened embeddings: a projection of an encoder's layers, fitted on the audio of stores.

The layers are standardised, and their principal components scaled to nearly the same variance, so
that components of large variance no longer dominate distances. Directions that predict acoustic
features of their window can be given more variance than others. A fixed random rotation spreads all
components evenly over the numbers of the embedding, whose variance is 1: a probe that standardises
them again leaves the balance as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ..common.progress import progress_bar
from ..common.ranges import at_least
from ..networks.config import TIMESTAMP_STRIDE
from ..networks.encoders import EMBEDDING_LAYERS, TIMESTAMP_LAYERS, Encoder
from ..networks.folded import FoldedEncoder
from ..networks.projection import Projection, to_frames
from . import (
    WHITENED_SIZE,
    WHITENING_CROPS,
    WHITENING_GAIN,
    WHITENING_POWER,
    WHITENING_TIMESTAMP_POWER,
)
from .acoustic import TARGETS, Acoustics
from .pairs import to_float, to_pair
from .pcm_store import AudioStore

WHITENED, WHITENED_TIMESTAMPS = "whitened", "whitened_timestamps"  # names of the projections
RIDGE = 1e-3  # relative to the mean variance, so that tiny components are not amplified
_BATCH = 16  # crops
_FRAME_FEATURES = [name for name, target in TARGETS.items() if target.per_timestamp]
_WINDOW_FEATURES = [name for name in TARGETS if name not in _FRAME_FEATURES]
_SMALLEST_DEVIATION = 1e-4  # of a channel; a dead one stays at zero


@dataclass(frozen=True)
class Whitening:
    """Settings of a whitening.

    Parameters
    ----------
    size : int
        Size of the embedding, at most the number of channels.
    crops : int
        Number of crops to fit it on, each as long as a window.
    power : float
        From 0 to 1: a component of variance v keeps v ** (1 - power). At 1, all are equal.
    timestamp_power : float
        The same for timestamps; lower, as a few components of large variance distinguish them best.
    gain : float
        A direction that predicts an acoustic feature with correlation r is scaled by
        1 + (sqrt(1 + gain) - 1) r**2. At 0, none is.
    seed : int
        Seed of the crops and of the rotation.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    size: int = WHITENED_SIZE
    crops: int = WHITENING_CROPS
    power: float = WHITENING_POWER
    timestamp_power: float = WHITENING_TIMESTAMP_POWER
    gain: float = WHITENING_GAIN
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, size=self.size, crops=self.crops)
        powers = {"power": self.power, "timestamp_power": self.timestamp_power}
        at_least(0, gain=self.gain, **powers)
        for name, power in powers.items():
            if power > 1:
                raise ValueError(f"{name} must be 1 at most, not {power}")


def whiten(
    encoder: Encoder,
    stores: Sequence[AudioStore],
    layers: Sequence[str],
    timestamp_layers: Sequence[str],
    settings: Whitening | None = None,
) -> None:
    """Fit projections for clips and for timestamps, and make them the layers that embed.

    Parameters
    ----------
    encoder : Encoder
        In evaluation mode; it gets the projections, and its training record names them.
    stores : sequence of AudioStore
        Audio to draw crops from; tracks are weighted by length.
    layers, timestamp_layers : sequence of str
        The layers to whiten.
    settings : Whitening, optional
        By default those of the class.

    Raises
    ------
    ValueError
        If a layer is unknown, no track is as long as a window, or there are no more crops than
        channels.
    """
    settings = settings or Whitening()
    by_window = _Moments(encoder, layers, _WINDOW_FEATURES if settings.gain else ())
    by_frame = _Moments(encoder, timestamp_layers, _FRAME_FEATURES if settings.gain else ())
    if settings.crops <= by_window.channels:
        raise ValueError(
            f"{settings.crops} crops cannot whiten {by_window.channels} channels: draw more"
        )
    drop_projections(encoder)
    network = FoldedEncoder(encoder)
    names = list(dict.fromkeys([*layers, *timestamp_layers]))
    bar = progress_bar(total=settings.crops, desc="whiten", unit="crop")
    with torch.inference_mode(), bar:
        for audio in _batches(stores, encoder.window_samples, settings.crops, settings.seed):
            features = network.features(audio[:, None], names)
            sound = Acoustics(audio)
            by_window.add(features, sound, frames=1)
            by_frame.add(features, sound, frames=audio.shape[-1] // TIMESTAMP_STRIDE)
            bar.update(len(audio))
    encoder.add_projection(by_window.projection(WHITENED, settings))
    of_frames = replace(settings, power=settings.timestamp_power)
    encoder.add_projection(by_frame.projection(WHITENED_TIMESTAMPS, of_frames, TIMESTAMP_STRIDE))
    encoder.training_record |= {
        EMBEDDING_LAYERS: [WHITENED],
        TIMESTAMP_LAYERS: [WHITENED_TIMESTAMPS],
    }


def drop_projections(encoder: Encoder) -> None:
    """Remove an encoder's projections, and their names from the layers that embed."""
    record = encoder.training_record
    for entry in (EMBEDDING_LAYERS, TIMESTAMP_LAYERS):
        if any(name in encoder.projections for name in record.get(entry, ())):
            record[entry] = encoder.unprojected(record[entry])
    encoder.projections = nn.ModuleDict()


def _batches(stores: Sequence[AudioStore], samples: int, crops: int, seed: int) -> Iterator[Tensor]:
    """Yield random crops of all tracks that are long enough, (crops, samples)."""
    tracks = [(s, track) for s in stores for track in s.tracks if track.samples >= samples]
    if not tracks:
        raise ValueError(f"no track in the stores has {samples} samples or more")
    rng = np.random.default_rng(seed)
    lengths = np.array([track.samples for _, track in tracks], float)
    chosen = rng.choice(len(tracks), crops, p=lengths / lengths.sum())
    for first in range(0, crops, _BATCH):
        pieces = []
        for store, track in (tracks[number] for number in chosen[first : first + _BATCH]):
            start = int(rng.integers(track.samples - samples + 1))
            pieces.append(store.crop(track, start, samples))
        yield to_float(to_pair(pieces, samples))


class _Moments:
    """Means and covariances of layers and acoustic features side by side, in double precision."""

    def __init__(self, encoder: Encoder, layers: Sequence[str], targets: Sequence[str]) -> None:
        self.layers = [encoder.layer(name) for name in layers]
        self.channels = sum(layer.channels for layer in self.layers)
        self._targets = [TARGETS[name] for name in targets]
        width = self.channels + sum(target.size for target in self._targets)
        self._count = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, features: Mapping[str, Tensor], sound: Acoustics, frames: int) -> None:
        """Add features (batch, channels, T) of each layer, resampled to a number of frames."""
        columns = [to_frames(features[layer.name], frames) for layer in self.layers]
        columns += [target.of(sound) for target in self._targets]
        rows = torch.cat(columns, dim=1).mT.flatten(0, 1).double()
        self._count += len(rows)
        self._sum += rows.sum(dim=0)
        self._products += rows.T @ rows

    def projection(self, name: str, settings: Whitening, stride: int | None = None) -> Projection:
        """Return the whitening projection of what was added."""
        mean = self._sum / self._count
        covariance = self._products / self._count - torch.outer(mean, mean)
        deviation = covariance.diagonal().clamp(min=0).sqrt()
        scale = torch.where(deviation > _SMALLEST_DEVIATION, 1 / deviation, 0.0)
        correlations = covariance * torch.outer(scale, scale)
        own, other = slice(self.channels), slice(self.channels, None)
        variances, axes = _components(correlations[own, own], settings.size)
        weight = (axes * variances.rsqrt()).T  # whitens (size, channels)
        if self._targets:
            known, known_axes = _components(correlations[other, other], len(mean) - self.channels)
            across = weight @ correlations[own, other] @ (known_axes * known.rsqrt())
            weight = _emphasis(across, settings.gain) @ weight
        weight = weight * scale[own]
        weight = variances.pow((1 - settings.power) / 2)[:, None] * weight
        weight = _rotation(len(weight), settings.seed) @ weight
        weight /= _mean_variance(weight, covariance[own, own]).sqrt()
        projection = Projection(name, self.layers, len(weight), stride)
        with torch.no_grad():
            projection.linear.weight.copy_(weight)
            projection.linear.bias.copy_(-weight @ mean[own])
        return projection.requires_grad_(False).eval()


def _components(correlations: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return variances (size,) and axes (channels, size) of the strongest principal components."""
    variances, axes = torch.linalg.eigh(correlations)
    ridge = RIDGE * variances.mean()
    return variances.flip(0)[:size].clamp(min=0) + ridge, axes.flip(1)[:, :size]


def _emphasis(across: Tensor, gain: float) -> Tensor:
    """Scale canonical directions of whitened layers by their correlation with whitened features.

    Parameters
    ----------
    across : Tensor
        (size, features): covariance of the two.
    gain : float
        As in `Whitening`.

    Returns
    -------
    Tensor
        (size, size), symmetric.
    """
    directions, correlations, _ = torch.linalg.svd(across, full_matrices=False)
    extra = (math.sqrt(1 + gain) - 1) * correlations.square()
    emphasis: Tensor = torch.eye(len(across)).double() + directions * extra @ directions.T
    return emphasis


def _rotation(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rotation: Tensor
    rotation, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    return rotation


def _mean_variance(weight: Tensor, covariance: Tensor) -> Tensor:
    return ((weight @ covariance) * weight).sum() / len(weight)
