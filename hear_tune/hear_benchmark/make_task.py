"""Labelled data sets as task folders of the HEAR benchmark.

Layout: https://hearbenchmark.com, and what heareval 2021.1.3 reads of it.
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

from ..common.progress import progress_bar
from ..common.samples import pad_end
from ..datasets.task import FOLD, TEST, TRAIN, VALID, Clip, Kind, Task, TaskError
from ..networks.config import SAMPLE_RATE_HZ
from .rates import read_audio, write_audio

VERSION, FULL = "1.0", "full"

_PREDICTION: dict[Kind, str] = {
    "multiclass": "multiclass",
    "key": "multiclass",
    "multilabel": "multilabel",
}
_EVALUATION = {"multiclass": ["top1_acc"], "multilabel": ["aucroc", "mAP"]}
_SPLITS = [TRAIN, VALID, TEST]


def folder_name(task: Task, mode: str = FULL) -> str:
    """Name of a task's folder among HEAR's: its own, a version and a mode."""
    return f"{task.name}-{VERSION}-{mode}"


def make_task(
    task: Task,
    tasks_dir: Path,
    seconds: float | None = None,
    rate: int = SAMPLE_RATE_HZ,
    mode: str = FULL,
) -> dict[str, str]:
    """Write a scene task that heareval accepts.

    The folder appears when it is complete; an interrupted job goes on.

    Parameters
    ----------
    task
        Clips with one label or many, in train, valid and test or in folds.
    tasks_dir
        Where HEAR's tasks are; the folder in it is named by `folder_name`.
    seconds
        Length that every clip is cut to, or filled up to with silence, as in HEAR's own tasks; None
        to leave clips as they are: heareval then embeds them one by one.
    rate
        Of the audio written, in Hz.
    mode
        What tells this version of the task from others in names and tables: its split, say.

    Returns
    -------
    dict of str to str
        Reason by path of each clip that is left out.

    Raises
    ------
    FileExistsError
        If the folder is there already.
    TaskError
        If HEAR has no such task (regression), a split is missing, or a label does not survive
        heareval's reading.
    """
    folder = tasks_dir / folder_name(task, mode)
    if folder.exists():
        raise FileExistsError(f"{folder}: is there already; remove it to make it again")
    metadata = _metadata(task, seconds, mode)
    partial = folder.with_name(f".{folder.name}.{_digest(task, seconds)}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    _write_vocabulary(partial / "labelvocabulary.csv", task.classes)
    failed: dict[str, str] = {}
    for split in metadata["splits"]:
        clips = progress_bar(task.of(split), desc=f"{task.name} {split}", unit="clip")
        labels, left_out = _write_clips(clips, partial / str(rate) / split, seconds, rate)
        if not labels:
            raise TaskError(f"{task.name}: no clip of {split} can be read: {dict(left_out)}")
        _write_json(partial / f"{split}.json", labels)
        failed |= left_out
    _write_json(partial / "task_metadata.json", metadata)
    partial.rename(folder)
    return failed


def _digest(task: Task, seconds: float | None) -> str:
    """What goes on where it was interrupted must have been the same job."""
    clips = [(str(clip.path), clip.split) for clip in task.clips]
    return hashlib.sha256(json.dumps([clips, seconds]).encode()).hexdigest()[:8]


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
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Labels by file name, and reasons by path of clips that are left out."""
    labels, failed = {}, {}
    for index, clip in enumerate(clips):
        name = f"{index:06d}-{clip.path.stem}.wav"
        try:
            if not (folder / name).exists():
                write_audio(folder / name, _fit(read_audio(clip.path, rate), seconds, rate), rate)
        except (OSError, ValueError) as error:
            failed[str(clip.path)] = str(error)
        else:
            labels[name] = list(clip.labels)
    return labels, failed


def _fit(
    samples: npt.NDArray[np.float32], seconds: float | None, rate: int
) -> npt.NDArray[np.float32]:
    if seconds is None:
        return samples
    length = round(seconds * rate)
    return pad_end(samples[:length], length)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
