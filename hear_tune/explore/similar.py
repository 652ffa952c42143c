"""Search by sound: find the rows of a library with the highest cosine similarity to a query."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import fsspec
import numpy as np
import numpy.typing as npt

from ..audio.files import path_text
from ..audio.reading import Remark, is_url
from ..checkpoints.pretrained import load_encoder
from ..common import text
from ..common.progress import one_line
from ..common.ranges import at_least
from ..embedding.batching import ClipEmbeddings, Vectors
from ..embedding.folder import embed_file
from ..embedding.library import (
    Library,
    LibraryRows,
    fingerprint,
    read_rows,
    read_vectors,
    read_vectors_of,
)
from ..embedding.model import EmbeddingModel
from ..hear import untrained_encoder
from ..networks.config import SAMPLE_RATE_HZ, Precision
from ..networks.encoders import Encoder
from ..networks.folded import precision_of
from ..networks.variants import VARIANTS
from ..weights import PRETRAINED
from . import ExploreError

_FILE_URL = "file://"
_DECIMALS = 6  # of cosines, beyond which they differ by rounding alone
_CHUNK_VALUES = 1 << 24  # cosines in memory at a time, 64 MiB of float32


@dataclass(frozen=True)
class Match:
    """A row of a library and the most similar row of the query.

    Attributes
    ----------
    row : int
        Index in the library.
    path : str
        File of the row.
    start, end : float
        Span of the row in its file, in seconds.
    cosine : float
        Similarity, -1..1.
    query_start, query_end : float
        Span of the query's row, in seconds.
    """

    row: int
    path: str
    start: float
    end: float
    cosine: float
    query_start: float
    query_end: float


class Ranked(NamedTuple):
    """A row of a library, its highest cosine to any row of a query, and that row's index."""

    row: int
    cosine: float
    moment: int


class Search(Protocol):
    """Finds the rows of a library nearest to a query."""

    library: LibraryRows

    def vectors(self, rows: npt.NDArray[np.intp]) -> Vectors:
        """Return the vectors of some rows, (rows, size)."""

    def ranked(self, queries: Vectors) -> Iterator[Ranked]:
        """Yield rows by falling similarity to any query, each once."""


class ExactSearch:
    """Search that compares every row of a library in memory."""

    def __init__(self, library: Library) -> None:
        self.library: LibraryRows = library
        self._vectors = library.vectors

    def vectors(self, rows: npt.NDArray[np.intp]) -> Vectors:
        return self._vectors[rows]

    def ranked(self, queries: Vectors) -> Iterator[Ranked]:
        return _ranked(*_compared(queries, [self._vectors], len(self._vectors)))


class FileSearch:
    """Search that compares every row of a file, which is read anew each time.

    The results are those of `ExactSearch`, which is faster for many queries. Memory holds the path
    and cosine of each row, but few vectors at a time.

    Parameters
    ----------
    library : path-like
        Parquet file, or folder of them, written by ``hear-tune embed``.

    Raises
    ------
    FileNotFoundError, StoreError
        If the file cannot be read, also while searching.
    ExploreError
        While searching, if the file has changed.
    """

    def __init__(self, library: str | os.PathLike[str]) -> None:
        self._path = library
        self._fingerprint = fingerprint(library)
        self.library = read_rows(library)

    def vectors(self, rows: npt.NDArray[np.intp]) -> Vectors:
        with self._unchanged():
            return read_vectors_of(self._path, rows)

    def ranked(self, queries: Vectors) -> Iterator[Ranked]:
        with self._unchanged():
            found = _compared(queries, read_vectors(self._path), len(self.library.paths))
        return _ranked(*found)

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Check the file before and after it is read."""
        self._check()
        yield
        self._check()

    def _check(self) -> None:
        if fingerprint(self._path) != self._fingerprint:
            raise ExploreError(f"{os.fspath(self._path)}: has changed; start the search anew")


def _compared(
    queries: Vectors, batches: Iterable[Vectors], count: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Compare up to `count` rows, given in batches: cosines with the nearest query, and which."""
    queries = unit(queries)
    cosines = np.zeros(count, np.float32)
    moments = np.zeros(count, np.int32)
    first = 0
    for batch in batches:
        for chunk in _chunks(len(batch), max(queries.shape)):
            products = (unit(batch[chunk]) @ queries.T)[: count - first]
            rows = slice(first, first + len(products))
            moments[rows] = products.argmax(axis=1)
            cosines[rows] = products.max(axis=1)
            first = rows.stop
    return cosines, moments


