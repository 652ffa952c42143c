"""Compute an encoder's layers from its configuration: names, channels and time scales.

A layer's name is also its module's path in the network and its tensors' prefix in a checkpoint:
``contractive.4``, ``expansive.0``, ``tail.9``; ``blocks.10`` in a SampleCNN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .config import FACTOR, EncoderConfig, SampleCNNConfig, TuneConfig

KERNEL = 3


@dataclass(frozen=True)
class TimeGrid:
    """Position of a feature map's frames in the audio, in samples.

    Frame t depends only on samples ``t * stride + first`` to ``t * stride + last``, inclusive.
    After upsampling this is an upper bound: a frame's actual receptive field then depends on its
    position within the coarser frame it came from.
    """

    stride: int = 1
    first: int = 0
    last: int = 0

    @property
    def receptive_field(self) -> int:
        return self.last - self.first + 1

    def convolved(self) -> TimeGrid:
        """Return the grid after a convolution of kernel 3, stride 1, padding 1."""
        return TimeGrid(self.stride, self.first - self.stride, self.last + self.stride)

    def pooled(self) -> TimeGrid:
        """Return the grid after pooling, or an unpadded convolution, of kernel 3 and stride 3."""
        return TimeGrid(FACTOR * self.stride, self.first, self.last + (FACTOR - 1) * self.stride)

    def upsampled(self) -> TimeGrid:
        """Return the grid after a transposed convolution of kernel 3 and stride 3."""
        stride = self.stride // FACTOR
        return TimeGrid(stride, self.first - (FACTOR - 1) * stride, self.last)

    def joined(self, other: TimeGrid) -> TimeGrid:
        """Return the grid after concatenation with a map of the same stride."""
        return TimeGrid(self.stride, min(self.first, other.first), max(self.last, other.last))


@dataclass(frozen=True)
class Layer:
    """One named layer.

    Attributes
    ----------
    name : str
        Path of the layer's module.
    in_channels, channels : int
        Input and output channels of its convolution.
    grid : TimeGrid
        Stride and receptive field.
    macs_per_frame : int
        Multiply-accumulate operations per frame of output.
    """

    name: str
    in_channels: int
    channels: int
    grid: TimeGrid
    macs_per_frame: int

    @property
    def stride(self) -> int:
        """Samples of audio per frame."""
        return self.grid.stride


def encoder_layers(config: EncoderConfig) -> tuple[Layer, ...]:
    """List all layers of an encoder in the order of computation."""
    if isinstance(config, SampleCNNConfig):
        return tuple(_sample_cnn_layers(config, "blocks", TimeGrid()))
    return tuple(_tune_layers(config))


def _conv_layer(name: str, in_channels: int, channels: int, grid: TimeGrid) -> Layer:
    return Layer(name, in_channels, channels, grid, KERNEL * in_channels * channels)


def _tune_layers(config: TuneConfig) -> Iterator[Layer]:
    grid, channels = TimeGrid(), 1
    levels: dict[int, Layer] = {}
    for level in range(config.contractive + 1):
        grid = (grid.pooled() if level else grid).convolved()
        levels[level] = _conv_layer(f"contractive.{level}", channels, config.channels(level), grid)
        channels = config.channels(level)
        yield levels[level]

    single_channel = isinstance(config.tail, SampleCNNConfig)
    for level in reversed(range(config.top_level, config.contractive)):
        skip = config.channels(level)
        upsampling_macs = channels * skip  # stride = kernel: one tap per output frame
        channels = 1 if single_channel and level == config.top_level else skip
        grid = grid.upsampled().joined(levels[level].grid).convolved()
        macs = upsampling_macs + KERNEL * 2 * skip * channels
        levels[level] = Layer(f"expansive.{level}", 2 * skip, channels, grid, macs)
        yield levels[level]

    if isinstance(config.tail, SampleCNNConfig):
        yield from _sample_cnn_layers(config.tail, "tail", grid, channels)
    for level in config.tail_levels:
        grid = grid.pooled()
        extra = levels.get(level) if config.extra_connections else None
        if extra is not None:
            grid = grid.joined(extra.grid)
            channels += extra.channels
        grid = grid.convolved()
        yield _conv_layer(f"tail.{level}", channels, config.tail_channels(level), grid)
        channels = config.tail_channels(level)


def _sample_cnn_layers(
    config: SampleCNNConfig, prefix: str, grid: TimeGrid, channels: int = 1
) -> Iterator[Layer]:
    last = len(config.channels) - 1
    for index, width in enumerate(config.channels):
        convolved = grid.pooled() if index == 0 else grid.convolved()
        pools = 0 < index < last
        grid = convolved.pooled() if pools else convolved
        convolutions_per_frame = FACTOR if pools else 1
        macs = convolutions_per_frame * KERNEL * channels * width
        yield Layer(f"{prefix}.{index}", channels, width, grid, macs)
        channels = width
