"""Files of embeddings: written as parts that survive interruptions, joined at the end.

Finished parts lie in the folder ``OUTPUT.parts`` until all are there; the output itself appears
whole or not at all. Its columns are path, start and end in seconds, embedding and model.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..audio.reading import Remark, Remarks
from ..common.errors import HearTuneError
from ..common.files import sole_use
from .batching import ClipEmbeddings, Vectors

_IDENTITY_KEY = b"hear_tune"
_DROPPED_KEY = b"hear_tune.dropped"  # files whose rows do not count, in parts of earlier versions
_REMARKS_KEY = b"hear_tune.remarks"  # by file name: [text, whether audio is missing]
_ROWS_PER_WRITE = 4096
_PARTS = ".parts"  # suffix of the folder of finished parts
_INDEX_COLUMNS = ["path", "start", "end", "model"]
_VECTORS = "embedding"


class StoreError(HearTuneError, ValueError):
    """An output file cannot be written or read as asked."""


class EmbeddingOutput:
    """An output file of embeddings under construction; use it as a context manager.

    Parameters
    ----------
    output : path-like
        ``.parquet``, ``.npy`` or ``.h5``/``.hdf5``.
    identity : mapping
        What the embeddings depend on, ready for JSON, with the key "model". One output never mixes
        rows of two identities.
    overwrite : bool
        Replace an existing output; the old one stays until the new one is complete.

    Attributes
    ----------
    done : dict of str to Remarks
        The files that have rows already, with the remarks on them.

    Raises
    ------
    StoreError
        If the format is unknown or cannot be extended, or the output has another identity.
    InUseError
        If another process writes it.
    """

    def __init__(
        self, output: str | os.PathLike[str], identity: Mapping[str, Any], overwrite: bool = False
    ) -> None:
        self._output = Path(output)
        self._identity = dict(identity)
        self._overwrite = overwrite
        self._join = _joiner(self._output)
        self._parts_folder = self._output.with_name(self._output.name + _PARTS)
        self._replaces = self._parts_folder / "replaces-output"  # the job began with `overwrite`
        self._joined = self._parts_folder / "joined"  # the output has all parts: they can go
        self.done: dict[str, Remarks] = {}
        self._numbers: set[int] = set()  # of parts that exist or are being written

    def __enter__(self) -> EmbeddingOutput:
        with ExitStack() as use:
            try:
                use.enter_context(sole_use(self._parts_folder, "writing it", of=self._output))
            except OSError as error:
                raise StoreError(str(error)) from error
            use.callback(self._remove_empty_folder)
            self._take_stock()
            self._use = use.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._use.close()

    def _remove_empty_folder(self) -> None:
        if not self._parts():
            shutil.rmtree(self._parts_folder, ignore_errors=True)

    def new_part(self, number: int | None = None) -> PartWriter:
        """Return the writer of a new part, which counts once its context ends without an error.

        Parameters
        ----------
        number : int, optional
            Place of the part in the output; by default, or if taken, behind all others.
        """
        name = part_name(number, self._numbers)
        return PartWriter(self._parts_folder / name, self._identity)

    def finish(self) -> None:
        """Join the parts, behind the rows of an output that is extended, and remove them."""
        if not self._parts():
            return
        scratch = self._parts_folder / f"scratch{self._output.suffix}"
        with _writing(self._output):
            self._join(self._sources(), scratch)
            for path in self._outputs():
                scratch.with_suffix(path.suffix).replace(path)
        self._joined.touch()
        self._remove_parts()

    def _remove_parts(self) -> None:
        for path in (*self._parts(), self._replaces, self._joined):
            path.unlink(missing_ok=True)

    def _take_stock(self) -> None:
        for pattern in ("*.partial", "scratch*"):
            for leftover in self._parts_folder.glob(pattern):
                leftover.unlink()
        if self._joined.exists() or (self._overwrite and not self._replaces.exists()):
            self._remove_parts()
        if self._overwrite:
            self._replaces.touch()
        self._check_replaceable()
        for source in self._sources():
            files = files_in(source, self._output, self._identity)
            if source != self._output and files.keys() <= self.done.keys():
                source.unlink()  # joined, but not marked so in time
            self.done |= files
        self._numbers = {int(part.stem) for part in self._parts()}

    def _check_replaceable(self) -> None:
        if self._extendable or self._replaces.exists() or self._parts():
            return
        for path in self._outputs():
            if path.exists():
                raise StoreError(
                    f"{path}: exists, and only Parquet output can be extended; choose "
                    "another name or overwrite it"
                )

    @property
    def _extendable(self) -> bool:
        return self._output.suffix.lower() == ".parquet"

    def _outputs(self) -> list[Path]:
        """Return the files that make up the output; the one that it is named by comes last."""
        is_npy = self._output.suffix.lower() == ".npy"
        return [*([self._output.with_suffix(".csv")] if is_npy else []), self._output]

    def _parts(self) -> list[Path]:
        return sorted(self._parts_folder.glob("[0-9]*.parquet"))

    def _sources(self) -> list[Path]:
        extended = self._extendable and self._output.exists() and not self._replaces.exists()
        return [*([self._output] if extended else []), *self._parts()]


def part_name(number: int | None, taken: set[int]) -> str:
    """Name a part by its place, or behind all others if that is taken, and mark it as taken."""
    if number is None or number in taken:
        number = 1 + max(taken, default=-1)
    taken.add(number)
    return f"{number:06d}.parquet"


class PartWriter:
    """Write one part, which appears when the context ends without an error, or not at all."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._partial = path.with_suffix(".partial")
        self._identity = identity
        self._rows = _RowWriter(self._partial)
        self._names: set[str] = set()  # of files with rows
        self._dropped: set[str] = set()
        self._remarks: dict[str, Remarks] = {}

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._names:
            return
        with _writing(self._path):
            self._rows.close(self._remarks)
            if kind is None and self._names - self._dropped:
                if self._names & self._dropped:
                    kept = self._path.with_suffix(".kept.partial")
                    _join_parquet([self._partial], kept, self._dropped)
                    kept.replace(self._partial)
                self._partial.replace(self._path)
            else:
                self._partial.unlink()

    def add(self, name: str, embeddings: ClipEmbeddings) -> None:
        """Add rows of one file."""
        with _writing(self._path):
            rows = _table(name, embeddings, self._identity)
            self._names.add(name)
            self._rows.write(rows)

    def drop(self, names: Iterable[str]) -> None:
        """Remove the rows of these files."""
        self._dropped.update(names)

    def remark(self, name: str, remarks: Remarks) -> None:
        """Keep the remarks on a file."""
        if remarks:
            self._remarks[name] = tuple(remarks)


