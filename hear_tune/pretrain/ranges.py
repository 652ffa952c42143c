"""Ranges of the numbers that a training run is set up with."""

from __future__ import annotations


def at_least(lowest: float, **numbers: float | None) -> None:
    """Raise a ValueError that names the first number below the lowest one; None is no number."""
    for name, number in numbers.items():
        if number is not None and not number >= lowest:  # nor is NaN
            raise ValueError(f"{name} must be at least {lowest}, not {number}")
