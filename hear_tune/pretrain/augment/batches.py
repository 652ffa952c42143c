"""Computing effects on batches: a few rows at a time, with FFTs of fast sizes."""

from collections.abc import Callable

import torch
from torch import Tensor

ROWS_IN_CACHE = 4
"""Rows of about 60,000 samples whose intermediate results fit the cache of a CPU core."""


def by_rows(
    function: Callable[..., Tensor], batched: tuple[Tensor, ...], *shared: object
) -> Tensor:
    """Call `function` on a few rows at a time on a CPU, on all at once elsewhere."""
    rows = ROWS_IN_CACHE if batched[0].device.type == "cpu" else len(batched[0])
    result = torch.empty_like(batched[0])
    for start in range(0, len(result), rows):
        part = slice(start, start + rows)
        result[part] = function(*(tensor[part] for tensor in batched), *shared)
    return result


def fast_fft_size(least: int) -> int:
    """Return the smallest even product of powers of 2, 3 and 5 of at least `least`."""
    size = least + least % 2
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2
