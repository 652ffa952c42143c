"""Checks of arguments; each raises a ValueError that names the first one out of range."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite


def at_least(lowest: float, **numbers: float | None) -> None:
    """Require finite numbers of at least `lowest`; None passes."""
    for name, number in numbers.items():
        if number is not None and not lowest <= number < inf:  # nor is NaN
            finite = "" if isfinite(number) else "a finite number of "
            raise ValueError(f"{name} must be {finite}at least {lowest}, not {number}")


def above(limit: float, **numbers: float) -> None:
    """Require finite numbers above `limit`."""
    for name, number in numbers.items():
        if not limit < number < inf:
            finite = "" if isfinite(number) else "a finite number "
            raise ValueError(f"{name} must be {finite}above {limit}, not {number}")


def one_of(choices: Sequence[str], **values: str) -> None:
    """Require values that are among the choices."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
