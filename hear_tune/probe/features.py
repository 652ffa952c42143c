"""Embeddings of a task's clips, computed once for all protocols, layers and seeds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..audio.files import path_text
from ..audio.reading import missing_audio
from ..common.files import FileState, file_state, write_whole
from ..datasets.task import Clip, Task
from ..embedding.folder import embed_folder
from ..embedding.framing import Per
from ..embedding.model import EmbeddingModel
from ..embedding.rows import read_remarks
from ..networks.config import WINDOW_SAMPLES

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Embeddings of clips, by window or by track.

    Attributes
    ----------
    clips : tuple of Clip
        The clips that could be embedded.
    windows : tuple of array
        Embeddings of each clip, (n_windows, size) float32; of a track, one.
    layers : dict of str to slice
        Columns of each layer.
    failed : dict of str to str
        Reason by path of clips that failed or are incomplete.
    window_samples, hop_samples : int
        Length of the windows and distance between their starts.
    """

    clips: tuple[Clip, ...]
    windows: tuple[Matrix, ...]
    layers: dict[str, slice]
    failed: dict[str, str]
    window_samples: int = WINDOW_SAMPLES
    hop_samples: int = WINDOW_SAMPLES

    def of(self, layers: Sequence[str]) -> Features:
        """Return features of some layers, in the order given."""
        columns = [np.arange(self.layers[name].start, self.layers[name].stop) for name in layers]
        edges = np.cumsum([0, *map(len, columns)])
        kept = {
            name: slice(int(begin), int(end))
            for name, begin, end in zip(layers, edges, edges[1:], strict=False)
        }
        chosen = np.concatenate(columns)
        return replace(self, windows=tuple(w[:, chosen] for w in self.windows), layers=kept)


def embed_task(
    task: Task,
    model: EmbeddingModel,
    cache: str | os.PathLike[str],
    workers: int = 1,
    per: Per = "window",
) -> Features:
    """Embed all clips of a task, with a cache that tasks share.

    Only files that are new or changed since they were embedded are embedded; an interrupted pass
    resumes.

    Parameters
    ----------
    task : Task
        The clips.
    model : EmbeddingModel
        Model with the layers to embed.
    cache : path-like
        Folder; created if needed.
    workers : int
        Number of processes, as in `hear_tune.embed_folder`.
    per : {"window", "track"}
        Whether to embed each window of a clip, or the clip as a whole.

    Returns
    -------
    Features
        Without files that could not be embedded, or changed meanwhile; these are in `failed`.

    Raises
    ------
    InUseError
        If another process is embedding the same files for the same cache.
    """
    given = {_key(clip.path): str(clip.path) for clip in task.clips}
    states = {key: file_state(key) for key in given}
    rows, failed = _Cache(Path(cache), model, per).embed(states, workers)
    for key, state in states.items():
        if file_state(key) != state:
            rows.pop(key, None)
            failed[key] = "it changed while it was embedded; give the same command again"
    clips = tuple(clip for clip in task.clips if _key(clip.path) in rows)
    return Features(
        clips,
        tuple(rows[_key(clip.path)] for clip in clips),
        model.layer_columns,
        {given.get(key, key): reason for key, reason in failed.items()},
        model.window_samples,
        model.hop_samples,
    )


class _Cache:
    """Embeddings of one model in batches, one output each, which are never changed.

    A record beside each output holds the state of the audio files before they were read, and its
    digest names the batch. Rows are used only for files that are still in the recorded state.
    """

    def __init__(self, folder: Path, model: EmbeddingModel, per: Per) -> None:
        self._folder = folder / _digest(model, per)
        self._model, self._per = model, per

    def embed(
        self, states: dict[str, FileState], workers: int
    ) -> tuple[dict[str, Matrix], dict[str, str]]:
        """Return rows by file, and reasons by file for failures."""
        rows: dict[str, Matrix] = {}
        failed: dict[str, str] = {}
        for record in sorted(self._folder.glob("*.json")):
            recorded = _read_record(record)
            batch = [p for p, s in states.items() if p not in rows and recorded.get(p) == s]
            rows |= self._rows(record, batch, workers, failed)
        lacking = {p: s for p, s in states.items() if p not in rows and p not in failed}
        if lacking:
            record = self._begin(lacking)
            rows |= self._rows(record, list(lacking), workers, failed)
        return rows, failed

    def _begin(self, states: dict[str, FileState]) -> Path:
        text = json.dumps(states, sort_keys=True)
        record = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(record, text)
        return record

    def _rows(
        self, record: Path, paths: list[str], workers: int, failed: dict[str, str]
    ) -> dict[str, Matrix]:
        """Return the rows of files in one batch, after completing it."""
        output = record.with_suffix(".parquet")
        rows = _read(output, paths)
        lacking = [path for path in paths if path not in rows]
        if lacking:
            report = embed_folder(lacking, output, self._model, self._per, workers=workers)
            failed.update(report.failed)
            rows |= _read(output, lacking)
        failed.update(_incomplete(output, paths))
        return rows


def _key(path: Path) -> str:
    """Name a file in the cache, independently of the working folder."""
    return os.path.abspath(path)


def _read_record(record: Path) -> dict[str, FileState]:
    try:
        states: dict[str, FileState] = json.loads(record.read_text("utf-8"))
        return dict(states)
    except ValueError as error:
        raise _damaged(record, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: damaged ({error}); remove it, and its files are embedded anew")


def _digest(model: EmbeddingModel, per: Per) -> str:
    key = json.dumps([model.identity, model.layers, model.window_samples, model.hop_samples, per])
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _incomplete(output: Path, paths: Iterable[str]) -> dict[str, str]:
    """Describe the missing audio of incomplete files, by path."""
    remarks = read_remarks(output) if output.exists() else {}
    reasons = {path: missing_audio(remarks.get(path_text(path), ())) for path in paths}
    return {path: reason for path, reason in reasons.items() if reason}


def _read(output: Path, paths: Iterable[str]) -> dict[str, Matrix]:
    name_of = {path_text(path): path for path in paths}
    if not (name_of and output.exists()):
        return {}
    try:
        table = pq.read_table(
            output,
            columns=["path", "embedding"],
            filters=[("path", "in", list(name_of))],
            page_checksum_verification=True,
        )
    except (pa.ArrowException, OSError) as error:
        raise _damaged(output, error) from error
    if len(table) == 0:
        return {}
    column = table["embedding"].combine_chunks()
    matrix = column.flatten().to_numpy().reshape(len(column), -1)
    names = np.array(table["path"].to_pylist())
    begins = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])  # a clip's rows lie together
    ends = np.r_[begins[1:], len(names)]
    return {name_of[str(names[b])]: matrix[b:e] for b, e in zip(begins, ends, strict=True)}
