"""Whitened embeddings: a projection of an encoder's layers, fitted on the audio of stores.

Of a window, the projection takes the mean, the standard deviation and the maximum over time of each
channel, compressed logarithmically; of a timestamp, the mean. These are standardised, and their
principal components scaled to nearly the same variance: components of large variance no longer
dominate distances. A fixed random rotation spreads all components evenly over the numbers of the
embedding, whose variance is 1. A probe that standardises them again leaves the balance as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..common.progress import progress_bar, say
from ..common.ranges import at_least
from ..networks.config import TIMESTAMP_STRIDE
from ..networks.encoders import EMBEDDING_LAYERS, TIMESTAMP_LAYERS, Encoder
from ..networks.folded import FoldedEncoder
from ..networks.geometry import Layer
from ..networks.projection import (
    STATISTICS,
    Projection,
    compressed,
    inverse_of,
    scale_of,
    to_frames,
    to_statistics,
)
from . import (
    WHITENED_SIZE,
    WHITENING_COMPRESSION,
    WHITENING_CROPS,
    WHITENING_POWER,
    WHITENING_TIMESTAMP_POWER,
)
from .pairs import to_float, to_pair
from .pcm_store import AudioStore

WHITENED, WHITENED_TIMESTAMPS = "whitened", "whitened_timestamps"  # names of the projections
RIDGE = 1e-3  # relative to the mean variance, so that tiny components are not amplified
_BATCH = 16  # crops
_ROWS = 1024  # in double precision at a time
_LEAST_COMPRESSION = 0.01  # hardly any


@dataclass(frozen=True)
class Whitening:
    """Settings of a whitening.

    Parameters
    ----------
    size : int
        Size of the embedding, at most the number of statistics; of timestamps, at most that of
        channels.
    crops : int
        Number of crops to fit it on, each as long as a window; more than there are statistics,
        three for each channel.
    power : float
        From 0 to 1: a component of variance v keeps v ** (1 - power). At 1, all are equal.
    timestamp_power : float
        The same for timestamps; lower, as a few components of large variance distinguish them best.
    compression : float
        How far the logarithm compresses statistics: their scale is their standard deviation over
        the crops, divided by this.
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
    compression: float = WHITENING_COMPRESSION
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, size=self.size, crops=self.crops)
        powers = {"power": self.power, "timestamp_power": self.timestamp_power}
        at_least(0, **powers)
        at_least(_LEAST_COMPRESSION, compression=self.compression)
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
        If a layer is unknown, no track is as long as a window, windows are no multiple of a
        timestamp, or there are no more crops than statistics.
    """
    settings = settings or Whitening()
    _check(encoder, stores, layers, settings)
    drop_projections(encoder)
    statistics: list[Tensor] = []
    of_timestamps = _Moments()
    for rows, frames in _measured(encoder, stores, layers, timestamp_layers, settings):
        statistics.append(rows)
        of_timestamps.add(frames)
    scale, of_windows = _compression(torch.cat(statistics), settings)
    scenes = of_windows.projection(
        WHITENED,
        [encoder.layer(name) for name in layers],
        settings,
        settings.power,
        encoder.window_samples,
        scale,
    )
    timestamps = of_timestamps.projection(
        WHITENED_TIMESTAMPS,
        [encoder.layer(name) for name in timestamp_layers],
        settings,
        settings.timestamp_power,
        TIMESTAMP_STRIDE,
    )
    encoder.add_projection(scenes)
    encoder.add_projection(timestamps)
    encoder.training_record |= {
        EMBEDDING_LAYERS: [WHITENED],
        TIMESTAMP_LAYERS: [WHITENED_TIMESTAMPS],
    }


def _check(
    encoder: Encoder, stores: Sequence[AudioStore], layers: Sequence[str], settings: Whitening
) -> None:
    if encoder.window_samples % TIMESTAMP_STRIDE:
        raise ValueError(
            f"windows of {encoder.window_samples} samples cannot be whitened: they are no multiple "
            f"of a timestamp's {TIMESTAMP_STRIDE}"
        )
    count = len(STATISTICS) * sum(encoder.layer(name).channels for name in layers)
    if settings.crops <= count:
        raise ValueError(
            f"{settings.crops} crops cannot whiten {count} statistics: draw more than {count} "
            "(--crops), or whiten fewer layers"
        )
    windows = sum(track.samples // encoder.window_samples for s in stores for track in s.tracks)
    if windows < count:
        say(
            f"the stores have no more than {windows} windows of audio for {count} statistics: the "
            "whitening will fit them, not music in general"
        )


def _measured(
    encoder: Encoder,
    stores: Sequence[AudioStore],
    layers: Sequence[str],
    timestamp_layers: Sequence[str],
    settings: Whitening,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the statistics of some crops' layers, a row each, and a row for each timestamp."""
    network = FoldedEncoder(encoder)
    names = list(dict.fromkeys([*layers, *timestamp_layers]))
    with progress_bar(total=settings.crops, desc="whiten", unit="crop") as bar:
        for audio in _batches(stores, encoder.window_samples, settings.crops, settings.seed):
            frames = audio.shape[-1] // TIMESTAMP_STRIDE
            with torch.no_grad():
                features = network.features(audio[:, None], names)
                statistics = _rows(to_statistics(features[name], 1) for name in layers)
                timestamps = _rows(to_frames(features[name], frames) for name in timestamp_layers)
            yield statistics, timestamps
            bar.update(len(audio))


