"""One's own data: a folder of classes, or a CSV.

A folder has one sub-folder per class, or ``train``, ``valid`` and ``test`` with class folders in
them. A CSV has a column ``path`` (relative to the CSV) and either ``label``, or ``labels`` joined
by ``;``, or columns of numbers, which are regression targets by the names of their columns; and,
if it likes, ``split``.

Where no split is given, 80 / 10 / 10 % are drawn by a seed
(`hear_tune.datasets.splits.stratified_split`), from each class, from each clip's rarest label, or
from each fifth of the first target. Files of the same content are never in two splits.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

from ..files import find_audio
from .content import content_groups
from .splits import DEFAULT_SEED, stratified_split
from .tables import finite_number, read_table
from .task import FOLD, TEST, TRAIN, VALID, Clip, Kind, Task, TaskError, used_classes

LABEL_SEPARATOR = ";"

_SPLITS = (TRAIN, VALID, TEST)
_PATH, _LABEL, _LABELS, _SPLIT = "path", "label", "labels", "split"
_VALUE_BINS = 5


def load(root: Path, seed: int = DEFAULT_SEED) -> Task:
    """Read a folder of classes or a CSV.

    Parameters
    ----------
    root
        The folder or the ``.csv``.
    seed
        Of the split, where none is given.

    Raises
    ------
    FileNotFoundError, TaskError
        If there is no such folder or file, no audio, or labels are not as described.
    """
    if root.is_dir():
        return _load_folder(root, seed)
    if root.suffix.lower() != ".csv":
        raise FileNotFoundError(f"{root}: neither a folder of class folders nor a .csv")
    return _load_csv(root, seed)


def _load_folder(root: Path, seed: int) -> Task:
    folders = {path.name: path for path in _folders(root)}
    given = TRAIN in folders and set(folders) <= set(_SPLITS)
    parts = [(split, folders[split]) for split in _SPLITS if split in folders]
    clips = [
        Clip(Path(path), split, (folder.name,))
        for split, parent in (parts if given else [("", root)])
        for folder in _folders(parent)
        for path in find_audio(folder).paths
    ]
    if not clips:
        raise TaskError(f"{root}: no folders of classes in it")
    return _task(root, "multiclass", used_classes(clips), clips, seed)


def _folders(parent: Path) -> list[Path]:
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))


def _load_csv(path: Path, seed: int) -> Task:
    rows = read_table(path, [_PATH])
    if not rows:
        raise TaskError(f"{path}: no rows")
    columns = rows[0].keys()
    targets = tuple(name for name in columns if name not in (_PATH, _LABEL, _LABELS, _SPLIT))
    if _LABEL in columns and _LABELS in columns:
        raise TaskError(f"{path}: has both columns label and labels; keep one")
    if not (_LABEL in columns or _LABELS in columns or targets):
        raise TaskError(f"{path}: no column label, labels or of numbers beside path")
    clips = []
    for number, row in enumerate(rows, 2):
        where = f"{path}: row {number} ({row[_PATH]})"
        clip = Clip(path.parent / row[_PATH], _checked_split(row.get(_SPLIT, ""), where))
        if _LABEL in columns:
            clip = dataclasses.replace(clip, labels=_one_label(row[_LABEL], where))
        elif _LABELS in columns:
            clip = dataclasses.replace(clip, labels=_many_labels(row[_LABELS]))
        else:
            values = tuple(finite_number(row[name], f"{where}: {name}") for name in targets)
            clip = dataclasses.replace(clip, values=values)
        clips.append(clip)
    kind: Kind = "multiclass" if _LABEL in columns else "multilabel"
    if _LABEL in columns or _LABELS in columns:
        return _task(path, kind, used_classes(clips), clips, seed)
    return _task(path, "regression", targets, clips, seed)


def _checked_split(split: str, where: str) -> str:
    if split and split not in _SPLITS and not split.startswith(FOLD):
        raise TaskError(f"{where}: split is {split!r}, not train, valid, test, fold00, fold01 ...")
    return split


def _one_label(text: str, where: str) -> tuple[str, ...]:
    if not text:
        raise TaskError(f"{where}: no label")
    return (text,)


def _many_labels(text: str) -> tuple[str, ...]:
    labels = (label.strip() for label in text.split(LABEL_SEPARATOR))
    return tuple(dict.fromkeys(label for label in labels if label))


def _task(root: Path, kind: Kind, classes: tuple[str, ...], clips: list[Clip], seed: int) -> Task:
    repeated = [path for path, count in Counter(clip.path for clip in clips).items() if count > 1]
    if repeated:
        raise TaskError(f"{root}: {repeated[0]} is named more than once")
    given = sum(bool(clip.split) for clip in clips)
    if given not in (0, len(clips)):
        raise TaskError(
            f"{root}: only {given} of {len(clips)} clips have a split; give all or none"
        )
    if given:
        return Task(root.stem, kind, classes, tuple(clips))
    parent = root if root.is_dir() else root.parent
    names = [clip.path.relative_to(parent).as_posix() for clip in clips]
    same = content_groups(clip.path for clip in clips)
    groups = [same[clip.path] for clip in clips]
    splits = stratified_split(names, _strata(kind, clips), groups, seed)
    drawn = (dataclasses.replace(c, split=s) for c, s in zip(clips, splits, strict=True))
    return Task(root.stem, kind, classes, tuple(drawn), f"stratified, seed {seed}")


def _strata(kind: Kind, clips: list[Clip]) -> list[str]:
    if kind == "regression":
        ranked = sorted(clip.values[0] for clip in clips)
        edges = [ranked[len(ranked) * part // _VALUE_BINS] for part in range(1, _VALUE_BINS)]
        return [str(sum(clip.values[0] >= edge for edge in edges)) for clip in clips]
    counts = Counter(label for clip in clips for label in clip.labels)
    return [min(clip.labels, key=lambda name: (counts[name], name), default="") for clip in clips]
