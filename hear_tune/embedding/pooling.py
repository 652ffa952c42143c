"""Between feature maps and embeddings: pooling over time and over windows, and projections."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..networks.encoders import LayeredEncoder
from ..networks.projection import Projection


class Pooling:
    """Pools layers over time and, behind the average over windows, projects their statistics.

    The average comes first because statistics are compressed: the mean of logarithms would be that
    of the quietest windows. Other layers, and projections without statistics, are only averaged.

    Parameters
    ----------
    network : LayeredEncoder
        The network that computes the layers, with its projections.
    layers : sequence of str
        Names of the layers that embed.

    Attributes
    ----------
    needed : list of str
        Names of the layers to compute.
    size : int
        Numbers per window before the projection.
    """

    def __init__(self, network: LayeredEncoder, layers: Sequence[str]) -> None:
        self._projections: dict[str, Projection | None] = {
            name: network.projection(name) if network.has_statistics(name) else None
            for name in layers
        }
        self._sizes = [
            network.layer(name).channels if projection is None else projection.linear.in_features
            for name, projection in self._projections.items()
        ]
        self.size = sum(self._sizes)
        self.needed = list(
            dict.fromkeys(
                needed
                for name, projection in self._projections.items()
                for needed in ([name] if projection is None else projection.sources)
            )
        )

    def pool(self, features: Mapping[str, Tensor]) -> Tensor:
        """Pool the maps of whole windows over time, (batch, channels, frames) to (batch, size)."""
        return torch.cat(
            [
                features[name].mean(dim=-1)
                if projection is None
                else projection.statistics(features, frames=1)[..., 0]
                for name, projection in self._projections.items()
            ],
            dim=1,
        )

    def project(self, pooled: Tensor) -> Tensor:
        """Project pooled windows, or their means: (batch, size) to (batch, embedding size)."""
        parts = torch.split(pooled, self._sizes, dim=1)
        return torch.cat(
            [
                part if projection is None else projection.of_statistics(part)
                for part, projection in zip(parts, self._projections.values(), strict=True)
            ],
            dim=1,
        )

    def cpu(self) -> Pooling:
        """Return a copy whose projections are on the CPU."""
        other = copy.copy(self)
        other._projections = {
            name: projection and _on_cpu(projection)
            for name, projection in self._projections.items()
        }
        return other


def _on_cpu(projection: Projection) -> Projection:
    if projection.linear.weight.device.type == "cpu":
        return projection
    return copy.deepcopy(projection).cpu()
