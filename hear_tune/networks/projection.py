"""A fitted layer: a linear map of several concatenated layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .geometry import Layer, TimeGrid


class Projection(nn.Module):
    """Project several layers, resampled to one frame rate and concatenated.

    Linear maps commute with averages over time, so the mean of its frames is the projection of the
    layers' means. It is always computed in float32.

    Parameters
    ----------
    name : str
        Name of the new layer.
    sources : sequence of Layer
        Input layers.
    size : int
        Number of output channels.
    stride : int, optional
        Samples per frame; by default the coarsest stride of the sources.

    Attributes
    ----------
    layer : Layer
        Its name, channels, stride and receptive field.
    sources : list of str
        Names of the input layers.
    """

    def __init__(
        self, name: str, sources: Sequence[Layer], size: int, stride: int | None = None
    ) -> None:
        super().__init__()
        inputs = sum(source.channels for source in sources)
        self.sources = [source.name for source in sources]
        self.linear = nn.Linear(inputs, size)
        stride = max(source.stride for source in sources) if stride is None else stride
        grids = [_resampled(source.grid, stride) for source in sources]
        grid = TimeGrid(stride, min(grid.first for grid in grids), max(grid.last for grid in grids))
        self.layer = Layer(name, inputs, size, grid, inputs * size)

    def forward(self, features: Mapping[str, Tensor], samples: int) -> Tensor:
        """Project the features of the sources.

        Parameters
        ----------
        features : mapping of str to Tensor
            Output of each source, (batch, channels, frames).
        samples : int
            Length of the audio in samples.

        Returns
        -------
        Tensor
            (batch, size, samples / stride), float32.
        """
        frames = samples // self.layer.stride
        with torch.autocast(self.linear.weight.device.type, enabled=False):
            joined = [to_frames(features[name].float(), frames) for name in self.sources]
            projected: Tensor = self.linear(torch.cat(joined, dim=1).mT)
        return projected.mT


def to_frames(feature: Tensor, frames: int) -> Tensor:
    """Resample a feature map to a number of frames over the same time.

    Finer maps are averaged; coarser ones are interpolated linearly between frame centres.

    Parameters
    ----------
    feature : Tensor
        (batch, channels, T).
    frames : int
        Number of frames; a multiple or a divisor of T.

    Returns
    -------
    Tensor
        (batch, channels, frames).
    """
    if feature.shape[-1] >= frames:
        return F.avg_pool1d(feature, feature.shape[-1] // frames)
    return F.interpolate(feature, size=frames, mode="linear", align_corners=False)


def _resampled(grid: TimeGrid, stride: int) -> TimeGrid:
    """Time grid of a map after `to_frames`."""
    if grid.stride <= stride:
        return TimeGrid(stride, grid.first, grid.last + stride - grid.stride)
    return TimeGrid(stride, grid.first - grid.stride, grid.last + grid.stride)  # both neighbours
