"""Files of embeddings: written in parts that survive interruptions, joined when all are there.

While work goes on, finished parts lie in the folder ``OUTPUT.parts``; the output itself appears
whole or not at all. Rows: path, start and end in seconds, embedding, model.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
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
_DROPPED_KEY = b"hear_tune.dropped"
_REMARKS_KEY = b"hear_tune.remarks"  # on files: [text, whether audio is missing], by name
_ROWS_PER_WRITE = 4096
_PARTS = ".parts"  # suffix of the folder of what is finished
_INDEX_COLUMNS = ["path", "start", "end", "model"]
_VECTORS = "embedding"


class StoreError(HearTuneError, ValueError):
    """An output file cannot be written as asked."""


class EmbeddingStore:
    """An output file of embeddings under construction; use it as a context manager.

    Parameters
    ----------
    output
        ``.parquet``, ``.npy`` or ``.h5``/``.hdf5``.
    identity
        What the embeddings depend on, JSON-ready, with the key "model": rows of another identity
        never enter one output.
    overwrite
        Make the output anew; the old one stays until the new one is complete.

    Raises
    ------
    StoreError
        If the format is unknown or cannot be extended, or the output belongs to another identity.
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
        self._use = ExitStack()
        self._replaces = self._parts_folder / "replaces-output"  # begun with `overwrite`
        self._joined = self._parts_folder / "joined"  # parts are in the output, and may go
        self.done: dict[str, Remarks] = {}
        self._numbers: set[int] = set()  # of parts that are there, or being written

    def __enter__(self) -> EmbeddingStore:
        try:
            self._use.enter_context(sole_use(self._parts_folder, "writing it", of=self._output))
        except OSError as error:
            raise StoreError(str(error)) from error
        try:
            self._take_stock()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if not self._parts():
            shutil.rmtree(self._parts_folder, ignore_errors=True)
        self._use.close()

    def new_part(self, number: int | None = None) -> PartWriter:
        """A part to be written next; it counts once its context ends without an error.

        Parameters
        ----------
        number
            Its place in the output, if that is free; else, and by default, behind all others.
        """
        name = part_name(number, self._numbers)
        return PartWriter(self._parts_folder / name, self._identity)

    def finish(self) -> None:
        """Join the parts, behind the rows of an output that is extended, and remove them."""
        if not self._parts():
            return
        scratch = self._parts_folder / f"scratch{self._output.suffix}"
        with _writing(self._output):
            self._join(self._sources(), scratch, self._output)
        self._joined.touch()
        self._remove_parts()

    def _remove_parts(self) -> None:
        for path in (*self._parts(), self._replaces, self._joined):
            path.unlink(missing_ok=True)

    def _take_stock(self) -> None:
        for leftover in (
            *self._parts_folder.glob("*.partial"),
            *self._parts_folder.glob("scratch*"),
        ):
            leftover.unlink()
        if self._joined.exists() or (self._overwrite and not self._replaces.exists()):
            self._remove_parts()
        if self._overwrite:
            self._replaces.touch()
        self._check_replaceable()
        for source in self._sources():
            check_identity(source, self._output, self._identity)
            files = read_files(source)
            if source != self._output and files.keys() <= self.done.keys():
                source.unlink()  # joined, but not marked so in time
            self.done |= files
        self._numbers = {int(part.stem) for part in self._parts()}

    def _check_replaceable(self) -> None:
        if self._extendable or self._replaces.exists() or self._parts():
            return
        for path in (self._output, *_side_files(self._output)):
            if path.exists():
                raise StoreError(
                    f"{path}: already there, and only Parquet output can be extended; choose "
                    "another name or overwrite it"
                )

    @property
    def _extendable(self) -> bool:
        return self._output.suffix.lower() == ".parquet"

    def _parts(self) -> list[Path]:
        return sorted(self._parts_folder.glob("[0-9]*.parquet"))

    def _sources(self) -> list[Path]:
        extended = self._extendable and self._output.exists() and not self._replaces.exists()
        return [*([self._output] if extended else []), *self._parts()]


def part_name(number: int | None, taken: set[int]) -> str:
    """Name of a part in its place, if that is free, else behind all others; it is taken then."""
    if number is None or number in taken:
        number = 1 + max(taken, default=-1)
    taken.add(number)
    return f"{number:06d}.parquet"


