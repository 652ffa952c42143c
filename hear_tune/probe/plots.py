"""Figures of results: layers, classes, confusions. The suffix chooses PNG, SVG or PDF."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from .results import NAMES, Result, primary, row_names

BLUE, ORANGE, GREY = "#31688e", "#d1602f", "#9aa0a6"
_COLORS = {"contractive": "#31688e", "expansive": "#35b779", "tail": "#d1602f"}


def plot_layers(results: Sequence[Result], path: str | os.PathLike[str]) -> None:
    """Plot bars of every metric by layer, in the order of the network (figures S3 and S4)."""
    metrics = list(results[0]["scores"])
    names = [result["layers"][0] for result in results]
    figure, axes = new_figure(
        len(metrics), (0.36 * len(names) + 1.6, 2.6 * len(metrics)), sharex=True
    )
    for axis, metric in zip(axes, metrics, strict=True):
        means = np.array([result["scores"][metric]["mean"] for result in results])
        bounds = np.array([result["scores"][metric]["interval"] for result in results]).T
        colors = [_COLORS.get(name.split(".")[0], BLUE) for name in names]
        axis.bar(names, means, color=colors, width=0.75)
        errors = np.abs(bounds - means)
        axis.errorbar(names, means, errors, fmt="none", ecolor="#333333", elinewidth=0.9)
        low, high = bounds.min(), bounds.max()
        bottom, top = low - 0.35 * (high - low), high + 0.1 * (high - low)
        # R2 may be below 0, where bars hang down
        axis.set_ylim((bottom, max(0, top)) if low < 0 else (max(0, bottom), top))
        axis.set_ylabel(NAMES[metric])
        axis.grid(axis="y", alpha=0.3)
    axes[-1].tick_params(axis="x", rotation=90)
    save_figure(figure, f"{results[0]['task']}: layers of {results[0]['model']}", path)


def plot_classes(result: Result, path: str | os.PathLike[str]) -> None:
    """Plot bars of each class's score, the best on top."""
    metric = next(iter(next(iter(result["per_class"].values()))))
    values = {name: scores[metric] for name, scores in result["per_class"].items()}
    names = sorted(values, key=lambda name: values[name])
    figure, (axis,) = new_figure(1, (5.2, 0.19 * len(names) + 1.1))
    axis.barh(names, [values[name] for name in names], color=BLUE)
    mean = float(np.mean(list(values.values())))
    axis.axvline(mean, color=ORANGE, lw=1.2, label=f"mean {mean:.3f}")
    axis.set_xlabel(NAMES[metric])
    axis.set_xlim(min(0, *values.values()), max(1, *values.values()))
    axis.margins(y=0.01)
    axis.tick_params(axis="y", labelsize=7)
    axis.grid(axis="x", alpha=0.3)
    axis.legend(loc="lower right", framealpha=0.9)
    save_figure(figure, f"{result['task']}: {result['model']}", path)


def plot_confusion(result: Result, path: str | os.PathLike[str]) -> None:
    """Plot the confusion matrix, as shares of the true class."""
    counts = np.array(result["confusion"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes, size = result["classes"], 0.27 * len(counts) + 2.2
    figure, (axis,) = new_figure(1, (size + 0.6, size))
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(len(classes))
    axis.set_xticks(ticks, classes, rotation=90, fontsize=7)
    axis.set_yticks(ticks, classes, fontsize=7)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    if len(counts) <= 24:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            text = str(counts[row, column])
            axis.text(column, row, text, ha="center", va="center", fontsize=6, color=color)
    figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.8)
    score = result["scores"][primary(result)]["mean"]
    title = f"{result['task']}: {result['model']}, {NAMES[primary(result)]} {score:.3f}"
    save_figure(figure, title, path)


def plot_comparison(results: Sequence[Result], path: str | os.PathLike[str]) -> None:
    """Plot bars of several results of one task, in order, with intervals."""
    metric = primary(results[0])
    names = row_names(results)
    means = np.array([result["scores"][metric]["mean"] for result in results])
    bounds = np.array([result["scores"][metric]["interval"] for result in results]).T
    figure, (axis,) = new_figure(1, (6.4, 0.34 * len(names) + 1.2))
    places = np.arange(len(names))
    axis.barh(places, means, color=BLUE, height=0.7)
    errors = np.abs(bounds - means)
    axis.errorbar(means, places, xerr=errors, fmt="none", ecolor="#333333", elinewidth=0.9)
    axis.set_yticks(places, names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(NAMES[metric])
    axis.grid(axis="x", alpha=0.3)
    save_figure(figure, results[0]["task"], path)


def new_figure(rows: int, size: tuple[float, float], sharex: bool = False) -> tuple[Any, Any]:
    """Create a figure of plots below each other; return it and their axes."""
    matplotlib.use("agg")
    figure, axes = plt.subplots(
        rows, 1, figsize=size, squeeze=False, sharex=sharex, layout="constrained"
    )
    for axis in axes[:, 0]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_axisbelow(True)
    return figure, axes[:, 0]


def save_figure(figure: Any, title: str, path: str | os.PathLike[str]) -> None:
    """Add a title and write a figure; equal figures give equal files."""
    figure.suptitle(title, fontsize=10)
    dated = os.fspath(path).endswith(".svg")
    with plt.rc_context({"svg.hashsalt": "hear-tune"}):
        figure.savefig(path, dpi=160, metadata={"Date": None} if dated else None)
    plt.close(figure)
