"""Tables of a benchmark in a Markdown page, between two marks, made anew from its result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.errors import HearTuneError
from ..common.files import write_whole
from .embed import folders_table, networks_table
from .pretrain import stages_table

BEGIN = "<!-- hear-tune benchmark: begin -->"
END = "<!-- hear-tune benchmark: end -->"


class PageError(HearTuneError, ValueError):
    """A page has no place for the tables."""


def remake_page(result: dict[str, Any], page: str | os.PathLike[str]) -> None:
    """Replace the tables of a page.

    Parameters
    ----------
    result : dict
        From `hear_tune.benchmarks.suite.benchmark`.
    page : path-like
        A Markdown file with the marks `BEGIN` and `END`.

    Raises
    ------
    PageError
        If it lacks a mark.
    """
    text = Path(page).read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise PageError(f"{os.fspath(page)}: has no lines {BEGIN} and {END} to fill")
    write_whole(page, f"{before}{BEGIN}\n\n{markdown(result)}\n\n{END}{after}")


def markdown(result: dict[str, Any]) -> str:
    """Format a result as Markdown: the machine, and a table for each kind of measurement."""
    machine, settings = result["machine"], result["settings"]
    titled = {
        f"On {machine['cores']} cores of {machine['processor']}, torch {machine['torch']}; medians "
        f"of {settings['repeats']} runs:": networks_table(result["networks"]),
        f"{settings['tracks']} MP3s of 29 s, from file to Parquet:": folders_table(
            result["folders"]
        ),
        **_training("Training", result["training"]),
        f"On {result['gpu']}, with copies of the audio to it and of the embeddings back:": (
            networks_table(result["gpu_networks"])
        ),
        **_training("Training on the GPU", result["gpu_training"]),
    }
    parts = [f"{title}\n\n{_table(rows)}" for title, rows in titled.items() if rows]
    if result["gpu"] is None:
        parts.append("Rows for a GPU are missing: none was measured.")
    return "\n\n".join(parts)


def _training(title: str, training: dict[str, Any] | None) -> dict[str, list[list[str]]]:
    if training is None:
        return {}
    pairs = training["settings"]["batch_size"]
    return {f"{title}, {pairs} pairs of windows:": stages_table(training["stages"])}


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *body))
