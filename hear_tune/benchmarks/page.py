"""Tables of a benchmark in a Markdown page, between two marks, made anew from its result."""

from __future__ import annotations

import os
from typing import Any

from ..common.markdown import markdown_table, refill
from .embed import folders_table, networks_table
from .pretrain import stages_table

MARK = "hear-tune benchmark"


def remake_page(result: dict[str, Any], page: str | os.PathLike[str]) -> None:
    """Replace the tables of a page.

    Parameters
    ----------
    result : dict
        From `hear_tune.benchmarks.suite.benchmark`.
    page : path-like
        A Markdown file with the lines ``<!-- hear-tune benchmark -->`` and ``<!-- end of hear-tune
        benchmark -->``.

    Raises
    ------
    PageError
        If it lacks one of them.
    """
    refill(page, MARK, markdown(result))


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
    parts = [
        f"{title}\n\n{markdown_table(rows, right=True)}" for title, rows in titled.items() if rows
    ]
    if result["gpu"] is None:
        parts.append("Rows for a GPU are missing: none was measured.")
    return "\n\n".join(parts)


def _training(title: str, training: dict[str, Any] | None) -> dict[str, list[list[str]]]:
    if training is None:
        return {}
    pairs = training["settings"]["batch_size"]
    return {f"{title}, {pairs} pairs of windows:": stages_table(training["stages"])}
