"""``labels.csv``: a table of files, labels and folds, for data in another layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .tables import read_table
from .task import FOLD, TaskError, split_name

TABLE = "labels.csv"

_FILE, _FOLD = "file", "fold"


def has_table(root: Path) -> bool:
    """Whether a folder has a ``labels.csv``."""
    return (root / TABLE).is_file()


def read_folded(root: Path, columns: Sequence[str]) -> list[tuple[Path, str, dict[str, str]]]:
    """Read path, fold and all columns of each file in a folder's ``labels.csv``.

    Parameters
    ----------
    root : Path
        Folder with the table; files are relative to it.
    columns : sequence of str
        Required columns beside ``file`` and ``fold``.

    Raises
    ------
    FileNotFoundError, TaskError
        If the table is missing or invalid.
    """
    rows = read_table(root / TABLE, [_FILE, *columns, _FOLD])
    return [(root / row[_FILE], _fold(row[_FOLD], root / TABLE), row) for row in rows]


def _fold(text: str, table: Path) -> str:
    fold = split_name(text)
    if fold is None or not fold.startswith(FOLD):
        raise TaskError(f"{table}: fold is {text!r}, not fold00, fold01 ...")
    return fold
