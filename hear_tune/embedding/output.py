"""Files of embeddings: written as parts that survive interruptions, joined at the end.

Finished parts lie in the folder ``OUTPUT.parts`` until all are there; the output itself appears
whole or not at all.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..audio.reading import Remarks
from ..common.files import sole_use
from .batching import ClipEmbeddings
from .rows import (
    INDEX_COLUMNS,
    PARTS,
    VECTORS,
    RowWriter,
    StoreError,
    count_rows,
    embedding_size,
    file_rows,
    files_in,
    opened,
    read_batches,
    read_identity,
    read_remarks,
    vectors_of,
)


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
        self._parts_folder = self._output.with_name(self._output.name + PARTS)
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
        self._rows = RowWriter(self._partial)
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
            rows = file_rows(name, embeddings, self._identity)
            self._names.add(name)
            self._rows.write(rows)

    def drop(self, names: Iterable[str]) -> None:
        """Remove the rows of these files."""
        self._dropped.update(names)

    def remark(self, name: str, remarks: Remarks) -> None:
        """Keep the remarks on a file."""
        if remarks:
            self._remarks[name] = tuple(remarks)


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
    rows = RowWriter(path)
    names = pa.array(sorted(dropped), pa.string()) if dropped else None
    with opened(sources[0]) as file:
        rows.write(
            pa.Table.from_batches([], file.schema_arrow)
        )  # there may be no row in any of them
    for batch in read_batches(sources):
        table = pa.Table.from_batches([batch])
        rows.write(table.filter(pc.invert(pc.is_in(batch["path"], names))) if dropped else table)
    rows.close(dict(ChainMap(*map(read_remarks, reversed(sources)))))


def _join_npy(sources: list[Path], path: Path) -> None:
    """Write the vectors as an array, and the other columns as a CSV table beside it."""
    shape = (count_rows(sources), embedding_size(sources))
    index = path.with_suffix(".csv")
    with path.open("wb") as matrix, index.open("w", newline="", encoding="utf-8") as table:
        # not memory-mapped: a full disk would kill the process
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(matrix, header)
        writer = csv.writer(table)
        writer.writerow(INDEX_COLUMNS)
        for batch in read_batches(sources):
            matrix.write(vectors_of(batch).astype("<f4").tobytes())
            writer.writerows(row.values() for row in batch.select(INDEX_COLUMNS).to_pylist())


def _join_hdf5(sources: list[Path], path: Path) -> None:
    import h5py

    count, first = count_rows(sources), 0
    with h5py.File(path, "w") as file:
        file.attrs["hear_tune"] = json.dumps(read_identity(sources[-1]))
        for name in INDEX_COLUMNS:
            kind = "f8" if name in ("start", "end") else h5py.string_dtype()
            file.create_dataset(name, (count,), kind)
        file.create_dataset(VECTORS, (count, embedding_size(sources)), "f4")
        for batch in read_batches(sources):
            rows = slice(first, first + batch.num_rows)
            for name in INDEX_COLUMNS:
                file[name][rows] = batch[name].to_pylist()
            file[VECTORS][rows] = vectors_of(batch)
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