def _ranked(cosines: npt.NDArray[np.float32], moments: npt.NDArray[np.int32]) -> Iterator[Ranked]:
    """Yield rows by falling cosine; those that differ by rounding alone keep their order."""
    for row in np.argsort(-cosines.round(_DECIMALS), kind="stable"):
        yield Ranked(int(row), float(cosines[row]), int(moments[row]))


def find_similar(
    search: Search,
    query: ClipEmbeddings,
    count: int = 10,
    *,
    leave_out: str | Collection[str] | None = None,
    per_track: bool = False,
) -> list[Match]:
    """Find the rows of a library nearest to any row of a query, the nearest first.

    Parameters
    ----------
    search : Search
        Exact search in a library or file, or search by an index.
    query : ClipEmbeddings
        Embeddings by the same model.
    count : int
        Maximum number of matches.
    leave_out : str or collection of str, optional
        Paths whose rows are excluded, such as the query's own (`own_paths`).
    per_track : bool
        Whether to return only the nearest row of each file.

    Returns
    -------
    list of Match
        Rows that are equally similar, to a millionth, are in the library's order if the search is
        exact.

    Raises
    ------
    ValueError
        If the count is below 1.
    """
    at_least(1, count=count)
    matches: list[Match] = []
    hidden = {leave_out} if isinstance(leave_out, str) else set(leave_out or ())
    seen = set(hidden)
    rows = search.library
    for row, cosine, moment in search.ranked(query.vectors):
        path = rows.paths[row]
        if path in hidden or (per_track and path in seen):
            continue
        seen.add(path)
        spans = rows.start[row], rows.end[row], cosine, query.start[moment], query.end[moment]
        matches.append(Match(row, path, *map(float, spans)))
        if len(matches) == count:
            break
    return matches


def neighbours(vectors: Vectors, count: int) -> Iterator[npt.NDArray[np.intp]]:
    """Find the nearest other rows of each row by cosine, in chunks of rows.

    Parameters
    ----------
    vectors : ndarray
        (rows, size).
    count : int
        Neighbours per row, fewer than rows.

    Yields
    ------
    ndarray
        (rows of the chunk, count), indices with the nearest first.
    """
    units = unit(vectors)
    for rows in _chunks(len(units), len(units)):
        cosines = units[rows] @ units.T
        cosines[np.arange(len(cosines)), np.arange(rows.start, rows.stop)] = -np.inf
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1, kind="stable")
        yield np.take_along_axis(nearest, order, axis=1)


