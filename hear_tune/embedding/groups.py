"""Groups of files, each embedded and written as one part of an output."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..audio.files import path_text
from ..audio.reading import SILENT, AudioError, Remark, read_blocks
from ..common.samples import Samples
from ..networks.config import SAMPLE_RATE_HZ
from .batching import embed_clips
from .framing import Per
from .model import EmbeddingModel
from .output import PartWriter
from .workers import Job, Note, Outcome


@dataclass(frozen=True)
class Group(Job):
    """Files, and the part of an output for their rows."""

    part: PartWriter
    per: Per


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
    failed: list[str] = []

    def read(path: Path | str) -> Iterator[Samples]:
        length, silent = 0, True
        remarks: list[Remark] = []
        try:
            for block in read_blocks(path, remarks):
                length += len(block)
                silent = silent and not block.any()
                yield block
        except AudioError as error:
            failed.append(path_text(path))
            note(Outcome(path, error=str(error)))
        else:
            remarks += [SILENT] if silent else []
            part.remark(path_text(path), remarks)
            note(Outcome(path, length / SAMPLE_RATE_HZ, remarks=tuple(remarks)))

    with group.part as part:
        clips = ((path, read(path)) for path in group.paths)
        for path, embeddings in embed_clips(model, clips, group.per):
            part.add(path_text(path), embeddings)
        part.drop(failed)


class GroupEmbedder:
    """Embeds groups in another process, with a copy of a model on a device there."""

    def __init__(self, model: EmbeddingModel, device: str) -> None:
        self._model = copy.deepcopy(model).cpu()
        self._device = device

    def __call__(self, group: Group, note: Note) -> None:
        embed_group(group, self._model.to(self._device), note)
