"""Text for people: aligned tables and shortened lists."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(rows: Sequence[Sequence[str]], right: Collection[int] | None = None) -> str:
    """Align rows of equally many cells in columns two spaces apart.

    Parameters
    ----------
    rows : sequence of sequences of str
        The cells.
    right : collection of int, optional
        Columns aligned to the right; by default all but the first.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = range(1, len(widths)) if right is None else right
    lines = (
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def counted(number: int, noun: str) -> str:
    """Format a number of things: "1 file", "2 files"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def first_n(items: Sequence[str], count: int, separator: str = ", ") -> str:
    """Join the first items, and say how many more there are."""
    more = [f"{len(items) - count} more"] if len(items) > count else []
    return separator.join([*items[:count], *more])
