"""Groups of files, each embedded and written as one part of an output.

On a CPU each worker decodes and embeds whole groups. On a GPU, workers decode and cut files into
pieces, and one process embeds the pieces of all of them in common batches.
"""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType

from ..audio.files import path_text
from ..audio.reading import AudioError, Remark, read_blocks
from ..common.samples import Samples
from ..networks.config import SAMPLE_RATE_HZ
from .batching import ClipEmbeddings, ClipRows, Piece, computer_for, in_batches, pieces_of
from .compute import BATCH_SAMPLES, Vectors
from .framing import Per
from .model import EmbeddingModel
from .output import PartWriter
from .pooling import Pooling
from .workers import Crew, Job, Note, Outcome


@dataclass(frozen=True, eq=False)
class Group(Job):
    """Files, and the part of an output for their rows."""

    part: AbstractContextManager[PartWriter]
    per: Per


@dataclass(frozen=True)
class _End:
    """The end of a group."""


def embed_group(group: Group, model: EmbeddingModel, note: Note) -> None:
    """Embed the files of a group and write their part, without the bad ones.

    Parameters
    ----------
    group : Group
    model : EmbeddingModel
    note : callable
        Called with the outcome of each file, in order, as soon as it was read.

    Raises
    ------
    OSError
        If the part cannot be written.
    """
    embed_groups([group], model, group.per, note)


def embed_groups(
    groups: Iterable[Group],
    model: EmbeddingModel,
    per: Per,
    note: Note,
    decoders: Crew | None = None,
) -> None:
    """Embed groups of files in batches that span files and groups.

    The part of each group appears when its last row is there.

    Parameters
    ----------
    groups : iterable of Group
    model : EmbeddingModel
    per : {"track", "window", "timestamp"}
        That of all groups.
    note : callable
        Called with the outcome of each file as soon as it was read.
    decoders : Crew, optional
        Workers that decode, from `decoding_crew`; without them, this process does.

    Raises
    ------
    OSError
        If a part cannot be written.
    WorkerError
        If a decoder died, and not because of a file.
    """
    items = _decoded_here(groups, model) if decoders is None else _decoded_by(decoders, groups)
    with model.inference.holding(model.encoder):
        _write_parts(items, model, per, note)


def decoding_crew(model: EmbeddingModel, per: Per, workers: int) -> Crew:
    """Return workers that decode for `embed_groups`."""
    return Crew(pickle.dumps(_Decoder(model, per)), workers)


class GroupEmbedder:
    """Embeds groups in another process, with a copy of a model there."""

    def __init__(self, model: EmbeddingModel) -> None:
        self._model = model

    def __call__(self, group: Group, note: Note) -> None:
        embed_group(group, self._model, note)


# --- Decoding ---

_Item = Piece | Outcome | _End
_Place = tuple[Group, Path | str]  # that an item belongs to


def _decoded_here(groups: Iterable[Group], model: EmbeddingModel) -> Iterator[tuple[_Place, _Item]]:
    for group in groups:
        for path, item in _decode(group.paths, model, group.per):
            yield (group, path), item
        yield (group, ""), _End()


def _decode(
    paths: Iterable[Path | str], model: EmbeddingModel, per: Per
) -> Iterator[tuple[Path | str, Piece | Outcome]]:
    """Cut files into pieces, and yield the outcome of each after its last piece."""
    for path in paths:
        outcomes: list[Outcome] = []
        for piece in pieces_of(model, _read(path, outcomes), per):
            yield path, piece
        yield path, outcomes[0]


def _read(path: Path | str, outcomes: list[Outcome]) -> Iterator[Samples]:
    length = 0
    remarks: list[Remark] = []
    try:
        for block in read_blocks(path, remarks):
            length += len(block)
            yield block
    except AudioError as error:
        outcomes.append(Outcome(path, error=str(error)))
    else:
        outcomes.append(Outcome(path, length / SAMPLE_RATE_HZ, remarks=tuple(remarks)))


