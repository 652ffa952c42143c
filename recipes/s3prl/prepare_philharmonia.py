"""Write the table of Philharmonia notes that s3prl's ClipClassification reads.

    python prepare_philharmonia.py PHILHARMONIA philharmonia.csv

PHILHARMONIA holds ``metadata.csv`` with the columns ``file``, ``instrument`` and
``split_instrument``, and the files that it names. Rows without a split are left out.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path


def write_table(root: Path, output: Path) -> int:
    """Write the table; returns the number of its clips."""
    with (root / "metadata.csv").open(newline="", encoding="utf-8") as file:
        notes = [row for row in csv.DictReader(file) if row["split_instrument"]]
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "labels"])
        for row in notes:
            path = (root / row["file"]).resolve()
            writer.writerow([path, row["split_instrument"], row["instrument"]])
    return len(notes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, metavar="PHILHARMONIA")
    parser.add_argument("output", type=Path, metavar="TABLE.csv")
    options = parser.parse_args()
    print(f"{options.output}: {write_table(options.root, options.output)} notes")
