"""Tables of clips: CSV files with the columns ``path``, ``split`` and ``labels``.

Paths are absolute or relative to the table; splits are train, valid and test; labels are separated
by semicolons.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import pandas as pd

from hear_tune.datasets.task import TEST, TRAIN, VALID, Clip

SPLITS = (TRAIN, VALID, TEST)
COLUMNS = ("path", "split", "labels")
_SEPARATOR = ";"


def write_clips(clips: Iterable[Clip], csv: str | PathLike[str]) -> int:
    """Write labelled clips, such as those of a data set's task, and return their number."""
    rows = [(Path(c.path).resolve(), c.split, _SEPARATOR.join(c.labels)) for c in clips]
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(csv, index=False)
    return len(rows)


def read_clips(csv: str | PathLike[str]) -> pd.DataFrame:
    """Read a table, and add the clips' absolute paths as the column ``wav_path``.

    Raises
    ------
    OSError
        If the table or a clip does not exist.
    ValueError
        If the table lacks a column or a split, or has an unknown one.
    """
    clips = read_text(csv)
    if missing := [column for column in COLUMNS if column not in clips]:
        raise ValueError(f"{csv}: has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
    if set(clips["split"]) != set(SPLITS):
        found = ", ".join(sorted(set(clips["split"]))) or "none"
        raise ValueError(f"{csv}: splits must be {', '.join(SPLITS)}, each of them; found {found}")
    folder = Path(csv).resolve().parent
    clips["wav_path"] = [str(folder / path) for path in clips["path"]]
    gone = [path for path in clips["wav_path"] if not Path(path).is_file()]
    if gone:
        raise FileNotFoundError(f"{csv}: {len(gone)} of {len(clips)} clips are missing: {gone[0]}")
    return clips


def read_text(csv: str | PathLike[str]) -> pd.DataFrame:
    """Read a CSV file as text, so that missing labels are empty strings instead of NaN."""
    return pd.read_csv(csv, dtype=str, keep_default_na=False)


def split_labels(text: str) -> list[str]:
    """Split the labels of a clip."""
    return [label.strip() for label in text.split(_SEPARATOR) if label.strip()]