@dataclass(frozen=True)
class _Pieces:
    """Successive pieces of a file, from a decoder."""

    path: Path | str
    pieces: list[Piece]


@dataclass(frozen=True)
class _Decoding(Job):
    """Files to decode for the group of a number."""

    number: int

    def taken_over(self, pending: Sequence[Path | str]) -> _Decoding:
        """Return the job without the files that were decoded: their pieces are not lost."""
        return replace(self, paths=tuple(pending[1:]))


class _Decoder:
    """Decodes groups in another process, and sends the pieces of each file.

    It sends several at a time, so that there is work while it waits for a batch to be computed.
    """

    def __init__(self, model: EmbeddingModel, per: Per) -> None:
        self._model = copy.deepcopy(model).cpu()  # knows how to cut
        self._per = per

    def __call__(self, job: Job, send: Callable[[_Pieces | Outcome], object]) -> None:
        pieces: list[Piece] = []
        for path, item in _decode(job.paths, self._model, self._per):
            if not isinstance(item, Outcome):
                pieces.append(item)
                if sum(len(piece.samples) for piece in pieces) < BATCH_SAMPLES:
                    continue
            if pieces:
                send(_Pieces(path, pieces))
                pieces = []
            if isinstance(item, Outcome):
                send(item)


def _decoded_by(crew: Crew, groups: Iterable[Group]) -> Iterator[tuple[_Place, _Item]]:
    begun: dict[int, Group] = {}

    def jobs() -> Iterator[_Decoding]:
        for number, group in enumerate(groups):
            begun[number] = group
            yield _Decoding(group.paths, number)

    for job, message in crew.messages(jobs()):
        group = begun[job.number]
        if isinstance(message, _Pieces):
            for piece in message.pieces:
                yield (group, message.path), piece
        elif isinstance(message, Outcome):
            yield (group, message.path), message
        else:
            del begun[job.number]
            yield (group, ""), _End()


# --- Writing ---


def _write_parts(
    items: Iterable[tuple[_Place, _Item]], model: EmbeddingModel, per: Per, note: Note
) -> None:
    """Embed pieces, and write the part of each group, whose items come in order."""

    def noted() -> Iterator[tuple[_Place, _Item]]:
        for place, item in items:
            if isinstance(item, Outcome):
                note(item)
            yield place, item

    pooling = model.pooling().cpu()
    writing: dict[Group, _GroupWriter] = {}
    try:
        for (group, path), item, vectors in in_batches(computer_for(model, per), noted()):
            if group not in writing:
                writing[group] = _GroupWriter(group, pooling)
            if isinstance(item, _End):
                writing.pop(group).end()
            else:
                writing[group].take(path_text(path), item, vectors)
    except BaseException:
        for writer in writing.values():
            writer.end(*sys.exc_info())
        raise


class _GroupWriter:
    """Writes the part of a group."""

    def __init__(self, group: Group, pooling: Pooling) -> None:
        self._new_rows = partial(ClipRows, group.per, pooling)
        self._rows = self._new_rows()  # of the file that comes
        self._failed: list[str] = []
        self._context = group.part
        self._part = self._context.__enter__()

    def take(self, name: str, item: Piece | Outcome, vectors: Vectors | None) -> None:
        """Take a piece of a file with its embeddings, or the outcome of the file."""
        if not isinstance(item, Outcome):
            assert vectors is not None
            self._add(name, self._rows.add(item, vectors))
            return
        if item.error is None:
            self._add(name, self._rows.finish())
            self._part.remark(name, item.remarks)
        else:
            self._failed.append(name)
        self._rows = self._new_rows()

    def _add(self, name: str, parts: Iterable[ClipEmbeddings]) -> None:
        for part in parts:
            self._part.add(name, part)

    def end(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Let the part appear, or remove it because of an error."""
        self._part.drop(self._failed)
        self._context.__exit__(kind, error, traceback)