def unit(vectors: Vectors) -> Vectors:
    """Scale vectors to length 1; zeros stay zeros, with a cosine of 0 to everything."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _CHUNK_VALUES // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def query_of_library(search: Search, path: str) -> ClipEmbeddings:
    """Return the rows of a file in the library as a query.

    Raises
    ------
    ExploreError
        If the file is not in the library.
    """
    library = search.library
    rows = np.array([row for row, other in enumerate(library.paths) if other == path], np.intp)
    if len(rows) == 0:
        raise ExploreError(f"{path}: not in the library")
    return ClipEmbeddings(search.vectors(rows), library.start[rows], library.end[rows])


def own_paths(library: LibraryRows, query: str | os.PathLike[str]) -> list[str]:
    """Find the paths in a library that name the same file as the query.

    Relative and absolute paths, links and URLs of a file are recognised. Every file of the library
    is looked up on disk.
    """
    name = path_text(os.fspath(query))
    place, file = _place(name), _file(os.fspath(query))
    return [
        path
        for path in dict.fromkeys(library.paths)
        if path == name or _place(path) == place or (file is not None and _file(path) == file)
    ]


def _place(path: str) -> str:
    """Normalise a path or URL, whether the file exists or not."""
    inside, _, outermost = path.rpartition("::")
    if inside:  # an archive, as in zip://a.wav::music.zip
        return f"{inside}::{_place(outermost)}"
    local = path.removeprefix(_FILE_URL)
    if not is_url(local):
        return os.path.abspath(local)
    try:
        store, place = fsspec.core.url_to_fs(path)
        url: str = store.unstrip_protocol(place)
    except Exception:  # filesystems raise anything, and may not be installed
        return path
    return url


def _file(path: str) -> tuple[int, int] | None:
    """Return the device and inode of a local file; None if it does not exist."""
    local = path.removeprefix(_FILE_URL)
    try:
        status = os.stat(local)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def embed_query(
    path: str | os.PathLike[str], library: LibraryRows, checkpoint: str | os.PathLike[str] = ""
) -> ClipEmbeddings:
    """Embed an audio file like the files of a library; warn if a part of it is missing.

    Parameters
    ----------
    path : path-like
        As for `hear_tune.embed_file`.
    library : LibraryRows
        Determines model, layers, hop and kind of rows.
    checkpoint : path-like
        Checkpoint of the model; not needed for those in the package.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ExploreError
        If the model is not the library's.
    AudioError
        If the file contains no usable audio.
    """
    if not is_url(path) and not os.path.exists(path):
        raise FileNotFoundError(f"{os.fspath(path)}: neither a file nor a path in the library")
    model = model_of_library(library, checkpoint)
    remarks: list[Remark] = []
    query = embed_file(path, model, library.identity["per"], remarks)
    for remark in remarks:
        warnings.warn(f"{os.fspath(path)}: {remark}", stacklevel=2)
    return query


def model_of_library(
    library: LibraryRows, checkpoint: str | os.PathLike[str] = ""
) -> EmbeddingModel:
    """Load the model that embedded a library.

    Raises
    ------
    ExploreError
        If the checkpoint holds another model, or none is given and the package lacks the model.
    """
    wanted = library.identity["model"]
    known = [load_encoder(checkpoint)] if checkpoint else []
    precision = precision_of(wanted)
    used: Precision = "float32" if precision == "float16" else precision  # which is for GPUs only
    hop_ms = 1000 * library.identity["hop_samples"] / SAMPLE_RATE_HZ
    timestamps = library.identity["per"] == "timestamp"
    layers = {"timestamp_layers" if timestamps else "layers": library.identity["layers"]}
    for encoder in known or _known_encoders(wanted.split(" ")[0]):
        if encoder.identity == wanted.removesuffix(f" {precision}"):
            return EmbeddingModel(encoder, hop_ms=hop_ms, precision=used, **layers)
    given = f", and {os.fspath(checkpoint)} is {known[0].identity}" if checkpoint else ""
    raise ExploreError(
        f"the library was embedded by {wanted}{given}: give the checkpoint that it was embedded "
        "with as the model"
    )


def _known_encoders(variant: str) -> Iterator[Encoder]:
    """Yield the encoders of the package: the untrained variant, then all weights."""
    if variant in VARIANTS:
        yield untrained_encoder(variant)
    yield from map(load_encoder, PRETRAINED)


def covering(query: ClipEmbeddings, seconds: float) -> ClipEmbeddings:
    """Select the rows of a query that cover a moment.

    Raises
    ------
    ExploreError
        If there are none.
    """
    rows = (query.start <= seconds) & (seconds < query.end)
    if not rows.any():
        raise ExploreError(
            f"{seconds:g} s is outside the query, {query.start.min():g} to {query.end.max():g} s"
        )
    return ClipEmbeddings(query.vectors[rows], query.start[rows], query.end[rows])


def table(matches: list[Match]) -> str:
    """Tabulate cosine, seconds in the file, seconds in the query, and path."""
    rows = [["cosine", "seconds", "of the query", "path"]]
    for match in matches:
        found = f"{match.start:.2f}-{match.end:.2f}"
        asked = f"{match.query_start:.2f}-{match.query_end:.2f}"
        rows.append([f"{match.cosine:.4f}", found, asked, one_line(match.path)])
    return text.table(rows, right=range(3))
