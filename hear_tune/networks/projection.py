"""A fitted layer: a linear map of several layers, or of their statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .geometry import Layer, TimeGrid

STATISTICS = ("mean", "deviation", "maximum")  # of each channel over time
SMALLEST_DEVIATION = 1e-4  # of a channel or statistic over windows; below, it is taken as dead


class Projection(nn.Module):
    """Project several layers, resampled to one frame rate and concatenated.

    What is projected are the means of each channel over a frame's time or, with statistics, the
    means and standard deviations (statistics pooling, as in x-vectors: Snyder et al., 2018) and the
    maxima, compressed from x to log(1 + x / scale) so that quiet channels count too. Projections
    are always computed in float32.

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
    statistics : bool
        Whether to project statistics; the stride must be a multiple of those of the sources then.

    Raises
    ------
    ValueError
        If statistics are asked of frames that are not whole frames of each source.

    Attributes
    ----------
    layer : Layer
        Its name, channels, stride and receptive field.
    sources : list of str
        Names of the input layers.
    scale : Tensor or None
        (inputs,), of each statistic.
    """

    scale: Tensor | None

    def __init__(
        self,
        name: str,
        sources: Sequence[Layer],
        size: int,
        stride: int | None = None,
        statistics: bool = False,
    ) -> None:
        super().__init__()
        inputs = sum(source.channels for source in sources) * (len(STATISTICS) if statistics else 1)
        self.sources = [source.name for source in sources]
        self.linear = nn.Linear(inputs, size)
        stride = max(source.stride for source in sources) if stride is None else stride
        for source in sources:
            if statistics and stride % source.stride:
                raise ValueError(
                    f"no statistics of {stride} samples: they are not whole frames of "
                    f"{source.name}, of {source.stride}"
                )
        self.register_buffer("scale", torch.ones(inputs) if statistics else None)
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
        if self.scale is not None:
            return self.of_statistics(self.statistics(features, frames).mT).mT
        maps = [features[name].float() for name in self.sources]
        rows = torch.cat([to_frames(feature, frames) for feature in maps], dim=1).mT
        return self._projected(rows).mT

    def statistics(self, features: Mapping[str, Tensor], frames: int) -> Tensor:
        """Return the statistics of the sources, (batch, inputs, frames)."""
        maps = [features[name].float() for name in self.sources]
        return torch.cat([to_statistics(feature, frames) for feature in maps], dim=1)

    def of_statistics(self, statistics: Tensor) -> Tensor:
        """Project statistics of the sources, (..., inputs) to (..., size)."""
        assert self.scale is not None
        return self._projected(compressed(statistics, self.scale))

    def _projected(self, rows: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            projected: Tensor = self.linear(rows)
        return projected


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


def to_statistics(feature: Tensor, frames: int) -> Tensor:
    """Return means, standard deviations and maxima over time.

    Parameters
    ----------
    feature : Tensor
        (batch, channels, T).
    frames : int
        Number of frames; a divisor of T.

    Returns
    -------
    Tensor
        (batch, channels of each of `STATISTICS` in turn, frames).
    """
    cells = feature.reshape(*feature.shape[:-1], frames, -1)
    mean = cells.mean(dim=-1)
    variance = (cells - mean[..., None]).square().mean(dim=-1)
    # of a channel that is constant, the root has no finite gradient
    deviation = variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt()
    return torch.cat([mean, deviation, cells.amax(dim=-1)], dim=1)


def scale_of(deviation: Tensor, compression: float) -> Tensor:
    """Return the scale of statistics for `compressed` from their deviation over windows.

    The higher the compression, the smaller the scale. Statistics that hardly vary get a scale of 1:
    a small one would amplify what little there is.
    """
    return torch.where(deviation > SMALLEST_DEVIATION, deviation / compression, 1.0)


def inverse_of(deviation: Tensor) -> Tensor:
    """Return what standardises by a deviation: its inverse, or 0 for what hardly varies."""
    return torch.where(deviation > SMALLEST_DEVIATION, 1 / deviation, 0.0)


def compressed(statistics: Tensor, scale: Tensor) -> Tensor:
    """Compress statistics (..., inputs), none of which is below 0, as layers end in a ReLU."""
    return torch.log1p(statistics / scale)


def _resampled(grid: TimeGrid, stride: int) -> TimeGrid:
    """Time grid of a map after `to_frames`."""
    if grid.stride <= stride:
        return TimeGrid(stride, grid.first, grid.last + stride - grid.stride)
    return TimeGrid(stride, grid.first - grid.stride, grid.last + grid.stride)  # both neighbours
