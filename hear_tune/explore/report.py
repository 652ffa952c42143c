"""Report training runs and probes on one HTML page, from their saved CSV and JSON files."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..common.files import write_whole
from ..probe.plots import plot_classes, plot_comparison, plot_confusion, plot_layers
from ..probe.results import Result, by_task, layers_text, load, task_rows
from . import ExploreError
from .pages import check_page, fill
from .runs import Run, plot_curves, read_run


def write_report(
    inputs: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]
) -> tuple[int, int]:
    """Write a report.

    Parameters
    ----------
    inputs : sequence of path-like
        Folders of training runs, JSON files of probes, and folders of these. Several of a kind are
        compared.
    output : path-like
        HTML page to write; figures are embedded.

    Returns
    -------
    runs, results : int
        Number of training runs and results on the page.

    Raises
    ------
    ExploreError
        If a folder contains neither, the output's folder does not exist, or its name does not end
        in .html.
    ExploreError, ResultError
        If a log or a JSON file is damaged or something else.
    """
    check_page(output)
    runs: list[Run] = []
    results: list[Result] = []
    for place in map(Path, inputs):
        jsons = sorted(place.glob("*.json")) if place.is_dir() else [place]
        if (place / "logs").is_dir():
            runs.append(read_run(place))
        elif jsons:
            results += [load(path) for path in jsons]
        else:
            raise ExploreError(f"{place}: neither a training run nor a folder of results (JSON)")
    sections = [*_training(runs)] if runs else []
    for task, of_task in by_task(results).items():
        sections += _probing(task, of_task)
    title = " · ".join([*(run.name for run in runs), *by_task(results)])
    page = fill("report.html", title=escape(title), body="\n".join(sections))
    write_whole(output, page)
    return len(runs), len(results)


def _training(runs: Sequence[Run]) -> Iterator[str]:
    metrics = list(dict.fromkeys(name for run in runs for name in run.curves))
    yield "<h2>Training</h2>"
    yield _table(
        [
            ["run", *(run.name for run in runs)],
            ["steps", *(f"{run.steps:,}" for run in runs)],
            ["epochs", *(str(run.epochs) for run in runs)],
            *([f"last {name}", *(_last(run, name) for run in runs)] for name in metrics),
            ["weights", *(", ".join(run.weights) for run in runs)],
        ]
    )
    if metrics:
        yield _picture(plot_curves, runs, "Training curves over steps")
    for run in runs:
        if run.config:
            name, config = escape(run.name), escape(run.config)
            yield f"<details><summary>Settings of {name}</summary><pre>{config}</pre></details>"


def _last(run: Run, metric: str) -> str:
    return f"{run.curves[metric][1][-1]:.4g}" if metric in run.curves else ""


def _probing(task: str, results: list[Result]) -> Iterator[str]:
    yield f"<h2>{escape(task)}</h2>"
    yield _table(task_rows(results))
    if len(results) > 1:
        yield _picture(plot_comparison, results, "Scores side by side")
    for of_layers in _layer_series(results):
        yield _picture(plot_layers, of_layers, "Scores of each layer")
        results = [result for result in results if result not in of_layers]
    yield '<div class="beside">'
    for result in results:
        name = f"{result['model']}, {layers_text(result)}, {result['protocol']}"
        yield f"<section><h3>{escape(name)}</h3>"
        if result["per_class"]:
            yield _picture(plot_classes, result, f"Scores of each class: {name}")
        if result["confusion"]:
            yield _picture(plot_confusion, result, f"Confusion matrix: {name}")
        yield "</section>"
    yield "</div>"


def _layer_series(results: Sequence[Result]) -> list[list[Result]]:
    """Group results of one model that differ only in their single layer."""
    series: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        if len(result["layers"]) == 1:
            key = (result["identity"], result["model"], result["protocol"])
            series.setdefault(key, []).append(result)
    several = (one for one in series.values() if len({r["layers"][0] for r in one}) > 1)
    return [_in_network_order(one) for one in several]


def _in_network_order(results: list[Result]) -> list[Result]:
    """Sort from input to output; contractive, expansive, tail is alphabetical order."""

    def key(result: Result) -> tuple[str, int]:
        name, _, number = result["layers"][0].partition(".")
        level = int(number) if number.isdecimal() else 0
        return name, -level if name == "expansive" else level  # the coarsest comes first

    return sorted(results, key=key)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [[escape(cell) for cell in row] for row in rows]
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in body]
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    rows_html = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows_html}</tbody></table></div>"
    )


def _picture(plot: Callable[[Any, Path], None], what: Any, description: str) -> str:
    with TemporaryDirectory() as folder:
        path = Path(folder, "plot.svg")
        plot(what, path)
        encoded = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(description)}" src="data:image/svg+xml;base64,{encoded}">'
