"""Keep the scores of two runs of run.sh here, and put their tables into the pages that show them.

python recipes/hear/tables.py OUT OUT_OF_EVENTS
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hear_tune.common.markdown import markdown_table, refill
from hear_tune.hear_benchmark.views import view_tables

HERE = Path(__file__).parent
README = "README.md"
SCORES = ("scores.json", "events.json")
SUMMARISED = (Path("README.md"), Path("MODEL_CARD.md"))  # below the root
SUMMARY = "summary"
MODELS = ("TUNE+", "MFCC", "musicnn")
VIEWS = ("logistic", "knn", "heareval")
ABSENT = "–"


def fill(page: Path, folder: Path) -> None:
    """Put the tables of the scores in a folder into a page."""
    for name in SCORES:
        refill(page, name, view_tables(_rows(folder / name)))


def fill_summary(page: Path, folder: Path) -> None:
    """Put the summary of the scores in a folder into a page."""
    refill(page, SUMMARY, summary(_rows(folder / SCORES[0])))


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Tabulate the views of a few models, one cell for each task and model; the best are bold."""
    scores = {(row["task"], row["mode"], row["model"], row["view"]): row["score"] for row in rows}
    lines = [["", *MODELS]]
    for task, mode in sorted({(row["task"], row["mode"]) for row in rows}):
        rivals = {
            view: [scores[key] for model in MODELS if (key := (task, mode, model, view)) in scores]
            for view in VIEWS
        }
        cells = [
            " / ".join(_cell(scores.get((task, mode, model, view)), rivals[view]) for view in VIEWS)
            for model in MODELS
        ]
        title = task if mode == "full" else f"{task} {mode}"
        lines.append([title, *cells])
    return markdown_table(lines)


def _cell(score: float | None, rivals: Sequence[float]) -> str:
    if score is None:
        return ABSENT
    best = len(rivals) > 1 and round(score, 3) == round(max(rivals), 3)
    return f"**{score:.3f}**" if best else f"{score:.3f}"


def main() -> None:
    """Copy the scores of the arguments' folders, and renew the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for folder in ("out", "events"):
        parser.add_argument(folder, type=Path)
    options = parser.parse_args()
    for name, out in zip(SCORES, (options.out, options.events), strict=True):
        text = (out / "scores.json").read_text(encoding="utf-8")
        (HERE / name).write_text(text, encoding="utf-8")
    fill(HERE / README, HERE)
    for name in SUMMARISED:
        fill_summary(HERE.parents[1] / name, HERE)


if __name__ == "__main__":
    main()
