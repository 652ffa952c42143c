"""Text for people: aligned tables and shortened lists."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align rows of equally many cells in columns two spaces apart.

    Parameters
    ----------
    rows : sequence of sequences of str
        The cells.
    left : int
        Number of columns aligned to the left; the others are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def first_n(items: Sequence[str], count: int, separator: str = ", ") -> str:
    """Join the first items, and say how many more there are."""
    more = [f"{len(items) - count} more"] if len(items) > count else []
    return separator.join([*items[:count], *more])
