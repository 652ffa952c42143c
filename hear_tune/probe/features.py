"""Embeddings of a task's clips, computed once for all protocols, layers and seeds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from ..datasets.task import Clip, Task
from ..embed import embed_folder
from ..files import path_text, write_whole
from ..model import EmbeddingModel

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Window embeddings of clips.

    Attributes
    ----------
    clips
        Those that could be embedded.
    windows
        Per clip, (n_windows, size) float32.
    layers
        Columns of each layer.
    failed
        Reason by path of the other clips, and of those of which audio is missing.
    """

    clips: tuple[Clip, ...]
    windows: tuple[Matrix, ...]
    layers: dict[str, slice]
    failed: dict[str, str]

    def of(self, layers: Sequence[str]) -> Features:
        """The same clips with some layers alone, in the order given."""
        columns = [np.arange(self.layers[name].start, self.layers[name].stop) for name in layers]
        edges = np.cumsum([0, *map(len, columns)])
        kept = {
            name: slice(int(begin), int(end))
            for name, begin, end in zip(layers, edges, edges[1:], strict=False)
        }
        chosen = np.concatenate(columns)
        return Features(self.clips, tuple(w[:, chosen] for w in self.windows), kept, self.failed)


def embed_task(task: Task, model: EmbeddingModel, cache: str | os.PathLike[str]) -> Features:
    """Window embeddings of all clips of a task, from the cache where it has them.

    The cache has one file per encoder and choice of layers, which tasks share and extend. If an
    audio file has another size or time than when it was embedded, the file is made anew. An
    interrupted pass goes on.

    Parameters
    ----------
    task
        Whose clips.
    model
        With the layers that are wanted.
    cache
        A folder; made if it is not there.

    Returns
    -------
    Features
        Files that could not be embedded are left out, and named.
    """
    paths = list(dict.fromkeys(clip.path for clip in task.clips))
    output = Path(cache) / f"{_digest(model)}.parquet"
    output.parent.mkdir(parents=True, exist_ok=True)
    record = output.with_suffix(".json")
    files = {path_text(path): _state(path) for path in paths}
    known = json.loads(record.read_text("utf-8")) if record.exists() else {}
    changed = any(known.get(path, state) != state for path, state in files.items())
    report = embed_folder(paths, output, model, "window", overwrite=changed)
    missing = {path: "; ".join(report.remarks[path]) for path in report.incomplete}
    write_whole(record, json.dumps(files if changed else known | files))
    rows = _read(output, list(files))
    clips = tuple(clip for clip in task.clips if path_text(clip.path) in rows)
    windows = tuple(rows[path_text(clip.path)] for clip in clips)
    return Features(clips, windows, model.layer_columns, report.failed | missing)


def _digest(model: EmbeddingModel) -> str:
    key = json.dumps([model.identity, model.layers, model.window_samples, model.hop_samples])
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _state(path: Path) -> list[int]:
    """What changes when a file does: size and time."""
    status = path.stat() if path.exists() else None
    return [status.st_size, status.st_mtime_ns] if status else []


def _read(output: Path, wanted: list[str]) -> dict[str, Matrix]:
    if not output.exists():
        return {}
    table = pq.read_table(output, columns=["path", "embedding"], filters=[("path", "in", wanted)])
    if len(table) == 0:
        return {}
    column = table["embedding"].combine_chunks()
    matrix = column.flatten().to_numpy().reshape(len(column), -1)
    paths = np.array(table["path"].to_pylist())
    begins = np.flatnonzero(np.r_[True, paths[1:] != paths[:-1]])  # a clip's rows lie together
    ends = np.r_[begins[1:], len(paths)]
    return {str(paths[b]): matrix[b:e] for b, e in zip(begins, ends, strict=True)}
