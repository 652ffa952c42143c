"""Whitened embeddings: a projection of an encoder's layers, fitted on the audio of stores.

The layers are standardised, rotated to their principal components, and each component is scaled to
unit variance, so that components of large variance no longer dominate distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..common.progress import progress_bar
from ..networks.config import TIMESTAMP_STRIDE
from ..networks.encoders import EMBEDDING_LAYERS, TIMESTAMP_LAYERS, Encoder
from ..networks.folded import FoldedEncoder
from ..networks.projection import Projection, to_frames
from . import WHITENED_SIZE, WHITENING_CROPS
from .pairs import to_float, to_pair
from .pcm_store import AudioStore

WHITENED, WHITENED_TIMESTAMPS = "whitened", "whitened_timestamps"  # names of the projections
RIDGE = 1e-3  # relative to the mean variance, so that tiny components are not amplified
_BATCH = 16  # crops
_SMALLEST_DEVIATION = 1e-4  # of a channel; a dead one stays at zero


def whiten(
    encoder: Encoder,
    stores: Sequence[AudioStore],
    layers: Sequence[str],
    timestamp_layers: Sequence[str],
    size: int = WHITENED_SIZE,
    crops: int = WHITENING_CROPS,
    seed: int = 0,
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
    size : int
        Size of the embedding, at most the number of channels.
    crops : int
        Number of crops, each as long as a window.
    seed : int
        Seed of the crops.

    Raises
    ------
    ValueError
        If a layer is unknown, no track is as long as a window, or there are no more crops than
        channels.
    """
    by_window = _Moments(encoder, layers)
    by_frame = _Moments(encoder, timestamp_layers)
    if crops <= by_window.channels:
        raise ValueError(
            f"{crops} crops cannot whiten {by_window.channels} channels: draw more than that"
        )
    drop_projections(encoder)
    network = FoldedEncoder(encoder)
    names = list(dict.fromkeys([*layers, *timestamp_layers]))
    bar = progress_bar(total=crops, desc="whiten", unit="crop")
    with torch.inference_mode(), bar:
        for audio in _batches(stores, encoder.window_samples, crops, seed):
            features = network.features(audio[:, None], names)
            by_window.add([features[name].mean(-1, keepdim=True) for name in layers])
            frames = audio.shape[-1] // TIMESTAMP_STRIDE
            by_frame.add([to_frames(features[name], frames) for name in timestamp_layers])
            bar.update(len(audio))
    encoder.add_projection(by_window.projection(WHITENED, size))
    encoder.add_projection(by_frame.projection(WHITENED_TIMESTAMPS, size, TIMESTAMP_STRIDE))
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
    """Mean and covariance of layers side by side, in double precision."""

    def __init__(self, encoder: Encoder, layers: Sequence[str]) -> None:
        self.layers = [encoder.layer(name) for name in layers]
        self.channels = sum(layer.channels for layer in self.layers)
        self._count = 0
        self._sum = torch.zeros(self.channels, dtype=torch.float64)
        self._products = torch.zeros(self.channels, self.channels, dtype=torch.float64)

    def add(self, features: Sequence[Tensor]) -> None:
        """Add features (batch, channels, frames) of each layer."""
        rows = torch.cat(list(features), dim=1).mT.flatten(0, 1).double()
        self._count += len(rows)
        self._sum += rows.sum(dim=0)
        self._products += rows.T @ rows

    def projection(self, name: str, size: int, stride: int | None = None) -> Projection:
        """Return the whitening projection of the added features."""
        mean = self._sum / self._count
        covariance = self._products / self._count - torch.outer(mean, mean)
        deviation = covariance.diagonal().clamp(min=0).sqrt()
        scale = torch.where(deviation > _SMALLEST_DEVIATION, 1 / deviation, 0.0)
        variances, axes = torch.linalg.eigh(covariance * torch.outer(scale, scale))
        ridge = RIDGE * variances.mean()
        variances, axes = variances.flip(0)[:size], axes.flip(1)[:, :size]
        weight = (axes * (variances.clamp(min=0) + ridge).rsqrt()).T * scale
        projection = Projection(name, self.layers, len(weight), stride)
        with torch.no_grad():
            projection.linear.weight.copy_(weight)
            projection.linear.bias.copy_(-weight @ mean)
        return projection.requires_grad_(False).eval()
