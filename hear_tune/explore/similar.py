"""Search by sound: the rows of a library that are nearest to a query by cosine, all compared."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import fsspec
import numpy as np
import numpy.typing as npt

from ..audio.files import path_text
from ..audio.reading import Remark, is_url
from ..checkpoints.pretrained import load_encoder
from ..common.progress import one_line
from ..embedding.batching import ClipEmbeddings, Vectors
from ..embedding.folder import embed_file
from ..embedding.model import EmbeddingModel
from ..embedding.output import Library, LibraryRows
from ..hear import untrained_encoder
from ..networks.config import SAMPLE_RATE_HZ
from ..networks.encoders import Encoder
from ..networks.folded import precision_of
from ..networks.variants import VARIANTS
from ..weights import PRETRAINED
from . import ExploreError

_FILE_URL = "file://"
_CHUNK_VALUES = 1 << 24  # cosines held at a time, 64 MiB of float32


@dataclass(frozen=True)
class Match:
    """A row of a library, and the row of the query that it is nearest to.

    Attributes
    ----------
    row
        Its number in the library.
    path
        Of the file that it is of.
    start, end
        What it stands for, in seconds of that file.
    cosine
        Its similarity, -1..1.
    query_start, query_end
        Seconds of the query that it is similar to.
    """

    row: int
    path: str
    start: float
    end: float
    cosine: float
    query_start: float
    query_end: float


class Ranked(NamedTuple):
    """A row of a library, its greatest cosine to a row of a query, and which one that is."""

    row: int
    cosine: float
    moment: int


class Search(Protocol):
    """A way to find the nearest rows of a library."""

    library: LibraryRows

    def vectors(self, rows: npt.NDArray[np.intp]) -> Vectors:
        """Vectors of some rows, (rows, size)."""

    def ranked(self, queries: Vectors) -> Iterator[Ranked]:
        """Rows from the nearest to any query on, each once."""


class ExactSearch:
    """Compares every row."""

    def __init__(self, library: Library) -> None:
        self.library: LibraryRows = library
        self._vectors = library.vectors

    def vectors(self, rows: npt.NDArray[np.intp]) -> Vectors:
        return self._vectors[rows]

    def ranked(self, queries: Vectors) -> Iterator[Ranked]:
        queries = unit(queries)
        cosines = np.empty(len(self._vectors), np.float32)
        moments = np.empty(len(self._vectors), np.intp)
        for chunk in _chunks(len(cosines), max(queries.shape)):
            products = unit(self._vectors[chunk]) @ queries.T
            moments[chunk] = products.argmax(axis=1)
            cosines[chunk] = products.max(axis=1)
        for row in np.argsort(-cosines, kind="stable"):
            yield Ranked(int(row), float(cosines[row]), int(moments[row]))


def find_similar(
    search: Search,
    query: ClipEmbeddings,
    count: int = 10,
    *,
    leave_out: str | Collection[str] | None = None,
    per_track: bool = False,
) -> list[Match]:
    """Rows of a library that are nearest to any row of a query, the nearest first.

    Parameters
    ----------
    search
        Of the library: exact, or by an index.
    query
        Embeddings by the same model.
    count
        At most so many.
    leave_out
        Path of a file whose rows are not looked for, the query's own; or several (`own_paths`).
    per_track
        Only the nearest row of each file.

    Returns
    -------
    list of Match
        Rows as similar as each other come in the library's order, if the search is exact.

    Raises
    ------
    ExploreError
        If the count is below 1.
    """
    if count < 1:
        raise ExploreError(f"at least one row must be asked for, not {count}")
    matches: list[Match] = []
    hidden = {leave_out} if isinstance(leave_out, str) else set(leave_out or ())
    seen = set(hidden)
    rows = search.library
    for row, cosine, moment in search.ranked(query.vectors):
        path = rows.paths[row]
        if path in hidden or (per_track and path in seen):
            continue
        seen.add(path)
        matches.append(
            Match(
                row,
                path,
                float(rows.start[row]),
                float(rows.end[row]),
                cosine,
                float(query.start[moment]),
                float(query.end[moment]),
            )
        )
        if len(matches) == count:
            break
    return matches


def neighbours(vectors: Vectors, count: int) -> Iterator[npt.NDArray[np.intp]]:
    """Numbers of each row's nearest other rows by cosine, the nearest first, in chunks of rows.

    Parameters
    ----------
    vectors
        (rows, size).
    count
        Of neighbours, less than there are rows.

    Yields
    ------
    ndarray
        (some rows, count).
    """
    units = unit(vectors)
    for rows in _chunks(len(units), len(units)):
        cosines = units[rows] @ units.T
        cosines[np.arange(len(cosines)), np.arange(rows.start, rows.stop)] = -np.inf
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1, kind="stable")
        yield np.take_along_axis(nearest, order, axis=1)


def unit(vectors: Vectors) -> Vectors:
    """Vectors of length 1; zeros stay zeros, and are similar to nothing."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _CHUNK_VALUES // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def query_of_library(search: Search, path: str) -> ClipEmbeddings:
    """The rows of one file of a library.

    Raises
    ------
    ExploreError
        If it has none.
    """
    library = search.library
    rows = np.array([row for row, other in enumerate(library.paths) if other == path], np.intp)
    if len(rows) == 0:
        raise ExploreError(f"{path}: not in the library")
    return ClipEmbeddings(search.vectors(rows), library.start[rows], library.end[rows])


