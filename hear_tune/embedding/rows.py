"""Parquet files of embeddings, the parts of an output and the outputs themselves.

Columns are path, start and end in seconds, embedding and model; what the embeddings depend on, and
the remarks on files, are in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..audio.reading import Remark, Remarks
from ..common.errors import HearTuneError
from .batching import ClipEmbeddings, Vectors

INDEX_COLUMNS = ["path", "start", "end", "model"]
VECTORS = "embedding"
PARTS = ".parts"  # suffix of the folder of an output's finished parts
_IDENTITY_KEY = b"hear_tune"
_DROPPED_KEY = b"hear_tune.dropped"  # files whose rows do not count, in parts of earlier versions
_REMARKS_KEY = b"hear_tune.remarks"  # by file name: [text, whether audio is missing]
_ROWS_PER_WRITE = 4096


class StoreError(HearTuneError, ValueError):
    """An output file cannot be written or read as asked."""


class RowWriter:
    """Write a Parquet file in row groups of at least `_ROWS_PER_WRITE` rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._rows_waiting = 0

    def write(self, rows: pa.Table) -> None:
        """Add a table of `file_rows`, or of several files."""
        self._waiting.append(rows)
        self._rows_waiting += len(rows)
        if self._rows_waiting >= _ROWS_PER_WRITE:
            self._flush()

    def close(self, remarks: Mapping[str, Remarks]) -> None:
        """Write what is waiting and the remarks on files."""
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
            self._waiting, self._rows_waiting = [], 0
        return self._writer


def file_rows(name: str, rows: ClipEmbeddings, identity: Mapping[str, Any]) -> pa.Table:
    """Make a table of a file's rows.

    From buffers: to convert lists, and even arrays, Arrow imports pandas.
    """
    count, size = rows.vectors.shape
    vectors = _numbers(rows.vectors.ravel(), np.float32)
    columns = {
        "path": _repeated(name, count),
        "start": _numbers(rows.start, np.float64),
        "end": _numbers(rows.end, np.float64),
        VECTORS: pa.FixedSizeListArray.from_arrays(vectors, size),
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


@contextmanager
def opened(source: str | Path, filesystem: Any = None) -> Iterator[pq.ParquetFile]:
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
        is_part = Path(source).parent.suffix == PARTS
        advice = "; delete it, and the same command makes it anew" if is_part else ""
        raise StoreError(
            f"{source}: damaged, or not a Parquet file of hear-tune embed ({reason}){advice}"
        ) from error


def read_identity(source: Path) -> dict[str, Any]:
    """Read what the embeddings in a Parquet file depend on."""
    with opened(source) as file:
        return _identity_in(file, source)


def read_remarks(source: Path) -> dict[str, Remarks]:
    """Read the remarks in a Parquet file of embeddings, by path; most files have none."""
    with opened(source) as file:
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
    with opened(source, filesystem) as file:
        check_identity(_identity_in(file, source), output, wanted)
        if _json_in(file, _DROPPED_KEY):
            return {}
        names: set[str] = set()
        for batch in batches_of(file, ["path"]):
            names.update(pc.unique(batch["path"]).to_pylist())
        remarks = _remarks_in(file)
    return {name: remarks.get(name, ()) for name in names}


def check_identity(found: Mapping[str, Any], output: str | Path, wanted: Mapping[str, Any]) -> None:
    """Raise StoreError if the rows of an output depend on something else than wanted."""
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


def read_batches(sources: list[Path], columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of Parquet files, or some columns of them, some thousands at a time."""
    for source in sources:
        with opened(source) as file:
            yield from batches_of(file, columns)


def count_rows(sources: list[Path]) -> int:
    """Count the rows of Parquet files by reading them, since a footer has no checksum."""
    return sum(batch.num_rows for batch in read_batches(sources, ["start"]))


def embedding_size(sources: list[Path]) -> int:
    """Return the number of values in each embedding."""
    size: int = pq.read_schema(sources[-1]).field(VECTORS).type.list_size
    return size


def vectors_of(batch: pa.RecordBatch) -> Vectors:
    """Return the embeddings of a batch, (rows, size), without a copy."""
    column = batch[VECTORS]
    vectors: Vectors = column.flatten().to_numpy().reshape(len(column), -1)
    return vectors


def batches_of(
    file: pq.ParquetFile, columns: list[str] | None, group: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of an open Parquet file, or of one of its row groups."""
    part = file.metadata if group is None else file.metadata.row_group(group)
    groups = None if group is None else [group]
    missing = part.num_rows
    for batch in file.iter_batches(_ROWS_PER_WRITE, groups, columns):
        missing -= batch.num_rows
        yield batch
    if missing:  # as the footer, which has no checksum, was damaged
        raise ValueError(f"{missing} rows are missing")


def _json_in(file: pq.ParquetFile, key: bytes) -> Any:
    """Read an entry of a file's metadata; None without it."""
    return json.loads((file.metadata.metadata or {}).get(key, b"null"))


def _identity_in(file: pq.ParquetFile, source: str | Path) -> dict[str, Any]:
    identity, schema = _json_in(file, _IDENTITY_KEY), file.schema_arrow
    if (
        not isinstance(identity, dict)
        or set(schema.names) != {*INDEX_COLUMNS, VECTORS}
        or not pa.types.is_fixed_size_list(schema.field(VECTORS).type)
        or schema.field(VECTORS).type.list_size < 1
    ):
        raise StoreError(f"{source}: exists, but was not written by hear-tune; choose another name")
    return identity


def _remarks_in(file: pq.ParquetFile) -> dict[str, Remarks]:
    kept: dict[str, list[tuple[str, bool]]] = _json_in(file, _REMARKS_KEY) or {}
    return {name: tuple(Remark(*pair) for pair in pairs) for name, pairs in kept.items()}
