"""GTZAN Music/Speech (Tzanetakis, 1999): 64 clips of music and 64 of speech, of 30 s each.

In ten folds, dealt out evenly; HEAR's differ.
"""

from __future__ import annotations

from pathlib import Path

from .folds import has_table, read_folded
from .splits import stratified_folds
from .task import Clip, Task, used_classes

CLASSES = ("music", "speech")
FOLDS = 10


def load(root: Path) -> Task:
    """Read the task.

    Parameters
    ----------
    root : Path
        Folder with the unpacked ``music_speech``, which holds ``music_wav`` and ``speech_wav``; or
        with ``labels.csv``: ``file``, ``label`` and ``fold``.

    Raises
    ------
    FileNotFoundError, TaskError
        If there is no audio, or the table is invalid.
    """
    if has_table(root):
        clips = [
            Clip(path, fold, (row["label"],)) for path, fold, row in read_folded(root, ["label"])
        ]
    else:
        clips = _dealt(root / "music_speech")
    return Task("gtzan-music-speech", "multiclass", used_classes(clips), tuple(clips))


def _dealt(folder: Path) -> list[Clip]:
    label_of = {path: label for label in CLASSES for path in _audio(folder / f"{label}_wav")}
    names = [path.relative_to(folder).as_posix() for path in label_of]
    folds = stratified_folds(names, list(label_of.values()), FOLDS)
    return [
        Clip(path, fold, (label,))
        for (path, label), fold in zip(label_of.items(), folds, strict=True)
    ]


def _audio(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no .wav files")
    return paths
