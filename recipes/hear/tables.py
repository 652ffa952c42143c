"""Keep the scores of two runs of run.sh here, and put their tables into the pages that show them.

python recipes/hear/tables.py OUT OUT_OF_EVENTS
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hear_tune.hear_benchmark.views import view_tables

HERE = Path(__file__).parent
README = "README.md"
SCORES = ("scores.json", "events.json")
SUMMARISED = (Path("README.md"), Path("MODEL_CARD.md"))  # below the root
SUMMARY = "summary"
MODELS = ("TUNE+", "MFCC", "musicnn")
VIEWS = ("logistic", "knn", "heareval")
ABSENT = "–"


def between(text: str, name: str, table: str) -> str:
    """Return a page with a table between the marks of that name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def with_tables(text: str, folder: Path) -> str:
    """Return a page with the tables of the scores in a folder, each between its own marks."""
    for name in SCORES:
        rows = json.loads((folder / name).read_text(encoding="utf-8"))
        text = between(text, name, view_tables(rows))
    return text


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Tabulate the views of a few models, one cell for each task and model; the best are bold."""
    scores = {(row["task"], row["mode"], row["model"], row["view"]): row["score"] for row in rows}
    lines = [f"| | {' | '.join(MODELS)} |", f"|---|{'---|' * len(MODELS)}"]
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
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
    page = HERE / README
    page.write_text(with_tables(page.read_text(encoding="utf-8"), HERE), encoding="utf-8")
    table = summary(json.loads((HERE / SCORES[0]).read_text(encoding="utf-8")))
    for page in (HERE.parents[1] / name for name in SUMMARISED):
        text = between(page.read_text(encoding="utf-8"), SUMMARY, table)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
