#!/usr/bin/env python3
"""Draw validation scores over training, from the JSON lines of validate.py --json."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from hear_tune.probe.plots import BLUE, GREY, ORANGE, new_figure, save_figure

BASELINES = {"mfcc": GREY, "musicnn": ORANGE}


def main() -> None:
    """Draw a panel per task: a curve over pairs for each choice of layers, baselines as lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores", type=Path, metavar="JSON")
    parser.add_argument("-o", "--output", default="curve.svg", metavar="FILE")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.scores.read_text().splitlines()]
    baselines = [row for row in rows if row["model"] in BASELINES]
    series: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["pairs"]):
        if row not in baselines:
            series.setdefault(tuple(row["layers"]), []).append(row)
    tasks = [key for key in rows[0] if key not in ("model", "layers", "pairs")]
    figure, axes = new_figure(len(tasks), (5.2, 2.1 * len(tasks)), sharex=True)
    for axis, task in zip(axes, tasks, strict=True):
        for layers, checkpoints in series.items():
            points = [row for row in checkpoints if task in row]
            pairs = [row["pairs"] / 1000 for row in points]
            style = "o-" if len(layers) == 1 else "s--"
            label = f"TUNE+, {', '.join(layers)}"
            axis.plot(pairs, [row[task] for row in points], style, color=BLUE, ms=4, label=label)
        for row in baselines:
            axis.axhline(row[task], color=BASELINES[row["model"]], lw=1.2, label=row["model"])
        axis.set_ylabel(f"{task}\naccuracy", fontsize=8)
        axis.grid(alpha=0.3)
    axes[-1].legend(fontsize=6, loc="lower right")
    axes[-1].set_xlabel("pairs seen (thousands)")
    save_figure(figure, "Cross-validated accuracy of a logistic regression", options.output)


if __name__ == "__main__":
    main()
