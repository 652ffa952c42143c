"""Markdown: tables, and pages with a part that is made anew."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .errors import HearTuneError
from .files import write_whole


class PageError(HearTuneError, ValueError):
    """A page has no place for what goes into it."""


def markdown_table(rows: Sequence[Sequence[str]], right: bool = False) -> str:
    """Format a table.

    Parameters
    ----------
    rows : sequence of sequences of str
        The cells, those of the head first.
    right : bool
        Align all columns but the first to the right.
    """
    head, *body = rows
    rule = ["---", *["--:" if right else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *body))


def refill(page: str | os.PathLike[str], name: str, content: str) -> None:
    """Replace what a page has between the marks ``<!-- NAME -->`` and ``<!-- end of NAME -->``.

    Raises
    ------
    PageError
        If it lacks a mark.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, begun, rest = Path(page).read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise PageError(f"{os.fspath(page)}: has no lines {begin} and {end} to fill")
    write_whole(page, f"{before}{begin}\n\n{content}\n\n{end}{after}")
