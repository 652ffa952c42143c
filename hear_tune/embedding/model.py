"""An encoder with the layers, windows and timestamps that turn clips into embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..common.devices import exact_float32, heed_fork
from ..common.samples import Samples
from ..networks.config import SAMPLE_RATE_HZ, TIMESTAMP_STRIDE, Backend, Precision
from ..networks.encoders import LayeredEncoder
from ..networks.folded import InferenceNetwork, any_tensor, evaluating
from ..networks.projection import to_frames
from .framing import Segment, SegmentCutter, Window, WindowCutter, cut
from .pooling import Pooling

LayerChoice = str | Sequence[str] | None

SEGMENT_SAMPLES = 24 * 3**9  # 21.4 s of timestamps at a time


class EmbeddingModel(nn.Module):
    """An encoder that embeds clips of any length, always in evaluation mode.

    Parameters
    ----------
    encoder : LayeredEncoder
        The network, with its weights.
    layers : str, sequence of str or None
        Layers whose time averages form the embeddings of windows and clips: a name or several
        (comma-separated or a sequence), "all", or None for the encoder's `embedding_layers`.
    timestamp_layers : str, sequence of str or None
        Likewise for timestamps. None takes three time scales: the bottleneck, the layer at the
        timestamps' own stride, and the last. Statistics of whole windows have no timestamps.
    hop_ms : float, optional
        Between the starts of windows; by default they lie side by side.
    whitened : bool
        If no layers are named, whether to take the encoder's whitened ones, if it has any, or the
        layers that they are made of.
    backend, precision : str
        How embeddings are computed: see `hear_tune.networks.folded.InferenceNetwork`.

    Attributes
    ----------
    encoder : LayeredEncoder
        The plain network, whatever the backend. Its training may go on: embeddings always follow
        its current weights, and its training mode is left alone.
    sample_rate : int
        Of the audio that it takes: 22,050 Hz.
    scene_embedding_size, timestamp_embedding_size : int

    Raises
    ------
    ValueError
        If a layer, backend or precision is unknown, a named layer is whitened but `whitened` is
        false, or the hop is longer than a window.
    """

    sample_rate = SAMPLE_RATE_HZ

    def __init__(
        self,
        encoder: LayeredEncoder,
        layers: LayerChoice = None,
        timestamp_layers: LayerChoice = None,
        hop_ms: float | None = None,
        backend: Backend = "auto",
        precision: Precision = "float32",
        whitened: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.inference = InferenceNetwork(backend, precision)
        own, own_of_timestamps = encoder.embedding_layers, encoder.timestamp_layers
        if not whitened:
            own = encoder.unprojected(own)
            own_of_timestamps = encoder.unprojected(own_of_timestamps or [])
        self.layers = _choose(encoder, layers, own)
        of_timestamps = _choose(
            encoder, timestamp_layers, own_of_timestamps or _three_scales(encoder)
        )
        if timestamp_layers == "all":
            of_timestamps = [name for name in of_timestamps if not encoder.has_statistics(name)]
        self.timestamp_layers = of_timestamps
        if not whitened:
            _check_unprojected(encoder, [*self.layers, *self.timestamp_layers])
        self.window_samples = encoder.window_samples
        self.hop_samples = _hop_samples(hop_ms, self.window_samples)
        self.training = encoder.training

    @property
    def scene_embedding_size(self) -> int:
        return sum(self.encoder.layer(name).channels for name in self.layers)

    @property
    def timestamp_embedding_size(self) -> int:
        return sum(self.encoder.layer(name).channels for name in self.timestamp_layers)

    @property
    def device(self) -> torch.device:
        return any_tensor(self.encoder).device

    @property
    def identity(self) -> str:
        """Fingerprint of the encoder and its weights, with any precision other than float32."""
        rounded = self.inference.precision != "float32"
        return self.encoder.identity + (f" {self.inference.precision}" if rounded else "")

    @property
    def layer_columns(self) -> dict[str, slice]:
        """Columns of each chosen layer in an embedding."""
        columns, start = {}, 0
        for name in self.layers:
            end = start + self.encoder.layer(name).channels
            columns[name] = slice(start, end)
            start = end
        return columns

    @torch.no_grad()
    def embed_windows(self, audio: Tensor) -> Tensor:
        """Embed windows: (batch, samples) to (batch, scene_embedding_size)."""
        pooling, pooled = self._pooled(audio)
        with exact_float32(audio.device):
            return pooling.project(pooled)

    @torch.no_grad()
    def pool_windows(self, audio: Tensor) -> Tensor:
        """Pool windows over time, for `pooling` to project what a clip has on average."""
        return self._pooled(audio)[1]

    def pooling(self) -> Pooling:
        """Return what pools and projects, with the encoder's weights as they are now."""
        return Pooling(self._network(), self.layers)

    @torch.no_grad()
    def embed_timestamps(self, audio: Tensor) -> Tensor:
        """Embed timestamps: (batch, samples) to (batch, samples / 729, timestamp_embedding_size).

        Finer layers are averaged over each timestamp's samples, coarser ones interpolated linearly
        between the centres of their frames.
        """
        features = self._features(self._network(), audio, self.timestamp_layers).values()
        frames = audio.shape[-1] // TIMESTAMP_STRIDE
        return torch.cat([to_frames(feature, frames) for feature in features], dim=1).mT

    def _pooled(self, audio: Tensor) -> tuple[Pooling, Tensor]:
        network = self._network()
        pooling = Pooling(network, self.layers)
        return pooling, pooling.pool(self._features(network, audio, pooling.needed))

    def _network(self) -> LayeredEncoder:
        heed_fork()
        return self.inference.of(self.encoder)

    def _features(
        self, network: LayeredEncoder, audio: Tensor, names: list[str]
    ) -> dict[str, Tensor]:
        audio = audio[:, None].to(any_tensor(network).dtype)
        # with batch statistics, a clip's embedding would depend on its batch
        with evaluating(network), exact_float32(audio.device):
            return network.features(audio, names)

    def windows(self, blocks: Iterable[Samples]) -> Iterator[Window]:
        """Cut a clip into the windows that this model embeds."""
        return cut(blocks, self.window_cutter())

    def segments(self, blocks: Iterable[Samples]) -> Iterator[Segment]:
        """Cut a clip into segments with all the context of their timestamps."""
        return cut(blocks, self.segment_cutter(SEGMENT_SAMPLES))

    def window_cutter(self) -> WindowCutter:
        """Return a cutter of a clip into windows."""
        return WindowCutter(self.window_samples, self.hop_samples, self.encoder.fill)

    def segment_cutter(self, samples: int) -> SegmentCutter:
        """Return a cutter of a clip into segments of at least `samples`, plus context."""
        for name in self.timestamp_layers:
            if self.encoder.has_statistics(name):
                raise ValueError(f"{name} is of whole windows: name other layers for timestamps")
        unit = self.encoder.timestamp_unit(self.timestamp_layers)
        grids = [self.encoder.layer(name).grid for name in self.timestamp_layers]
        before = max(grid.stride - grid.first for grid in grids)  # a stride more to interpolate
        after = max(grid.stride + grid.last for grid in grids)
        return SegmentCutter(
            _round_up(samples, unit), _round_up(before, unit), _round_up(after, unit), unit
        )

    stretches, stretch_cutter = segments, segment_cutter  # names of earlier versions


