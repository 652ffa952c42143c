"""Keep the scores of two runs of run.sh here, and put their tables into README.md.

python recipes/hear/tables.py OUT OUT_OF_EVENTS
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hear_tune.hear_benchmark.views import view_tables

HERE = Path(__file__).parent
README = "README.md"
SCORES = ("scores.json", "events.json")


def with_tables(text: str, folder: Path) -> str:
    """Return a page with the tables of the scores in a folder, each between its own marks."""
    for name in SCORES:
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        rows = json.loads((folder / name).read_text(encoding="utf-8"))
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n\n{view_tables(rows)}\n\n{end}{after}"
    return text


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


if __name__ == "__main__":
    main()
