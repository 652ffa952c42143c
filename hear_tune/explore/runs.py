"""Read and plot the metrics of training runs of ``hear-tune pretrain``."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..probe.plots import new_figure, save_figure
from . import ExploreError

_METRICS = "metrics.csv"
_STEP, _EPOCH = "step", "epoch"
_SMOOTHED = 50  # the running mean covers 1/50 of a curve
_COLORS = ("#31688e", "#d1602f", "#35b779", "#7b4fa3", "#b8921f", "#5b646e")

Row = dict[str, str]


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes
    ----------
    name : str
        Name of its folder.
    curves : dict of str to (ndarray, ndarray)
        Steps and values, (n,) each, by metric.
    epochs : int
        Number of epochs begun.
    config : str
        All settings as YAML; empty if there are none.
    weights : list of str
        File names of the checkpoints in its folder.
    """

    name: str
    curves: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]
    epochs: int
    config: str
    weights: list[str]

    @property
    def steps(self) -> int:
        """Number of steps up to the last logged one."""
        # a row of training has the number of steps before it, one of a probe that of steps done
        ends = {name: int(steps[-1]) for name, (steps, _) in self.curves.items()}
        return max((end + (not name.startswith("probe/")) for name, end in ends.items()), default=0)


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read the logs of a run; steps repeated after an interruption count once.

    Raises
    ------
    ExploreError
        If the folder has no logs, or they are damaged.
    """
    root = Path(folder)
    logs = sorted(root.glob(f"logs/version_*/{_METRICS}"), key=_version)
    if not logs:
        raise ExploreError(
            f"{root}: no logs/version_*/{_METRICS}: no training run, or one that has logged "
            "nothing yet (every 50 steps, or --trainer.log_every_n_steps)"
        )
    rows: list[tuple[int, Row]] = []
    for log in logs:
        later = list(_rows(log))
        first = min((step for step, _ in later), default=np.inf)
        rows = [row for row in rows if row[0] < first] + later
    names = dict.fromkeys(name for _, row in rows for name in row)
    config = logs[-1].with_name("config.yaml")
    curves = {name: _curve(rows, name, root) for name in names if name not in (_STEP, _EPOCH)}
    return Run(
        name=root.resolve().name,
        curves={name: curve for name, curve in curves.items() if len(curve[0])},
        epochs=1 + max((int(row[_EPOCH]) for _, row in rows if row.get(_EPOCH)), default=-1),
        config=config.read_text(encoding="utf-8") if config.exists() else "",
        weights=sorted(path.name for path in root.glob("*.safetensors")),
    )


def _version(log: Path) -> int:
    number = log.parent.name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1


def _rows(log: Path) -> Iterator[tuple[int, Row]]:
    """Yield complete lines with their steps; a running training may be writing another."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    for row in csv.DictReader(line for line in lines if line.endswith("\n")):
        if None in row or None in row.values() or not row.get(_STEP, "").isdecimal():
            raise ExploreError(f"{log}: damaged, a line is {list(row.values())}")
        yield int(row[_STEP]), row


def _curve(
    rows: Sequence[tuple[int, Row]], name: str, root: Path
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    measured = sorted((step, row[name]) for step, row in rows if row.get(name))
    try:
        values = np.array([float(value) for _, value in measured])
    except ValueError as error:
        raise ExploreError(f"{root}: damaged, {name} has no numbers ({error})") from error
    return np.array([step for step, _ in measured], np.int64), values


def plot_curves(runs: Sequence[Run], path: str | os.PathLike[str]) -> None:
    """Plot every metric over steps, raw (faint) and smoothed, with all runs together."""
    metrics = list(dict.fromkeys(name for run in runs for name in run.curves))
    figure, axes = new_figure(len(metrics), (7.2, 1.9 * len(metrics) + 0.6), sharex=True)
    for axis, metric in zip(axes, metrics, strict=True):
        for number, run in enumerate(runs):
            if metric in run.curves:
                steps, values = run.curves[metric]
                color = _COLORS[number % len(_COLORS)]
                marker = "o" if len(values) < 2 else None
                axis.plot(steps, values, marker=marker, color=color, alpha=0.35, lw=0.8)
                smooth = _smooth(values)
                axis.plot(steps, smooth, marker=marker, color=color, lw=1.5, label=run.name)
        axis.set_ylabel(metric.replace("/", "\n").replace("_", " "), fontsize=8)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("step")
    if len(runs) > 1:
        axes[0].legend(frameon=False, fontsize=8)
    save_figure(figure, "", path)


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Compute a running mean, over fewer values near the ends."""
    width = 1 + len(values) // _SMOOTHED
    window = np.ones(width)
    sums = np.convolve(values, window, mode="same")
    return sums / np.convolve(np.ones(len(values)), window, mode="same")
