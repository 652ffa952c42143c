"""Tables of text, read with errors that name file, line and column."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from .task import TaskError

_FIELD_LIMIT = 1 << 24  # characters; descriptions in FMA's table pass the csv module's 131,072


def read_rows(path: Path, delimiter: str = ",") -> Iterator[list[str]]:
    """Rows of a table, its header lines among them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TaskError
        If it is no UTF-8 text or no table.
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
    """The delimiter by which a table's header line has a column; the first choice if none has.

    Spreadsheets write semicolons where the comma is the decimal sign.
    """
    for delimiter in choices:
        header = next(read_rows(path, delimiter), [])
        if column in (name.strip().lower() for name in header):
            return delimiter
    return choices[0]


def read_table(
    path: Path, required: Sequence[str] = (), delimiter: str = ",", known: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Rows of a table with one header line, as columns by name, without outer spaces.

    Parameters
    ----------
    path
        Of the table, in UTF-8.
    required
        Columns that it must have.
    delimiter
        Between cells.
    known
        Names that the header line may have in any case: ``Path`` is ``path``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TaskError
        If it is no table, a required column is missing, or a row is too long or too short.
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
    """A number from its text.

    Raises
    ------
    TaskError
        If it is none, or not finite; `what` says of what.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TaskError(f"{what} is {text!r}, not a number")
    return value
