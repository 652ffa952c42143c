"""Command-line arguments: parsers, and types that refuse values out of range when parsed."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any


class Parser(ArgumentParser):
    """Takes no options by their beginnings: a typo of one could be another."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    return _int_from(1, text)


def several(text: str) -> int:
    """A whole number of at least 2."""
    return _int_from(2, text)


def non_negative_int(text: str) -> int:
    """A whole number of at least 0."""
    return _int_from(0, text)


def positive_float(text: str) -> float:
    """A finite number above 0."""
    number = _finite(text)
    if not number > 0:
        raise ArgumentTypeError(f"must be a number above 0, not {text}")
    return number


def non_negative_float(text: str) -> float:
    """A finite number of at least 0."""
    number = _finite(text)
    if not number >= 0:
        raise ArgumentTypeError(f"must be a number of at least 0, not {text}")
    return number


def _finite(text: str) -> float:
    """A number from its text; NaN, which compares with nothing, if it is none or not finite."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _int_from(lowest: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = lowest - 1
    if number < lowest:
        raise ArgumentTypeError(f"must be a whole number of at least {lowest}, not {text}")
    return number
