"""Write labelled data sets as task folders of the HEAR benchmark.

The layout is that of https://hearbenchmark.com, as far as heareval 2021.1.3 reads it.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.files import file_state, write_whole
from ..common.progress import progress_bar
from ..common.samples import pad_end
from ..datasets.task import FOLD, TEST, TRAIN, VALID, Clip, Kind, Task, TaskError
from ..networks.config import SAMPLE_RATE_HZ
from .rates import read_audio, write_audio
from .results import METADATA_FILE, VOCABULARY_FILE

VERSION, FULL = "1.0", "full"
GROUPS = "groups"  # in the metadata, by split and file; heareval ignores it

_PREDICTION: dict[Kind, str] = {
    "multiclass": "multiclass",
    "key": "multiclass",
    "multilabel": "multilabel",
}
_EVALUATION = {"multiclass": ["top1_acc"], "multilabel": ["aucroc", "mAP"]}
_SPLITS = [TRAIN, VALID, TEST]


def folder_name(task: Task, mode: str = FULL) -> str:
    """Name of a task's folder: name, version and mode."""
    return f"{task.name}-{VERSION}-{mode}"


def make_task(
    task: Task,
    tasks_dir: Path,
    seconds: float | None = None,
    rate: int = SAMPLE_RATE_HZ,
    mode: str = FULL,
) -> dict[str, str]:
    """Write a scene task for heareval.

    The folder appears when complete; an interrupted job resumes.

    Parameters
    ----------
    task : Task
        Clips with one or several labels, split into train, valid and test or into folds.
    tasks_dir : Path
        Folder of HEAR's tasks, in which the task's folder is made, named by `folder_name`.
    seconds : float, optional
        Length to which every clip is cut or padded with silence, as in HEAR's own tasks. By default
        clips keep their lengths, and heareval embeds them one by one.
    rate : int
        Sample rate of the audio written, in Hz.
    mode : str
        Name of this version of the task in folders and tables, for instance its split.

    Returns
    -------
    dict of str to str
        Errors of excluded clips, by path.

    Raises
    ------
    FileExistsError
        If the folder exists already.
    TaskError
        If HEAR has no such task (regression), a split is missing or has no readable clip, or
        heareval would read a label as another.
    """
    folder = tasks_dir / folder_name(task, mode)
    if folder.exists():
        raise FileExistsError(f"{folder}: already exists; remove it to make it again")
    metadata = _metadata(task, seconds, mode)
    partial = folder.with_name(f".{folder.name}.{_digest(task, seconds, rate)}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    _write_vocabulary(partial / VOCABULARY_FILE, task.classes)
    failed: dict[str, str] = {}
    for split in metadata["splits"]:
        bar = progress_bar(task.of(split), desc=f"{task.name} {split}", unit="clip")
        written, excluded = _write_clips(bar, partial / str(rate) / split, seconds, rate)
        if not written:
            raise TaskError(f"{task.name}: no clip of {split} can be read: {excluded}")
        labels = {name: list(clip.labels) for name, clip in written.items()}
        _write_json(partial / f"{split}.json", labels)
        metadata[GROUPS][split] = {n: clip.group for n, clip in written.items() if clip.group}
        failed |= excluded
    _write_json(partial / METADATA_FILE, metadata)
    partial.rename(folder)
    return failed


def _digest(task: Task, seconds: float | None, rate: int) -> str:
    """Identify the job, so that only the same job on the same files is resumed."""
    clips = [(str(clip.path), clip.split, file_state(clip.path)) for clip in task.clips]
    return hashlib.sha256(json.dumps([clips, seconds, rate]).encode()).hexdigest()[:8]


def _metadata(task: Task, seconds: float | None, mode: str) -> dict[str, Any]:
    if task.kind not in _PREDICTION:
        raise TaskError(f"{task.name}: heareval has no {task.kind}")
    splits = sorted(task.splits)
    folds = all(split.startswith(FOLD) for split in splits)
    if not folds and splits != sorted(_SPLITS):
        found = ", ".join(splits)
        raise TaskError(f"{task.name}: heareval needs train, valid and test, or folds; not {found}")
    prediction = _PREDICTION[task.kind]
    return {
        "task_name": task.name,
        "version": VERSION,
        "mode": mode,
        "embedding_type": "scene",
        "prediction_type": prediction,
        "split_mode": "presplit_kfold" if folds else "trainvaltest",
        "splits": splits if folds else _SPLITS,
        "sample_duration": seconds,
        "evaluation": _EVALUATION[prediction],
        GROUPS: {},
    }


def _write_vocabulary(path: Path, classes: tuple[str, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("idx", "label"), *enumerate(classes)])
    read = pd.read_csv(path)["label"].astype(str)
    for label, found in zip(classes, read, strict=True):
        if label != found:
            raise TaskError(f"label {label!r} is {found!r} to heareval: give it another name")


def _write_clips(
    clips: Iterable[Clip], folder: Path, seconds: float | None, rate: int
) -> tuple[dict[str, Clip], dict[str, str]]:
    """Write clips; return them by file name, and errors of excluded clips by path."""
    written, failed = {}, {}
    for index, clip in enumerate(clips):
        name = f"{index:06d}-{clip.path.stem}.wav"
        try:
            if not (folder / name).exists():
                write_audio(folder / name, _fit(read_audio(clip.path, rate), seconds, rate), rate)
        except (OSError, ValueError) as error:
            failed[str(clip.path)] = str(error)
        else:
            written[name] = clip
    return written, failed


def _fit(
    samples: npt.NDArray[np.float32], seconds: float | None, rate: int
) -> npt.NDArray[np.float32]:
    if seconds is None:
        return samples
    length = round(seconds * rate)
    return pad_end(samples[:length], length)


def _write_json(path: Path, content: object) -> None:
    write_whole(path, json.dumps(content, indent=1) + "\n")
