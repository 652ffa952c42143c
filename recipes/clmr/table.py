#!/usr/bin/env python3
"""Print the published scores on MagnaTagATune beside the results: table.py DATASET RESULTS."""

from __future__ import annotations

import sys
from pathlib import Path

from hear_tune.common.markdown import markdown_table
from hear_tune.networks.variants import get_variant
from hear_tune.probe.results import cell, load

# Macro ROC-AUC and average precision, in percent, of encoders pre-trained on other data (Vélez
# Vásquez & Burgoyne, ISMIR 2022). The variants hold those of encoders pre-trained on magnatagatune.
OUT_OF_DOMAIN = {
    "fma": {"tune+": (89.1, 36.2), "tune-tail+5": (88.9, 35.3), "clmr": (86.2, 30.6)},
    "gtzan": {"tune+": (87.2, 32.6), "tune-tail+5": (86.9, 32.6), "clmr": (81.9, 26.2)},
    "billboard": {"tune+": (84.5, 28.7), "tune-tail+5": (84.7, 28.6), "clmr": (82.7, 26.9)},
}


def main() -> None:
    """Print one row per model."""
    dataset, folder = sys.argv[1].partition("-")[0], Path(sys.argv[2])
    print(f"pre-trained on {dataset}, probed on magnatagatune (clmr-linear, [95 % interval])\n")
    rows = [["model", "published AUC", "AUC", "published AP", "AP"]]
    for path in sorted(folder.glob("magnatagatune_*.json")):
        result = load(path)
        name = result["model"]
        auc, precision = published(dataset, name)
        cells = [auc, cell(result, "roc_auc"), precision, cell(result, "average_precision")]
        rows.append([name, *cells])
    print(markdown_table(rows))


def published(dataset: str, model: str) -> tuple[str, str]:
    """AUC and AP as fractions, like those of the results; "-" where none was published."""
    if dataset in OUT_OF_DOMAIN:
        scores: tuple[float | None, float | None] = OUT_OF_DOMAIN[dataset][model]
    else:
        variant = get_variant(model)
        scores = variant.mtt_auc, variant.mtt_ap
    auc, precision = ("-" if s is None else f"{s / 100:.3f}" for s in scores)
    return auc, precision


if __name__ == "__main__":
    main()
