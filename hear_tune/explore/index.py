"""An index of a library that is too large to compare every row with: approximate, by HNSW.

It lies beside the library, as ``LIBRARY.parquet.usearch``, and is mapped into memory, not read.
Vectors are kept in half precision.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..clips import Vectors
from ..stores import count_rows, read_rows, read_vectors
from .similar import QueryError, Ranked, unit

_SUFFIX = ".usearch"
_ROWS_PER_SAVE = 1 << 18
_FIRST_CANDIDATES = 64  # of each query


class IndexSearch:
    """Looks rows up in an index, which is made first if it is missing or older than the library.

    Parameters
    ----------
    library
        A Parquet file that `hear_tune.embed_folder` wrote. Its vectors are read only to make the
        index, with a progress bar; an interrupted making goes on at the next time.

    Raises
    ------
    FileNotFoundError, StoreError
        If the library cannot be read.
    QueryError
        If usearch is missing.
    """

    def __init__(self, library: str | os.PathLike[str]) -> None:
        self.library = read_rows(library)
        if find_spec("usearch") is None:
            raise QueryError('an index needs usearch: pip install "hear-tune[index]"')
        self._index = _open(Path(library))

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


def _open(library: Path) -> Any:
    from usearch.index import Index

    path = library.with_name(library.name + _SUFFIX)
    if not _is_of(path, library):
        _build(library, path)
    return Index.restore(path, view=True)


def _is_of(path: Path, library: Path) -> bool:
    """Whether an index was made after its library."""
    return path.exists() and path.stat().st_mtime_ns > library.stat().st_mtime_ns


def _build(library: Path, path: Path) -> None:
    from usearch.index import Index

    partial = path.with_name(path.name + ".partial")
    index: Any = Index.restore(partial) if _is_of(partial, library) else None
    held = saved = 0 if index is None else len(index)
    first = 0
    with tqdm(total=count_rows(library), initial=held, desc="index", unit="row") as bar:
        for vectors in read_vectors(library):
            if index is None:
                index = Index(ndim=vectors.shape[1], metric="cos", dtype="f16")
            rows = np.arange(first, first + len(vectors))
            first += len(vectors)
            new = rows >= held
            index.add(rows[new], unit(vectors[new]))
            bar.update(int(new.sum()))
            if len(index) - saved >= _ROWS_PER_SAVE:
                _save(index, partial)
                saved = len(index)
    _save(index, partial)
    partial.replace(path)


def _save(index: Any, path: Path) -> None:
    """Whole or not at all."""
    scratch = path.with_name(path.name + ".scratch")
    index.save(scratch)
    scratch.replace(path)
