"""Max pooling by 3 and ReLU, optimised for CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .config import FACTOR


def max_pool(x: Tensor) -> Tensor:
    """Take the maximum of every three frames: (batch, channels, 3 T) -> (batch, channels, T).

    Output and gradient equal those of `torch.nn.functional.max_pool1d`. On a CPU, torch stores the
    index of each maximum in a slow pass and 8 bytes; here the backward pass finds them again. Maps
    of height 1, (batch, channels, 1, 3 T), are for inference and come from a ReLU: with channels
    innermost, comparing slices is faster than torch's pooling.
    """
    if x.ndim == 4:
        numbers = as_integers(x)
        maxima = torch.maximum(numbers[..., 0::FACTOR], numbers[..., 1::FACTOR])
        return torch.maximum(maxima, numbers[..., 2::FACTOR], out=maxima).view(x.dtype)
    if x.requires_grad and x.device.type == "cpu":
        pool: Any = _MaxPool  # the type of `apply` differs between torch releases
        pooled: Tensor = pool.apply(x)
        return pooled
    return F.max_pool1d(x, FACTOR)


def relu_(x: Tensor) -> Tensor:
    """Apply ReLU in place, for inference."""
    as_integers(x).clamp_(min=0)
    return x


def as_integers(x: Tensor) -> Tensor:
    """View floating-point numbers as integers of the same bits, which compare faster.

    Negative numbers become negative integers; the others keep their order. NaN may be either.
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
        free = torch.ones_like(maxima, dtype=torch.bool)  # of ties, the first is the maximum
        for place in range(FACTOR):
            chosen = (x[..., place::FACTOR] == maxima) & free
            torch.mul(gradient, chosen, out=result[..., place::FACTOR])
            free &= ~chosen
        return result
