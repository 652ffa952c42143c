"""Read outputs of ``hear-tune embed``: a Parquet file, or a folder of them, as one library."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .batching import Vectors
from .rows import (
    VECTORS,
    StoreError,
    batches_of,
    check_identity,
    count_rows,
    embedding_size,
    opened,
    read_batches,
    read_identity,
    vectors_of,
)


@dataclass(frozen=True)
class LibraryRows:
    """The rows of a Parquet file of embeddings, without the embeddings.

    Attributes
    ----------
    paths : list of str
        The audio file of each row.
    start, end : ndarray (rows,), float64
        In seconds.
    identity : dict
        What the embeddings depend on: "model", "layers", "hop_samples", "per", "sample_rate".
    """

    paths: list[str]
    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    identity: dict[str, Any]


@dataclass(frozen=True)
class Library(LibraryRows):
    """The rows of a Parquet file of embeddings.

    Attributes
    ----------
    vectors : ndarray (rows, size), float32
    """

    vectors: Vectors


def read_rows(path: str | os.PathLike[str]) -> LibraryRows:
    """Read the rows of an output of ``hear-tune embed`` without their embeddings.

    Parameters
    ----------
    path : path-like
        A Parquet file, or a folder of them.

    Raises
    ------
    FileNotFoundError
        If there is none.
    StoreError
        If the file is something else, or has no rows.
    """
    sources = _files_of(path)
    identity = read_identity(sources[0])
    count = count_rows(sources)
    if count == 0:
        raise StoreError(f"{os.fspath(path)}: has no embeddings")
    start, end = np.empty(count), np.empty(count)
    paths: list[str] = []
    for batch in read_batches(sources, ["path", "start", "end"]):
        rows = slice(len(paths), len(paths) + batch.num_rows)
        start[rows], end[rows] = batch["start"], batch["end"]
        names = batch["path"].dictionary_encode()
        texts = names.dictionary.to_pylist()  # all rows of a file share one string
        paths += [texts[name] for name in names.indices.to_numpy()]
    return LibraryRows(paths, start, end, identity)


def read_library(path: str | os.PathLike[str]) -> Library:
    """Read an output of ``hear-tune embed``; parameters and errors are those of `read_rows`."""
    rows = read_rows(path)
    vectors = np.empty((len(rows.paths), embedding_size(_files_of(path))), np.float32)
    first = 0
    for part in read_vectors(path):
        vectors[first : first + len(part)] = part
        first += len(part)
    return Library(rows.paths, rows.start, rows.end, rows.identity, vectors)


def read_vectors(path: str | os.PathLike[str]) -> Iterator[Vectors]:
    """Yield the vectors of a Parquet file, or folder, of embeddings: (some rows, size) each."""
    return (vectors_of(batch) for batch in read_batches(_files_of(path), [VECTORS]))


def read_vectors_of(path: str | os.PathLike[str], rows: npt.NDArray[np.intp]) -> Vectors:
    """Read the vectors of some rows of a Parquet file, or folder, one row group at a time.

    Parameters
    ----------
    path : path-like
        As for `read_rows`.
    rows : ndarray (some rows,)
        Indices in the file or folder.

    Returns
    -------
    ndarray (some rows, size), float32

    Raises
    ------
    FileNotFoundError, StoreError
        As by `read_rows`, or if it has no such row.
    """
    sources = _files_of(path)
    vectors = np.empty((len(rows), embedding_size(sources)), np.float32)
    first = 0
    for source in sources:
        with opened(source) as file:
            for number in range(file.num_row_groups):
                count = file.metadata.row_group(number).num_rows
                wanted = (first <= rows) & (rows < first + count)
                if wanted.any():
                    group = map(vectors_of, batches_of(file, [VECTORS], number))
                    vectors[wanted] = np.concatenate([*group])[rows[wanted] - first]
                first += count
    missing = rows[(rows < 0) | (rows >= first)]
    if len(missing):
        raise StoreError(f"{os.fspath(path)}: has {first} rows, but no row {missing[0]}")
    return vectors


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Identify the content of a Parquet file, or folder, of embeddings without reading its rows.

    Returns
    -------
    str
        SHA-256 of each file's name, size, time of change and footer, which has the places of all
        columns and their least and greatest values.
    """
    digest = hashlib.sha256()
    for file in _files_of(path):
        status = file.stat()
        digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns} ".encode())
        digest.update(_footer(file))
    return digest.hexdigest()


def _footer(path: Path) -> bytes:
    """Read a Parquet footer: its length and a magic number, four bytes each, end the file."""
    with path.open("rb") as file:
        end = file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, end - length))
        return file.read()


def _files_of(library: str | os.PathLike[str]) -> list[Path]:
    """Return a library's file, or those of its folder."""
    path = Path(library)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise FileNotFoundError(f"{path}: no such output; hear-tune embed MUSIC -o writes one")
    if path.is_file() and path.suffix.lower() != ".parquet":
        raise StoreError(f"{path}: only Parquet can be searched; embed with -o NAME.parquet")
    wanted = read_identity(files[0])
    for file in files[1:]:
        check_identity(read_identity(file), path, wanted)
    return files