class PartWriter:
    """Writes one part; it appears when the context ends without an error, or not at all."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._partial = path.with_suffix(".partial")
        self._identity = identity
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[tuple[str, ClipEmbeddings]] = []
        self._dropped: set[str] = set()
        self._remarks: dict[str, Remarks] = {}

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        if self._writer is None:
            return
        with _writing(self._path):
            self._writer.add_key_value_metadata({_DROPPED_KEY: json.dumps(sorted(self._dropped))})
            _write_remarks(self._writer, self._remarks)
            self._writer.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink()

    def add(self, name: str, embeddings: ClipEmbeddings) -> None:
        """Add rows of one file."""
        self._waiting.append((name, embeddings))
        if sum(len(rows.vectors) for _, rows in self._waiting) >= _ROWS_PER_WRITE:
            self._flush()

    def drop(self, names: Iterable[str]) -> None:
        """Take back the rows of these files."""
        self._dropped.update(names)

    def remark(self, name: str, remarks: Remarks) -> None:
        """Keep what there is to say of a file."""
        if remarks:
            self._remarks[name] = tuple(remarks)

    def _flush(self) -> None:
        rows = [(name, clip) for name, clip in self._waiting if name not in self._dropped]
        self._waiting = []
        if not rows:
            return
        table = _table(rows, self._identity)
        with _writing(self._path):
            if self._writer is None:
                self._writer = _writer(self._partial, table.schema)
            self._writer.write_table(table)


@dataclass(frozen=True)
class LibraryRows:
    """What the rows of a Parquet file of embeddings are of.

    Attributes
    ----------
    paths
        Of the file that each row is of.
    start, end
        (rows,) float64, in seconds.
    identity
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
    vectors
        (rows, size) float32.
    """

    vectors: Vectors


def read_rows(path: str | os.PathLike[str]) -> LibraryRows:
    """What the rows of a Parquet file are of that ``hear-tune embed`` wrote, or a folder of them.

    Raises
    ------
    FileNotFoundError
        If there is none.
    StoreError
        If the file is something else, or has no rows.
    """
    sources = _files_of(path)
    identity = read_identity(sources[0])
    count = count_rows(path)
    if count == 0:
        raise StoreError(f"{os.fspath(path)}: has no embeddings")
    start, end = np.empty(count), np.empty(count)
    paths: list[str] = []
    for batch in _all_rows(sources, ["path", "start", "end"]):
        rows = slice(len(paths), len(paths) + batch.num_rows)
        start[rows], end[rows] = batch["start"], batch["end"]
        names = batch["path"].dictionary_encode()
        texts = names.dictionary.to_pylist()  # one text for all rows of a file
        paths += [texts[name] for name in names.indices.to_numpy()]
    return LibraryRows(paths, start, end, identity)


def read_library(path: str | os.PathLike[str]) -> Library:
    """Read a Parquet file that ``hear-tune embed`` wrote, or a folder; raises as `read_rows`."""
    rows = read_rows(path)
    vectors = np.empty((len(rows.paths), _embedding_size(_files_of(path))), np.float32)
    first = 0
    for part in read_vectors(path):
        vectors[first : first + len(part)] = part
        first += len(part)
    return Library(rows.paths, rows.start, rows.end, rows.identity, vectors)


def read_vectors(path: str | os.PathLike[str]) -> Iterator[Vectors]:
    """The vectors of a file, or folder, of embeddings, (some rows, size) at a time."""
    return (_vectors(batch) for batch in _all_rows(_files_of(path), ["embedding"]))


def count_rows(path: str | os.PathLike[str]) -> int:
    """How many rows a file, or folder, of embeddings has."""
    return sum(batch.num_rows for batch in _all_rows(_files_of(path), ["start"]))


def fingerprint(path: str | os.PathLike[str]) -> str:
    """A SHA-256 that tells a file, or folder, of embeddings from others without reading its rows.

    It is of each file's name, size and time of change, and of its footer: what columns there are,
    where they lie, and the least and greatest value of each.
    """
    digest = hashlib.sha256()
    for file in _files_of(path):
        status = file.stat()
        digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns} ".encode())
        digest.update(_footer(file))
    return digest.hexdigest()


def _footer(path: Path) -> bytes:
    """Of a Parquet file: it ends in the footer's length and a magic number, four bytes each."""
    with path.open("rb") as file:
        end = file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, end - length))
        return file.read()


