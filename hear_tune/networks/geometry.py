"""The layers of an encoder, computed from its configuration: names, channels and time scales.

A layer's name is also the path of its module in the network and the prefix of its tensors in a
checkpoint: ``contractive.4``, ``expansive.0``, ``tail.9``; ``blocks.10`` in a SampleCNN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .config import FACTOR, EncoderConfig, SampleCNNConfig, TuneConfig

KERNEL = 3


@dataclass(frozen=True)
class TimeGrid:
    """Where the frames of a feature map lie in the audio, all in samples.

    Frame t depends on no sample outside ``t * stride + first`` to ``t * stride + last``, inclusive.
    After upsampling this is a bound for all frames: what one sees depends on its place in the
    coarser frame that it came from.
    """

    stride: int = 1
    first: int = 0
    last: int = 0

    @property
    def receptive_field(self) -> int:
        return self.last - self.first + 1

    def convolved(self) -> TimeGrid:
        """After a convolution of kernel 3, stride 1, padding 1."""
        return TimeGrid(self.stride, self.first - self.stride, self.last + self.stride)

    def pooled(self) -> TimeGrid:
        """After pooling, or an unpadded convolution, of kernel 3 and stride 3."""
        return TimeGrid(FACTOR * self.stride, self.first, self.last + (FACTOR - 1) * self.stride)

    def upsampled(self) -> TimeGrid:
        """After a transposed convolution of kernel 3 and stride 3."""
        stride = self.stride // FACTOR
        return TimeGrid(stride, self.first - (FACTOR - 1) * stride, self.last)

    def joined(self, other: TimeGrid) -> TimeGrid:
        """After concatenation with a map of the same stride."""
        return TimeGrid(self.stride, min(self.first, other.first), max(self.last, other.last))


@dataclass(frozen=True)
class Layer:
    """One layer whose output can be had by name.

    Attributes
    ----------
    name
        Path of the layer's module.
    in_channels, channels
        Channels that its convolution takes and gives.
    grid
        Its stride and receptive field in samples.
    macs_per_frame
        Multiply-accumulate operations for one frame of output.
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
    """All layers of an encoder, in the order in which they are computed."""
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
        upsampling_macs = channels * skip  # stride = kernel: each output frame meets one tap
        channels = 1 if single_channel and level == config.top_level else skip
        grid = grid.upsampled().joined(levels[level].grid).convolved()
        levels[level] = Layer(
            f"expansive.{level}",
            2 * skip,
            channels,
            grid,
            upsampling_macs + KERNEL * 2 * skip * channels,
        )
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