def own_paths(library: LibraryRows, query: str | os.PathLike[str]) -> list[str]:
    """The paths in a library of the file that a query names, however each is spelt.

    Relative and absolute paths, links and URLs of one file are the same. Each file of the library
    is looked up on its disk for this.
    """
    name = path_text(os.fspath(query))
    place, file = _place(name), _file(os.fspath(query))
    return [
        path
        for path in dict.fromkeys(library.paths)
        if path == name or _place(path) == place or (file is not None and _file(path) == file)
    ]


def _place(path: str) -> str:
    """One spelling of a path or URL, whether there is such a file or not."""
    inside, _, outermost = path.rpartition("::")
    if inside:  # of an archive, as zip://a.wav::music.zip
        return f"{inside}::{_place(outermost)}"
    local = path.removeprefix(_FILE_URL)
    if not is_url(local):
        return os.path.abspath(local)
    try:
        store, place = fsspec.core.url_to_fs(path)
        url: str = store.unstrip_protocol(place)
    except Exception:  # each kind of store has errors of its own, and may not be installed here
        return path
    return url


def _file(path: str) -> tuple[int, int] | None:
    """What is the same for all names of a file of this machine; None if there is none."""
    local = path.removeprefix(_FILE_URL)
    try:
        status = os.stat(local)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def embed_query(
    path: str | os.PathLike[str], library: LibraryRows, checkpoint: str | os.PathLike[str] = ""
) -> ClipEmbeddings:
    """Embed an audio file as the files of a library were; warns if a part of it is missing.

    Parameters
    ----------
    path
        As of `hear_tune.embed_file`.
    library
        It says which model, layers, hop and kind of rows.
    checkpoint
        Of that model; not needed for one of the package.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ExploreError
        If the model is not the library's.
    AudioError
        If the file holds no usable audio.
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
    """The model that embedded a library.

    Raises
    ------
    ExploreError
        If the checkpoint is of another model, or none is given and the package has no such model.
    """
    wanted = library.identity["model"]
    known = [load_encoder(checkpoint)] if checkpoint else []
    precision = precision_of(wanted)
    hop_ms = 1000 * library.identity["hop_samples"] / SAMPLE_RATE_HZ
    timestamps = library.identity["per"] == "timestamp"
    layers = {"timestamp_layers" if timestamps else "layers": library.identity["layers"]}
    for encoder in known or _known_encoders(wanted.split(" ")[0]):
        if encoder.identity == wanted.removesuffix(f" {precision}"):
            return EmbeddingModel(encoder, hop_ms=hop_ms, precision=precision, **layers)
    given = f", and {os.fspath(checkpoint)} is {known[0].identity}" if checkpoint else ""
    raise ExploreError(
        f"the library was embedded by {wanted}{given}: give the checkpoint that it was embedded "
        "with as the model"
    )


def _known_encoders(variant: str) -> Iterator[Encoder]:
    """Those of the package: the untrained variant, and weights."""
    if variant in VARIANTS:
        yield untrained_encoder(variant)
    yield from map(load_encoder, PRETRAINED)


def covering(query: ClipEmbeddings, seconds: float) -> ClipEmbeddings:
    """The rows of a query that stand for a moment.

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
    """Lines of cosine, seconds in the file, seconds in the query, and path."""
    lines = [f"{'cosine':>7}  {'seconds':>17}  {'of the query':>17}  path"]
    for match in matches:
        found = f"{match.start:.2f}-{match.end:.2f}"
        asked = f"{match.query_start:.2f}-{match.query_end:.2f}"
        lines.append(f"{match.cosine:7.4f}  {found:>17}  {asked:>17}  {one_line(match.path)}")
    return "\n".join(lines)
