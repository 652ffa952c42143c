#!/usr/bin/env python3
"""Draw scores over training, from the JSON lines of score.py --json."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hear_tune.probe.plots import BLUE, GREY, ORANGE, new_figure, save_figure

VIEWS = {"logistic regression": (0, "o-"), "nearest neighbour": (2, "s--")}  # place in a row
BASELINES = {"mfcc": GREY, "musicnn": ORANGE}


def main() -> None:
    """Draw a panel per task: scores of the weights over pairs, those of baselines as lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores", type=Path, metavar="JSON")
    parser.add_argument("-o", "--output", default="curve.svg", metavar="FILE")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.scores.read_text().splitlines()]
    weights = sorted((r for r in rows if r["model"] not in BASELINES), key=lambda r: r["pairs"])
    pairs = [row["pairs"] / 1000 for row in weights]
    tasks = [key for key in weights[-1] if key not in ("model", "layers", "pairs")]
    figure, axes = new_figure(len(tasks), (5.2, 1.9 * len(tasks)), sharex=True)
    for axis, task in zip(axes, tasks, strict=True):
        for view, (place, style) in VIEWS.items():
            seen = [row[task][place] for row in weights]
            axis.plot(pairs, seen, style, color=BLUE, ms=4, label=f"TUNE+, {view}")
            for row in (row for row in rows if row["model"] in BASELINES and task in row):
                name, line = row["model"], style.strip("os")
                score = row[task][place]
                axis.axhline(score, ls=line, color=BASELINES[name], lw=1, label=f"{name}, {view}")
        axis.set_ylabel(f"{task}\naccuracy", fontsize=8)
        axis.grid(alpha=0.3)
    axes[-1].legend(fontsize=6, loc="lower left")
    axes[-1].set_xlabel("pairs seen (thousands)")
    save_figure(figure, "Accuracy across groups, training and validation clips", options.output)


if __name__ == "__main__":
    main()
