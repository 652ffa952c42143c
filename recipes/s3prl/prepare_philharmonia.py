"""Write the table of Philharmonia notes that s3prl's ClipClassification reads.

    python prepare_philharmonia.py PHILHARMONIA philharmonia.csv

PHILHARMONIA holds ``metadata.csv``, with the columns ``file``, ``instrument`` and
``split_instrument``, and the files that it lists. Rows without a split are excluded.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from hear_tune.datasets.task import Clip
from hear_tune.upstream.tables import write_clips


def notes(root: Path) -> list[Clip]:
    """Return all notes of the splits, labelled with their instrument."""
    with (root / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split_instrument"]]
    return [Clip(root / row["file"], row["split_instrument"], (row["instrument"],)) for row in rows]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, metavar="PHILHARMONIA")
    parser.add_argument("output", type=Path, metavar="TABLE.csv")
    options = parser.parse_args()
    print(f"{options.output}: {write_clips(notes(options.root), options.output)} notes")
