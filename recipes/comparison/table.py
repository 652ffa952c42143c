#!/usr/bin/env python3
"""Print the table of run.sh from its results: table.py RESULTS."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from hear_tune.common.markdown import markdown_table
from hear_tune.networks.geometry import encoder_layers
from hear_tune.networks.variants import get_variant
from hear_tune.probe.results import load

TITLES = {"tune+": "TUNE+", "tune-tail+5": "Tail+5", "clmr": "CLMR's encoder"}
LAST = {name: encoder_layers(get_variant(name).config)[-1].name for name in TITLES}

Scores = dict[str, list[float]]  # by layer, one for each seed


def main() -> None:
    """Print a row for each model and objective, a column for each task."""
    print(table(map(load, sorted(Path(sys.argv[1]).glob("*.json")))))


def table(results: Iterable[dict[str, Any]]) -> str:
    """Format accuracy of the last layer, and of the best layer with its name.

    Both are means over seeds. The best layer is chosen by the scores shown.
    """
    found: dict[tuple[str, str], dict[str, Scores]] = defaultdict(dict)
    for result in results:
        variant, _, rest = str(result["model"]).partition(" ")
        objective = rest.partition(" ")[0]
        scores = found[variant, objective].setdefault(result["task"], defaultdict(list))
        scores[" ".join(result["layers"])].append(result["scores"]["accuracy"]["mean"])
    tasks = sorted({task for scores in found.values() for task in scores})
    rows = [["", "seeds", *tasks]]
    for (variant, objective), of_tasks in sorted(found.items()):
        seeds = max(len(values) for scores in of_tasks.values() for values in scores.values())
        title = " ".join(filter(None, (TITLES.get(variant, variant), objective)))
        cells = [_cell(of_tasks.get(task, {}), LAST.get(variant)) for task in tasks]
        rows.append([title, str(seeds) if variant in LAST else "", *cells])
    return markdown_table(rows)


def _cell(scores: Scores, last: str | None) -> str:
    if not scores:
        return "–"
    means = {layer: float(np.mean(values)) for layer, values in scores.items()}
    best = max(means, key=lambda layer: means[layer])
    if last not in means:
        return f"{means[best]:.3f}"
    return f"{means[last]:.3f}, {means[best]:.3f} (`{best}`)"


if __name__ == "__main__":
    main()
