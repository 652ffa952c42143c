"""``labels.csv``: a table of files, labels and folds, for data that is not as it was published."""

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
    """Path, fold and all columns of each file in a folder's ``labels.csv``.

    Parameters
    ----------
    root
        Folder with the table; files are relative to it.
    columns
        That the table must have beside ``file`` and ``fold``.

    Raises
    ------
    FileNotFoundError, TaskError
        If the table is not there or not as it should be.
    """
    rows = read_table(root / TABLE, [_FILE, *columns, _FOLD])
    return [(root / row[_FILE], _fold(row[_FOLD], root / TABLE), row) for row in rows]


def _fold(text: str, table: Path) -> str:
    fold = split_name(text)
    if fold is None or not fold.startswith(FOLD):
        raise TaskError(f"{table}: fold is {text!r}, not fold00, fold01 ...")
    return fold