def _files_of(library: str | os.PathLike[str]) -> list[Path]:
    """A library's file, or those of its folder."""
    path = Path(library)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise FileNotFoundError(f"{path}: no such library; hear-tune embed MUSIC -o writes one")
    for file in files[1:]:
        check_identity(file, path, read_identity(files[0]))
    return files


def _table(rows: list[tuple[str, ClipEmbeddings]], identity: Mapping[str, Any]) -> pa.Table:
    counts = [len(clip.vectors) for _, clip in rows]
    vectors = np.concatenate([clip.vectors for _, clip in rows])
    columns = {
        "path": pa.array(
            np.repeat(np.array([name for name, _ in rows], object), counts), pa.string()
        ),
        "start": pa.array(np.concatenate([clip.start for _, clip in rows])),
        "end": pa.array(np.concatenate([clip.end for _, clip in rows])),
        _VECTORS: pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]),
        "model": pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(len(vectors), np.int32)), pa.array([identity["model"]])
        ),
    }
    return pa.table(columns).replace_schema_metadata({_IDENTITY_KEY: json.dumps(identity)})


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, write_page_checksum=True)


def read_identity(source: Path) -> dict[str, Any]:
    """What the rows of a Parquet file of embeddings depend on.

    Raises
    ------
    StoreError
        If the file is something else.
    """
    with _reading(source):
        schema = pq.read_schema(source)
        metadata = schema.metadata or {}
        identity: Any = json.loads(metadata.get(_IDENTITY_KEY, b"null"))
    if not isinstance(identity, dict) or not _has_columns(schema):
        raise StoreError(f"{source}: there, but not written by hear-tune; choose another name")
    return identity


def _has_columns(schema: pa.Schema) -> bool:
    return set(schema.names) == {*_INDEX_COLUMNS, _VECTORS} and pa.types.is_fixed_size_list(
        schema.field(_VECTORS).type
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name the file for which there is no room or permission."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # HDF5 raises the latter when it closes a file
        reason = " ".join(str(error).split())
        raise StoreError(
            f"{path}: cannot be written ({reason}); what was finished is kept for the same command"
        ) from error


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Name the file that Arrow cannot read."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        is_part = source.parent.suffix == _PARTS
        advice = "; delete it, and the same command makes it anew" if is_part else ""
        raise StoreError(
            f"{source}: damaged, or not a Parquet file of hear-tune embed ({reason}){advice}"
        ) from error


def check_identity(source: Path, output: str | Path, wanted: Mapping[str, Any]) -> None:
    """Raise a `StoreError` if the rows of a file of an output depend on anything else."""
    found = read_identity(source)
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


def read_files(source: Path) -> dict[str, Remarks]:
    """The files that a Parquet file has rows of, by path, and what there is to say of them."""
    names: set[str] = set()
    for batch in _read_rows(source, ["path"]):
        names.update(pc.unique(batch["path"]).to_pylist())
    remarks = read_remarks(source)
    return {name: remarks.get(name, ()) for name in names}


def read_remarks(source: Path) -> dict[str, Remarks]:
    """What there is to say of the files in a Parquet file, by path; most files have no remark."""
    with _reading(source):
        metadata = pq.read_metadata(source).metadata or {}
        kept: dict[str, list[tuple[str, bool]]] = json.loads(metadata.get(_REMARKS_KEY, b"{}"))
        return {name: tuple(Remark(*pair) for pair in pairs) for name, pairs in kept.items()}


def _write_remarks(writer: pq.ParquetWriter, remarks: Mapping[str, Remarks]) -> None:
    kept = {name: [(r.text, r.incomplete) for r in some] for name, some in remarks.items()}
    writer.add_key_value_metadata({_REMARKS_KEY: json.dumps(kept)})


def _read_rows(source: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    with _reading(source), pq.ParquetFile(source, page_checksum_verification=True) as file:
        dropped = json.loads((file.metadata.metadata or {}).get(_DROPPED_KEY, b"[]"))
        needed = [*columns, "path"] if columns and dropped else columns
        for batch in file.iter_batches(_ROWS_PER_WRITE, columns=needed):
            if dropped:
                batch = batch.filter(pc.invert(pc.is_in(batch["path"], pa.array(dropped))))
            yield batch.select(columns) if columns else batch


# --- Joining parts into the output ---


def _joiner(output: Path) -> Callable[[list[Path], Path, Path], None]:
    """The function (sources, scratch file, output) that writes the output's format."""
    joiners = {
        ".parquet": join_parquet,
        ".npy": _join_npy,
        ".h5": _join_hdf5,
        ".hdf5": _join_hdf5,
    }
    suffix = output.suffix.lower()
    if suffix not in joiners:
        raise StoreError(f"{output}: the name must end in one of {', '.join(joiners)}")
    if joiners[suffix] is _join_hdf5 and find_spec("h5py") is None:
        raise StoreError(f'{output}: HDF5 needs h5py: pip install "hear-tune[hdf5]"')
    return joiners[suffix]


def _side_files(output: Path) -> list[Path]:
    """Files that are written beside an output."""
    return [output.with_suffix(".csv")] if output.suffix.lower() == ".npy" else []


def join_parquet(sources: list[Path], scratch: Path, output: Path) -> None:
    """Write the rows of several files, without those taken back, as one."""
    schema = pq.read_schema(sources[-1])
    schema = schema.with_metadata({_IDENTITY_KEY: schema.metadata[_IDENTITY_KEY]})
    waiting: list[pa.RecordBatch] = []
    with _writer(scratch, schema) as writer:
        for batch in _all_rows(sources):
            waiting.append(batch)
            if sum(b.num_rows for b in waiting) >= _ROWS_PER_WRITE:
                writer.write_table(pa.Table.from_batches(waiting, schema))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema))
        _write_remarks(writer, dict(ChainMap(*map(read_remarks, reversed(sources)))))
    scratch.replace(output)


