"""Base class of transforms, which picks samples, and chains of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn

Range: TypeAlias = tuple[float, float]
"""Lowest and highest value of a uniform distribution."""


class RandomTransform(nn.Module, ABC):
    """A transform of each sample of a batch with probability `p`.

    Parameters
    ----------
    p : float
        Probability that a sample is transformed, 0 to 1.

    Raises
    ------
    ValueError
        If `p` is not a probability.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be between 0 and 1, not {p}")
        self.p = p

    @abstractmethod
    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """Draw parameters for each sample of `audio` (batch, samples) and apply them."""

    @torch.no_grad()
    def forward(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """Transform some samples of a batch; lower precisions are computed in float32.

        Parameters
        ----------
        audio : Tensor
            Shape (batch, samples), floating point, on any device; it is left unchanged.
        generator : torch.Generator
            On the CPU: the only source of randomness.

        Returns
        -------
        Tensor
            Shape, type and device of `audio`.

        Raises
        ------
        ValueError
            If `audio` is not a floating-point tensor of shape (batch, samples), samples > 0.
        """
        return apply_in_order([self], audio, generator)

    def transform_(self, audio: Tensor, generator: torch.Generator) -> None:
        """Transform some samples of float32 `audio` in place."""
        chosen = (torch.rand(len(audio), generator=generator) < self.p).nonzero()[:, 0]
        if len(chosen) > 0:
            rows = chosen.to(audio.device)
            audio.index_copy_(0, rows, self.process(audio.index_select(0, rows), generator))


class AugmentationChain(nn.Module):
    """Transforms applied one after the other.

    Parameters
    ----------
    transforms : iterable of RandomTransform
        In the order of their application.
    """

    def __init__(self, transforms: Iterable[RandomTransform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    @torch.no_grad()
    def forward(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch, once per view; arguments and errors as of `RandomTransform.forward`."""
        return apply_in_order(self.transforms, audio, generator)


def uniform(count: int, bounds: Range, generator: torch.Generator) -> Tensor:
    """Draw `count` values between two bounds."""
    low, high = bounds
    return low + (high - low) * torch.rand(count, generator=generator)


def apply_in_order(
    transforms: Iterable[nn.Module], audio: Tensor, generator: torch.Generator
) -> Tensor:
    """Apply transforms to a copy of a batch, in float32, one after the other."""
    if audio.ndim != 2 or audio.shape[-1] == 0 or not audio.is_floating_point():
        raise ValueError(
            "expected a floating-point tensor of shape (batch, samples), "
            f"not {audio.dtype} of shape {tuple(audio.shape)}"
        )
    working = audio.to(torch.float32, copy=True)
    for transform in transforms:
        assert isinstance(transform, RandomTransform)
        transform.transform_(working, generator)
    return working.to(audio.dtype)
