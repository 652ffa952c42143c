"""Moments of what passes through training, and the statistics of layers that they standardise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..networks.projection import STATISTICS, compressed, inverse_of, scale_of, to_statistics
from . import WHITENING_COMPRESSION

_LEAST_SHARE = 0.01  # of a new batch in the moments of layers, which change


class Moments(nn.Module):
    """Mean and standard deviation of rows, over batches that count equally or the latest ones.

    Parameters
    ----------
    size : int
        Values of a row.
    """

    mean: Tensor
    square: Tensor
    batches: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("square", torch.zeros(size))  # mean of the squares
        self.register_buffer("batches", torch.tensor(0))

    @torch.no_grad()
    def add(self, rows: Tensor, least_share: float = 0.0) -> None:
        """Add a batch of rows (count, size), which gets no smaller share than that."""
        self.batches += 1
        share = (1 / self.batches).clamp(min=least_share)
        self.mean.lerp_(rows.mean(dim=0), share)
        self.square.lerp_(rows.square().mean(dim=0), share)

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each value."""
        return (self.square - self.mean.square()).clamp(min=0).sqrt()


class LayerStatistics(nn.Module):
    """Pool a layer to the statistics of a whitened embedding, compressed and standardised.

    What a whitening fits to a finished encoder, the scales of the logarithm and the moments behind
    it, follows the layer here. No gradient passes through them.

    Parameters
    ----------
    channels : int
        Channels of the layer.

    Attributes
    ----------
    size : int
        Number of statistics.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.size = len(STATISTICS) * channels
        self.before, self.behind = Moments(self.size), Moments(self.size)  # the logarithm

    def forward(self, feature: Tensor) -> Tensor:
        """Pool (batch, channels, frames) to (batch, size), in float32, also within autocast."""
        with torch.autocast(feature.device.type, enabled=False):
            statistics = to_statistics(feature.float(), 1)[..., 0]
            self._follow(self.before, statistics)
            scale = scale_of(self.before.deviation, WHITENING_COMPRESSION)
            rows = compressed(statistics, scale)
            self._follow(self.behind, rows)
            return (rows - self.behind.mean) * inverse_of(self.behind.deviation)

    def _follow(self, moments: Moments, rows: Tensor) -> None:
        if self.training:
            moments.add(rows, _LEAST_SHARE)
