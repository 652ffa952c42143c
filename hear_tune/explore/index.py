"""An index of a library that is too large to compare every row with: approximate, by HNSW.

It lies beside the library, as ``LIBRARY.parquet.usearch``, and is mapped into memory, not read.
Vectors are kept in half precision. Behind usearch's own content, the file's end says of which
library it is.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.progress import progress_bar
from ..embedding.batching import Vectors
from ..embedding.output import fingerprint, read_rows, read_vectors
from . import ExploreError
from .similar import Ranked, unit

_SUFFIX = ".usearch"
_ROWS_PER_SAVE = 1 << 18
_FIRST_CANDIDATES = 64  # of each query
_MARK = b"hear-tune library "
_MARK_BYTES = len(_MARK) + 32  # with a SHA-256
_UNWRITABLE = (OSError, RuntimeError)  # usearch raises the latter


class IndexSearch:
    """Looks rows up in an index, which is made first if it is missing or not of this library.

    Parameters
    ----------
    library
        A Parquet file that `hear_tune.embed_folder` wrote. Its vectors are read only to make the
        index, with a progress bar; an interrupted making goes on at the next time. Where it cannot
        be written, the index is kept in memory, and a warning says so.

    Raises
    ------
    FileNotFoundError, StoreError
        If the library cannot be read.
    ExploreError
        If usearch is missing.
    """

    def __init__(self, library: str | os.PathLike[str]) -> None:
        self.library = read_rows(library)
        if find_spec("usearch") is None:
            raise ExploreError('an index needs usearch: pip install "hear-tune[index]"')
        self._index = _open(Path(library), len(self.library.paths))

    def vectors(self, rows: npt.NDArray[np.intp]) -> Vectors:
        """Vectors of some rows, (rows, size), of length 1."""
        return np.asarray(self._index.get(rows)).astype(np.float32)

    def ranked(self, queries: Vectors) -> Iterator[Ranked]:
        """Rows from the nearest to any query on, each once; more are looked up as needed."""
        seen: set[int] = set()
        count = min(_FIRST_CANDIDATES, len(self._index))
        while True:
            matches = self._index.search(unit(queries), count)
            keys, distances = np.atleast_2d(matches.keys), np.atleast_2d(matches.distances)
            for place in np.argsort(distances, axis=None, kind="stable"):
                row = int(keys.flat[place])
                if row not in seen:
                    seen.add(row)
                    moment = int(place) // keys.shape[1]
                    yield Ranked(row, 1 - float(distances.flat[place]), moment)
            if count == len(self._index):
                return
            count = min(4 * count, len(self._index))


def _open(library: Path, rows: int) -> Any:
    path = library.with_name(library.name + _SUFFIX)
    mark = _MARK + bytes.fromhex(fingerprint(library))
    index = _restored(path, mark, view=True)
    if index is not None and len(index) == rows:
        return index
    index = _build(library, rows, path.with_name(path.name + ".partial"), mark)
    try:
        _save(index, path, mark)
        path.with_name(path.name + ".partial").unlink(missing_ok=True)
    except _UNWRITABLE as error:
        _warn(path, error)
    return index


def _restored(path: Path, mark: bytes, view: bool = False) -> Any:
    """Load an index of that mark; None if there is none, or if it is damaged."""
    from usearch.index import Index

    if _mark_of(path) != mark:
        return None
    try:
        return Index.restore(path, view=view)
    except (ValueError, *_UNWRITABLE):  # usearch raises any
        return None


def _mark_of(path: Path) -> bytes:
    """The end of an index, which says of which library it is; of an old one, anything else."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(-min(_MARK_BYTES, path.stat().st_size), os.SEEK_END)
        return file.read()


def _build(library: Path, count: int, partial: Path, mark: bytes) -> Any:
    from usearch.index import Index

    index = _restored(partial, mark)
    held = saved = 0 if index is None else len(index)
    first = 0
    with progress_bar(total=count, initial=held, desc="index", unit="row") as bar:
        for vectors in read_vectors(library):
            if index is None:
                index = Index(ndim=vectors.shape[1], metric="cos", dtype="f16")
            rows = np.arange(first, first + len(vectors))
            first += len(vectors)
            new = rows >= held
            index.add(rows[new], unit(vectors[new]))
            bar.update(int(new.sum()))
            if len(index) - saved >= _ROWS_PER_SAVE:
                saved = len(index)
                with suppress(*_UNWRITABLE):  # as is said at the end
                    _save(index, partial, mark)
    return index


def _save(index: Any, path: Path, mark: bytes) -> None:
    """Whole or not at all."""
    scratch = path.with_name(
        f"{path.name}.{secrets.token_hex(8)}.scratch"
    )  # no two makers share it
    try:
        index.save(scratch)
        with scratch.open("ab") as file:
            file.write(mark)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _warn(path: Path, error: Exception) -> None:
    reason = getattr(error, "strerror", None) or error
    warnings.warn(
        f"{path}: cannot be written ({reason}): the index is in memory, and made anew each time; "
        "copy the library to where you can write",
        stacklevel=4,
    )
