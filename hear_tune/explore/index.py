"""An approximate index (HNSW) for libraries too large to compare every row.

It lies beside the library as ``LIBRARY.parquet.usearch`` and is memory-mapped. Vectors are in half
precision. A mark behind usearch's own content identifies the library.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.files import replacing
from ..common.progress import progress_bar
from ..embedding.batching import Vectors
from ..embedding.library import fingerprint, read_rows, read_vectors
from . import ExploreError
from .similar import Ranked, unit

_SUFFIX = ".usearch"
_BUILDING_PER_SAVING = 20  # times as long, so that saves cost 5 %
_FIRST_SAVE_S = 30.0
_FIRST_CANDIDATES = 64  # per query
# Thinner than usearch's defaults (16, 128 and 64), and faster to build; a wider search, about a
# millisecond, makes up for it. The expansions are not saved with an index.
_GRAPH: dict[str, Any] = {"connectivity": 12, "expansion_add": 48, "expansion_search": 256}
_MARK = b"hear-tune library "
_MARK_BYTES = len(_MARK) + 32  # with a SHA-256
_UNWRITABLE = (OSError, RuntimeError)  # usearch raises the latter


class IndexSearch:
    """Search by an index, built first if it is missing or belongs to another library.

    Parameters
    ----------
    library : path-like
        Parquet file written by `hear_tune.embed_folder`. Its vectors are read only to build the
        index, with a progress bar; an interrupted build continues the next time. If the index
        cannot be written, it is kept in memory and a warning is issued.

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
        """Return the unit vectors of some rows, (rows, size)."""
        return np.asarray(self._index.get(rows)).astype(np.float32)

    def ranked(self, queries: Vectors) -> Iterator[Ranked]:
        """Yield rows by falling similarity to any query, each once; look up more as needed."""
        seen: set[int] = set()
        count = min(_FIRST_CANDIDATES, len(self._index))
        while True:
            matches = self._index.search(unit(queries), count)
            keys, distances = np.atleast_2d(matches.keys), np.atleast_2d(matches.distances)
            complete = count == len(self._index)
            # beyond it, rows near one query may be missing while those of another are known
            horizon = np.inf if complete else distances[:, -1].min()
            for place in np.argsort(distances, axis=None, kind="stable"):
                row = int(keys.flat[place])
                if row not in seen and distances.flat[place] <= horizon:
                    seen.add(row)
                    moment = int(place) // keys.shape[1]
                    yield Ranked(row, 1 - float(distances.flat[place]), moment)
            if complete:
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
    """Load the index with that mark; None if it is missing or damaged."""
    from usearch.index import Index

    if _mark_of(path) != mark:
        return None
    try:
        return Index.restore(path, view=view, **_GRAPH)
    except (ValueError, *_UNWRITABLE):  # usearch raises any
        return None


def _mark_of(path: Path) -> bytes:
    """Read the mark at the end of an index; an old one ends in anything else."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(-min(_MARK_BYTES, path.stat().st_size), os.SEEK_END)
        return file.read()


def _build(library: Path, count: int, partial: Path, mark: bytes) -> Any:
    from usearch.index import Index

    index = _restored(partial, mark)
    held = 0 if index is None else len(index)
    first = 0
    due = time.monotonic() + _FIRST_SAVE_S
    with progress_bar(total=count, initial=held, desc="index", unit="row") as bar:
        for vectors in read_vectors(library):
            if index is None:
                index = Index(ndim=vectors.shape[1], metric="cos", dtype="f16", **_GRAPH)
            rows = np.arange(first, first + len(vectors))
            first += len(vectors)
            new = rows >= held
            index.add(rows[new], unit(vectors[new]))
            bar.update(int(new.sum()))
            if new.any() and (start := time.monotonic()) >= due:
                with suppress(*_UNWRITABLE):  # a warning follows at the end
                    _save(index, partial, mark)
                due = time.monotonic() + _BUILDING_PER_SAVING * (time.monotonic() - start)
    return index


def _save(index: Any, path: Path, mark: bytes) -> None:
    with replacing(path) as partial:
        index.save(partial)
        with partial.open("ab") as file:
            file.write(mark)


def _warn(path: Path, error: Exception) -> None:
    reason = getattr(error, "strerror", None) or error
    warnings.warn(
        f"{path}: cannot be written ({reason}): the index is kept in memory and built anew each "
        "time; copy the library to where you can write",
        stacklevel=4,
    )
