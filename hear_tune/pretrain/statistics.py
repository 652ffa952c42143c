"""Statistics of a layer over time, as a whitened embedding has them, while the layer is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..networks.projection import STATISTICS, compressed, to_statistics
from . import WHITENING_COMPRESSION

_SHARE = 0.01  # of a batch in the moving averages; the first batches count equally
_SMALLEST_SCALE = 1e-3  # of a statistic, so that a dead channel stays at zero
_SMALLEST_DEVIATION = 1e-2  # of a compressed statistic


class LayerStatistics(nn.Module):
    """Pool a layer to compressed statistics, each standardised.

    What a whitening fits to a finished encoder, the scales of the logarithm and the moments behind
    it, are moving averages over batches here. No gradient passes through them.

    Parameters
    ----------
    channels : int
        Channels of the layer.

    Attributes
    ----------
    size : int
        Number of statistics.
    """

    deviation: Tensor
    compressed_mean: Tensor
    compressed_deviation: Tensor
    batches: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.size = STATISTICS * channels
        self.register_buffer("deviation", torch.ones(self.size))
        self.register_buffer("compressed_mean", torch.zeros(self.size))
        self.register_buffer("compressed_deviation", torch.ones(self.size))
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, feature: Tensor) -> Tensor:
        """Pool (batch, channels, frames) to (batch, size), in float32, also within autocast."""
        with torch.autocast(feature.device.type, enabled=False):
            statistics = to_statistics(feature.float(), 1)[..., 0]
            share = self._share()
            self._follow(self.deviation, statistics, share)
            scale = (self.deviation / WHITENING_COMPRESSION).clamp(min=_SMALLEST_SCALE)
            rows = compressed(statistics, scale)
            self._follow(self.compressed_deviation, rows, share)
            if share:
                self.compressed_mean.lerp_(rows.detach().mean(dim=0), share)
            deviation = self.compressed_deviation.clamp(min=_SMALLEST_DEVIATION)
            return (rows - self.compressed_mean) / deviation

    def _share(self) -> float:
        """Share of this batch in the averages; none in evaluation."""
        if not self.training:
            return 0.0
        self.batches += 1
        return max(_SHARE, 1 / int(self.batches))

    @staticmethod
    def _follow(average: Tensor, rows: Tensor, share: float) -> None:
        if share and len(rows) > 1:
            average.lerp_(rows.detach().std(dim=0), share)