def _choose(encoder: LayeredEncoder, choice: LayerChoice, default: list[str]) -> list[str]:
    return default if choice is None else choose_layers(encoder, choice)


def _check_unprojected(encoder: LayeredEncoder, names: list[str]) -> None:
    for name in names:
        if name in encoder.projections:
            raise ValueError(f"{name} is a whitening, which was not wanted: name other layers")


def choose_layers(encoder: LayeredEncoder, choice: str | Sequence[str]) -> list[str]:
    """Return the names of the chosen layers: "all", or names, comma-separated or in a sequence.

    Raises
    ------
    ValueError
        If one is unknown or given twice, or there is none.
    """
    if choice == "all":
        return [layer.name for layer in encoder.layers]
    names = choice.split(",") if isinstance(choice, str) else list(choice)
    names = [encoder.layer(name.strip()).name for name in names]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"layers must be named once each, at least one: {choice!r}")
    return names


def _three_scales(encoder: LayeredEncoder) -> list[str]:
    layers = encoder.layers
    fine = [layer for layer in layers if layer.name.startswith("contractive")][-1:]
    middle = [layer for layer in layers if layer.stride == TIMESTAMP_STRIDE][-1:]
    names = [layer.name for layer in (*fine, *middle)]
    return list(dict.fromkeys([*names, encoder.default_layer]))


def _hop_samples(hop_ms: float | None, window_samples: int) -> int:
    if hop_ms is None:
        return window_samples
    longest_ms = 1000 * window_samples / SAMPLE_RATE_HZ
    hop = round(hop_ms * SAMPLE_RATE_HZ / 1000) if math.isfinite(hop_ms) else 0
    if not 0 < hop <= window_samples:
        shortest_ms = 1000 / SAMPLE_RATE_HZ
        raise ValueError(
            f"hop_ms must be from {shortest_ms:.2g} (a sample) to {longest_ms:.0f}, not {hop_ms}"
        )
    return hop


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