def _join_npy(sources: list[Path], scratch: Path, output: Path) -> None:
    count = sum(batch.num_rows for batch in _all_rows(sources, ["path"]))
    shape = (count, _embedding_size(sources))
    index = scratch.with_suffix(".csv")
    with scratch.open("wb") as matrix, index.open("w", newline="", encoding="utf-8") as table:
        # not memory-mapped: on a full disk that ends the process
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(matrix, header)
        writer = csv.writer(table)
        writer.writerow(_INDEX_COLUMNS)
        for batch in _all_rows(sources):
            matrix.write(_vectors(batch).astype("<f4").tobytes())
            writer.writerows(row.values() for row in batch.select(_INDEX_COLUMNS).to_pylist())
    (side_file,) = _side_files(output)
    index.replace(side_file)
    scratch.replace(output)


def _join_hdf5(sources: list[Path], scratch: Path, output: Path) -> None:
    import h5py

    size = _embedding_size(sources)
    with h5py.File(scratch, "w") as file:
        file.attrs["hear_tune"] = json.dumps(read_identity(sources[-1]))
        for name in _INDEX_COLUMNS:
            kind = "f8" if name in ("start", "end") else h5py.string_dtype()
            file.create_dataset(name, (0,), kind, maxshape=(None,))
        file.create_dataset(_VECTORS, (0, size), "f4", maxshape=(None, size))
        for batch in _all_rows(sources):
            for name in _INDEX_COLUMNS:
                _append(file[name], batch[name].to_pylist())
            _append(file[_VECTORS], _vectors(batch))
    scratch.replace(output)


def _append(dataset: Any, rows: Any) -> None:
    count = len(dataset)
    dataset.resize(count + len(rows), axis=0)
    dataset[count:] = rows


def _all_rows(sources: list[Path], columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    for source in sources:
        yield from _read_rows(source, columns)


def _embedding_size(sources: list[Path]) -> int:
    size: int = pq.read_schema(sources[-1]).field(_VECTORS).type.list_size
    return size


def _vectors(batch: pa.RecordBatch) -> Vectors:
    column = batch[_VECTORS]
    vectors: Vectors = column.flatten().to_numpy().reshape(len(column), -1)
    return vectors
