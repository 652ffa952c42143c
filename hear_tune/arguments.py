"""Types of command-line arguments that refuse values out of range when they are parsed."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    return _int_from(1, text)


def non_negative_int(text: str) -> int:
    """A whole number of at least 0."""
    return _int_from(0, text)


def positive_float(text: str) -> float:
    """A finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"must be a number above 0, not {text}")
    return number


def _int_from(lowest: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = lowest - 1
    if number < lowest:
        raise ArgumentTypeError(f"must be a whole number of at least {lowest}, not {text}")
    return number