def _table(name: str, rows: ClipEmbeddings, identity: Mapping[str, Any]) -> pa.Table:
    """Make a table of a file's rows.

    From buffers: to convert lists, and even arrays, Arrow imports pandas.
    """
    count, size = rows.vectors.shape
    vectors = _numbers(rows.vectors.ravel(), np.float32)
    columns = {
        "path": _repeated(name, count),
        "start": _numbers(rows.start, np.float64),
        "end": _numbers(rows.end, np.float64),
        _VECTORS: pa.FixedSizeListArray.from_arrays(vectors, size),
        "model": _repeated(identity["model"], count).dictionary_encode(),
    }
    return pa.table(columns).replace_schema_metadata({_IDENTITY_KEY: json.dumps(identity)})


def _numbers(array: npt.NDArray[np.floating], dtype: type[np.floating]) -> pa.Array:
    data = np.ascontiguousarray(array, dtype)
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(data.dtype), len(data), [None, pa.py_buffer(data)]
    )


def _repeated(text: str, count: int) -> pa.StringArray:
    data = text.encode()
    offsets = np.arange(count + 1, dtype=np.int32) * len(data)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data * count))


class _RowWriter:
    """Write a Parquet file in row groups of at least `_ROWS_PER_WRITE` rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def write(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= _ROWS_PER_WRITE:
            self._flush()

    def close(self, remarks: Mapping[str, Remarks]) -> None:
        kept = {name: [(r.text, r.incomplete) for r in some] for name, some in remarks.items()}
        writer = self._flush()
        writer.add_key_value_metadata({_REMARKS_KEY: json.dumps(kept)})
        writer.close()

    def _flush(self) -> pq.ParquetWriter:
        if self._writer is None:
            schema = self._waiting[0].schema
            schema = schema.with_metadata({_IDENTITY_KEY: schema.metadata[_IDENTITY_KEY]})
            self._writer = pq.ParquetWriter(self._path, schema, write_page_checksum=True)
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []
        return self._writer


# --- Joining parts into the output ---


def _joiner(output: Path) -> Callable[[list[Path], Path], None]:
    """Return the function that writes the rows of several files in an output's format."""
    joiners = {".parquet": _join_parquet, ".npy": _join_npy, ".h5": _join_hdf5}
    joiners[".hdf5"] = _join_hdf5
    suffix = output.suffix.lower()
    if suffix not in joiners:
        raise StoreError(f"{output}: the name must end in one of {', '.join(joiners)}")
    if joiners[suffix] is _join_hdf5 and find_spec("h5py") is None:
        raise StoreError(f'{output}: HDF5 needs h5py: pip install "hear-tune[hdf5]"')
    return joiners[suffix]


