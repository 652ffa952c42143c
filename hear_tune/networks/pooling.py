"""Max pooling by 3 and ReLU that are quick on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .config import FACTOR


def max_pool(x: Tensor) -> Tensor:
    """Maxima of three frames each: (batch, channels, 3 T) -> (batch, channels, T).

    Equal to `torch.nn.functional.max_pool1d` with its gradient. On a CPU torch's own notes the
    places of the maxima in a slow pass and in 8 bytes each; here they are found again on the way
    back. Maps of height 1, (batch, channels, 1, 3 T), are for inference and come from a ReLU: with
    channels innermost, comparing slices is quicker than torch's pooling.
    """
    if x.ndim == 4:
        numbers = as_integers(x)
        maxima = torch.maximum(numbers[..., 0::FACTOR], numbers[..., 1::FACTOR])
        return torch.maximum(maxima, numbers[..., 2::FACTOR], out=maxima).view(x.dtype)
    if x.requires_grad and x.device.type == "cpu":
        pool: Any = _MaxPool  # torch types `apply` differently from one release to the next
        pooled: Tensor = pool.apply(x)
        return pooled
    return F.max_pool1d(x, FACTOR)


def relu_(x: Tensor) -> Tensor:
    """ReLU in place, for inference."""
    as_integers(x).clamp_(min=0)
    return x


def as_integers(x: Tensor) -> Tensor:
    """A view of the bits of floating-point numbers, as integers: those are quicker to compare.

    Negative numbers are negative integers, and the others are in the same order. NaN may be either.
    """
    return x.view(_INTEGERS[x.itemsize])


_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        maxima = F.max_pool1d(x.detach(), FACTOR)
        ctx.save_for_backward(x, maxima)
        return maxima

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, maxima = ctx.saved_tensors
        result = torch.empty_like(x)
        free = torch.ones_like(maxima, dtype=torch.bool)  # of equals, the first is the maximum
        for place in range(FACTOR):
            chosen = (x[..., place::FACTOR] == maxima) & free
            torch.mul(gradient, chosen, out=result[..., place::FACTOR])
            free &= ~chosen
        return result