def _compression(statistics: Tensor, settings: Whitening) -> tuple[Tensor, _Moments]:
    """Return the scale of each statistic, and the moments of the compressed ones."""
    scale = scale_of(statistics.std(dim=0), settings.compression)
    moments = _Moments()
    moments.add(compressed(statistics, scale))
    return scale, moments


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


def _rows(maps: Iterable[Tensor]) -> Tensor:
    """Join maps (batch, channels, T) as rows (batch T, channels)."""
    return torch.cat(list(maps), dim=1).mT.flatten(0, 1)


class _Moments:
    """Mean and covariance of rows, in double precision."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = self._products = torch.zeros((), dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Add rows (count, width)."""
        for part in torch.split(rows, _ROWS):
            exact = part.double()
            self._count += len(exact)
            self._sum = self._sum + exact.sum(dim=0)
            self._products = self._products + exact.T @ exact

    def projection(
        self,
        name: str,
        sources: Sequence[Layer],
        settings: Whitening,
        power: float,
        stride: int,
        scale: Tensor | None = None,
    ) -> Projection:
        """Return the projection that whitens what was added."""
        mean = self._sum / self._count
        covariance = self._products / self._count - torch.outer(mean, mean)
        inverse = inverse_of(covariance.diagonal().clamp(min=0).sqrt())
        variances, axes = _components(covariance * torch.outer(inverse, inverse), settings.size)
        weight = (axes * variances.pow(-power / 2)).T * inverse
        weight = _rotation(len(weight), settings.seed) @ weight
        weight /= _mean_variance(weight, covariance).sqrt()
        projection = Projection(name, sources, len(weight), stride, statistics=scale is not None)
        with torch.no_grad():
            projection.linear.weight.copy_(weight)
            projection.linear.bias.copy_(-weight @ mean)
            if scale is not None and projection.scale is not None:
                projection.scale.copy_(scale)
        return projection.requires_grad_(False).eval()


def _components(correlations: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return variances (size,) and axes (channels, size) of the strongest principal components."""
    variances, axes = torch.linalg.eigh(correlations)
    ridge = RIDGE * variances.mean()
    return variances.flip(0)[:size].clamp(min=0) + ridge, axes.flip(1)[:, :size]


def _rotation(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rotation: Tensor
    rotation, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    return rotation


def _mean_variance(weight: Tensor, covariance: Tensor) -> Tensor:
    return ((weight @ covariance) * weight).sum() / len(weight)