def _join_parquet(sources: list[Path], path: Path, dropped: Collection[str] = ()) -> None:
    """Write the rows of several files as one, without those of dropped audio files."""
    rows = _RowWriter(path)
    names = pa.array(sorted(dropped), pa.string()) if dropped else None
    with _opened(sources[0]) as file:
        rows.write(
            pa.Table.from_batches([], file.schema_arrow)
        )  # there may be no row in any of them
    for batch in _read_rows(sources):
        table = pa.Table.from_batches([batch])
        rows.write(table.filter(pc.invert(pc.is_in(batch["path"], names))) if dropped else table)
    rows.close(dict(ChainMap(*map(read_remarks, reversed(sources)))))


def _join_npy(sources: list[Path], path: Path) -> None:
    """Write the vectors as an array, and the other columns as a CSV table beside it."""
    shape = (_count(sources), _embedding_size(sources))
    index = path.with_suffix(".csv")
    with path.open("wb") as matrix, index.open("w", newline="", encoding="utf-8") as table:
        # not memory-mapped: a full disk would kill the process
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(matrix, header)
        writer = csv.writer(table)
        writer.writerow(_INDEX_COLUMNS)
        for batch in _read_rows(sources):
            matrix.write(_vectors(batch).astype("<f4").tobytes())
            writer.writerows(row.values() for row in batch.select(_INDEX_COLUMNS).to_pylist())


def _join_hdf5(sources: list[Path], path: Path) -> None:
    import h5py

    count, first = _count(sources), 0
    with h5py.File(path, "w") as file:
        file.attrs["hear_tune"] = json.dumps(_read_identity(sources[-1]))
        for name in _INDEX_COLUMNS:
            kind = "f8" if name in ("start", "end") else h5py.string_dtype()
            file.create_dataset(name, (count,), kind)
        file.create_dataset(_VECTORS, (count, _embedding_size(sources)), "f4")
        for batch in _read_rows(sources):
            rows = slice(first, first + batch.num_rows)
            for name in _INDEX_COLUMNS:
                file[name][rows] = batch[name].to_pylist()
            file[_VECTORS][rows] = _vectors(batch)
            first = rows.stop


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name the file that cannot be written."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # the latter from HDF5 when it closes a file
        reason = " ".join(str(error).split())
        raise StoreError(
            f"{path}: cannot be written ({reason}); what was finished is kept for the same command"
        ) from error


# --- Reading ---


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
    identity = _read_identity(sources[0])
    count = _count(sources)
    if count == 0:
        raise StoreError(f"{os.fspath(path)}: has no embeddings")
    start, end = np.empty(count), np.empty(count)
    paths: list[str] = []
    for batch in _read_rows(sources, ["path", "start", "end"]):
        rows = slice(len(paths), len(paths) + batch.num_rows)
        start[rows], end[rows] = batch["start"], batch["end"]
        names = batch["path"].dictionary_encode()
        texts = names.dictionary.to_pylist()  # all rows of a file share one string
        paths += [texts[name] for name in names.indices.to_numpy()]
    return LibraryRows(paths, start, end, identity)


def read_library(path: str | os.PathLike[str]) -> Library:
    """Read an output of ``hear-tune embed``; parameters and errors are those of `read_rows`."""
    rows = read_rows(path)
    vectors = np.empty((len(rows.paths), _embedding_size(_files_of(path))), np.float32)
    first = 0
    for part in read_vectors(path):
        vectors[first : first + len(part)] = part
        first += len(part)
    return Library(rows.paths, rows.start, rows.end, rows.identity, vectors)


def read_vectors(path: str | os.PathLike[str]) -> Iterator[Vectors]:
    """Yield the vectors of a Parquet file, or folder, of embeddings: (some rows, size) each."""
    return (_vectors(batch) for batch in _read_rows(_files_of(path), [_VECTORS]))


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
    vectors = np.empty((len(rows), _embedding_size(sources)), np.float32)
    first = 0
    for source in sources:
        with _opened(source) as file:
            for number in range(file.num_row_groups):
                count = file.metadata.row_group(number).num_rows
                wanted = (first <= rows) & (rows < first + count)
                if wanted.any():
                    vectors[wanted] = _vectors_in(file, number, count)[rows[wanted] - first]
                first += count
    missing = rows[(rows < 0) | (rows >= first)]
    if len(missing):
        raise StoreError(f"{os.fspath(path)}: has {first} rows, but no row {missing[0]}")
    return vectors


def _vectors_in(file: pq.ParquetFile, group: int, count: int) -> Vectors:
    batches = file.read_row_group(group, [_VECTORS]).to_batches()
    vectors = np.concatenate([_vectors(batch) for batch in batches])
    if len(vectors) != count:  # as the footer, which has no checksum, was damaged
        raise ValueError(f"{count - len(vectors)} rows are missing")
    return vectors


