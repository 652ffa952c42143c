"""Read text tables, with errors that name file, row and column."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from .task import TaskError

_FIELD_LIMIT = 1 << 24  # characters; descriptions in FMA exceed the csv module's 131,072


def read_rows(path: Path, delimiter: str = ",") -> Iterator[list[str]]:
    """Yield the rows of a table, including header lines.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    TaskError
        If it is not UTF-8 text or not a table.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file, delimiter=delimiter)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{path}: no table of UTF-8 text ({error})") from error


def find_delimiter(path: Path, column: str, choices: str = ",;\t") -> str:
    """Return the delimiter with which the header has a column, or else the first choice.

    Spreadsheets write semicolons in locales with a decimal comma.
    """
    for delimiter in choices:
        header = next(read_rows(path, delimiter), [])
        if column in (name.strip().lower() for name in header):
            return delimiter
    return choices[0]


def read_table(
    path: Path, required: Sequence[str] = (), delimiter: str = ",", known: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Read a table with one header line as rows of stripped cells by column name.

    Parameters
    ----------
    path : Path
        The table, in UTF-8.
    required : sequence of str
        Columns that it must have.
    delimiter : str
        Separates cells.
    known : sequence of str
        Column names to recognise in any case: ``Path`` becomes ``path``.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    TaskError
        If it is not a table, lacks a required column, or has a row that is too long or too short.
    """
    rows = read_rows(path, delimiter)
    header = [name.strip() for name in next(rows, [])]
    header = [name.lower() if name.lower() in known else name for name in header]
    missing = [name for name in required if name not in header]
    if missing:
        raise TaskError(f"{path}: no column {missing[0]!r}; it has {', '.join(header) or 'none'}")
    if len(set(header)) != len(header):
        raise TaskError(f"{path}: two columns have the same name")
    table = []
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) != len(header):
            raise TaskError(f"{path}: row {number} has {len(row)} columns, not {len(header)}")
        table.append(dict(zip(header, map(str.strip, row), strict=True)))
    return table


def finite_number(text: str, what: str) -> float:
    """Parse a finite number; a `TaskError` about `what` if it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TaskError(f"{what} is {text!r}, not a number")
    return value