def _read_identity(source: Path) -> dict[str, Any]:
    with _opened(source) as file:
        return _identity_in(file, source)


def read_remarks(source: Path) -> dict[str, Remarks]:
    """Read the remarks in a Parquet file of embeddings, by path; most files have none."""
    with _opened(source) as file:
        return _remarks_in(file)


def files_in(
    source: str | Path, output: str | Path, wanted: Mapping[str, Any], filesystem: Any = None
) -> dict[str, Remarks]:
    """Read which audio files a Parquet file of an output has rows of, with the remarks on them.

    Parameters
    ----------
    source : str or Path
        The Parquet file.
    output : str or Path
        The output that it belongs to, for errors.
    wanted : mapping
        The identity that its rows must have.
    filesystem : fsspec file system, optional
        Where the file is; by default on this machine.

    Raises
    ------
    StoreError
        If it is something else, or has another identity.
    """
    with _opened(source, filesystem) as file:
        _check_identity(_identity_in(file, source), output, wanted)
        if _json_in(file, _DROPPED_KEY):
            return {}
        names: set[str] = set()
        for batch in _batches(file, ["path"]):
            names.update(pc.unique(batch["path"]).to_pylist())
        remarks = _remarks_in(file)
    return {name: remarks.get(name, ()) for name in names}


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
    if path.suffix.lower() in (".npy", ".h5", ".hdf5"):
        raise StoreError(f"{path}: only Parquet can be searched; embed with -o NAME.parquet")
    wanted = _read_identity(files[0])
    for file in files[1:]:
        _check_identity(_read_identity(file), path, wanted)
    return files


@contextmanager
def _opened(source: str | Path, filesystem: Any = None) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, and name it in Arrow's errors."""
    options: dict[str, Any] = {
        "page_checksum_verification": True,
        "filesystem": filesystem,
        "pre_buffer": filesystem is not None,  # whole columns, in few requests
    }
    try:
        with pq.ParquetFile(source, **options) as file:
            yield file
    except StoreError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        is_part = Path(source).parent.suffix == _PARTS
        advice = "; delete it, and the same command makes it anew" if is_part else ""
        raise StoreError(
            f"{source}: damaged, or not a Parquet file of hear-tune embed ({reason}){advice}"
        ) from error


def _json_in(file: pq.ParquetFile, key: bytes) -> Any:
    """Read an entry of a file's metadata; None without it."""
    return json.loads((file.metadata.metadata or {}).get(key, b"null"))


def _identity_in(file: pq.ParquetFile, source: str | Path) -> dict[str, Any]:
    identity, schema = _json_in(file, _IDENTITY_KEY), file.schema_arrow
    if (
        not isinstance(identity, dict)
        or set(schema.names) != {*_INDEX_COLUMNS, _VECTORS}
        or not pa.types.is_fixed_size_list(schema.field(_VECTORS).type)
        or schema.field(_VECTORS).type.list_size < 1
    ):
        raise StoreError(f"{source}: exists, but was not written by hear-tune; choose another name")
    return identity


def _remarks_in(file: pq.ParquetFile) -> dict[str, Remarks]:
    kept: dict[str, list[tuple[str, bool]]] = _json_in(file, _REMARKS_KEY) or {}
    return {name: tuple(Remark(*pair) for pair in pairs) for name, pairs in kept.items()}


def _check_identity(
    found: Mapping[str, Any], output: str | Path, wanted: Mapping[str, Any]
) -> None:
    differences = [
        f"{key} {found.get(key)!r}, not {value!r}"
        for key, value in wanted.items()
        if found.get(key) != value
    ]
    if differences:
        raise StoreError(
            f"{output}: was begun with {'; '.join(differences)}; choose another name or "
            "overwrite it"
        )


def _read_rows(sources: list[Path], columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    for source in sources:
        with _opened(source) as file:
            yield from _batches(file, columns)


def _batches(file: pq.ParquetFile, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    missing = file.metadata.num_rows
    for batch in file.iter_batches(_ROWS_PER_WRITE, columns=columns):
        missing -= batch.num_rows
        yield batch
    if missing:  # as the footer, which has no checksum, was damaged
        raise ValueError(f"{missing} rows are missing")


def _count(sources: list[Path]) -> int:
    return sum(batch.num_rows for batch in _read_rows(sources, ["start"]))


def _embedding_size(sources: list[Path]) -> int:
    size: int = pq.read_schema(sources[-1]).field(_VECTORS).type.list_size
    return size


def _vectors(batch: pa.RecordBatch) -> Vectors:
    column = batch[_VECTORS]
    vectors: Vectors = column.flatten().to_numpy().reshape(len(column), -1)
    return vectors
