"""Your own data: a folder of classes, or a CSV.

A folder has one sub-folder per class; or one per split, with class folders in each: ``train``,
``valid`` and ``test`` in any usual spelling (``Training``, ``val``, ``dev``, ``eval``), or
``fold1``, ``fold2`` and so on. If all folders have sub-folders of the same names, single words in
their names indicate splits too (``train_data``, ``2_val``, ``nsynth-test``, ``trn``).

A CSV has a column ``path`` and either ``label``, or ``labels`` joined by ``;``, or columns of
numbers, which are regression targets named by column. Paths are absolute, begin with ``~``, or are
relative to the CSV. Two more columns are optional: ``split``, and ``group`` or ``artist``, whose
clips must not be in two splits.

Data without a split get one of 80 / 10 / 10 %, drawn by a seed
(`hear_tune.datasets.splits.stratified_split`) and stratified by class, by each clip's rarest label,
or by fifths of the first target. Files of the same content, and clips of the same group, are never
in two splits. Groups that have a file of the same content are one group, named like the first.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from ..audio.files import find_audio
from ..audio.reading import SUFFIXES
from ..common.text import first_n
from .content import content_groups
from .splits import DEFAULT_SEED, joined_groups, stratified_split
from .tables import find_delimiter, finite_number, read_table
from .task import (
    FOLD,
    TEST,
    TRAIN,
    Clip,
    Kind,
    Task,
    TaskError,
    is_split_word,
    repeated_paths,
    split_in,
    split_name,
    used_classes,
)

LABEL_SEPARATOR = ";"
SUFFIX = ".csv"

_PATH, _LABEL, _LABELS, _SPLIT = "path", "label", "labels", "split"
_GROUPS = ("group", "artist")  # the first that a table has
_KNOWN = (_PATH, _LABEL, _LABELS, _SPLIT, *_GROUPS)
_VALUE_BINS = 5
_MOST_SPLITS = 4  # with more folders, one named like a split may be a class


def is_table(path: Path) -> bool:
    """Whether a path names a CSV, by its suffix in any case."""
    return path.suffix.lower() == SUFFIX


def load(root: Path, seed: int = DEFAULT_SEED, group: str | None = None) -> Task:
    """Read a folder of classes or a CSV.

    Parameters
    ----------
    root : Path
        The folder or the ``.csv``.
    seed : int
        Seed of the split, for data without one.
    group : str, optional
        Column of a CSV whose groups must not be in two splits; by default ``group`` or ``artist``,
        if there is one.

    Raises
    ------
    FileNotFoundError, TaskError
        If the folder or file does not exist, has no audio, or is not as described above.
    """
    if root.is_dir():
        if group is not None:
            raise TaskError(f"{root}: a folder has no column {group!r} to group by; write a CSV")
        return _load_folder(root, seed)
    if not is_table(root):
        raise FileNotFoundError(f"{root}: neither a folder of class folders nor a .csv")
    return _load_csv(root, seed, group)


# --- Folders ---


def _load_folder(root: Path, seed: int) -> Task:
    folders = _folders(root)
    splits = _given_splits(root, folders)
    parts = [(splits[folder], folder) for folder in folders] if splits else [("", root)]
    clips = [
        Clip(Path(path), split, (folder.name,))
        for split, parent in parts
        for folder in _folders(parent)
        for path in find_audio(folder).paths
    ]
    if not clips:
        raise TaskError(f"{root}: no folders of classes in it")
    return _task(root, "multiclass", used_classes(clips), clips, seed)


def _folders(parent: Path) -> list[Path]:
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))


def _given_splits(root: Path, folders: list[Path]) -> dict[Path, str]:
    """Return the split of each folder, or nothing if the folders are classes."""
    splits = _named(folders, split_name)
    alike = len(splits) < len(folders) and _are_alike_inside(folders)
    if alike:
        by_words = _named(folders, split_in)
        splits = by_words if len(by_words) == len(folders) else splits
    used = set(splits.values())
    folds = {split for split in used if split.startswith(FOLD)}
    if folds and used == folds and len(splits) == len(folders) == len(used):
        return splits
    if TRAIN in used and len(splits) == len(folders) and not folds:
        _check_one_folder_each(root, splits)
        return splits
    like_splits = [
        folder for folder in folders if folder in splits or (alike and is_split_word(folder.name))
    ]
    if len(used) > 1 or _are_no_classes(like_splits, folders):
        others = [folder.name for folder in folders if folder not in like_splits]
        named = ", ".join(folder.name for folder in like_splits)
        beside = f", with others beside them ({first_n(others, 3)})" if others else ""
        raise TaskError(
            f"{root}: folders named like splits ({named}){beside}: keep train, valid and test, or "
            "fold1, fold2 and so on, alone, with class folders in each, or give classes other names"
        )
    for folder in folders:
        if {TRAIN, TEST} <= {split_name(inner.name) for inner in _folders(folder)}:
            raise TaskError(
                f"{folder}: a class with splits in it: put train, valid and test into {root}, and "
                "class folders into each"
            )
    return {}


def _named(folders: list[Path], name: Callable[[str], str | None]) -> dict[Path, str]:
    return {folder: split for folder in folders if (split := name(folder.name))}


def _are_no_classes(like_splits: list[Path], folders: list[Path]) -> bool:
    """Whether some folders are named like splits and unlikely to be classes."""
    if len(like_splits) == len(folders):
        return bool(folders)
    if len(folders) > _MOST_SPLITS:
        return False
    return any(_folders(folder) for folder in like_splits)


def _are_alike_inside(folders: list[Path]) -> bool:
    """Whether folders have no audio of their own, but two or more sub-folders in common.

    This holds for splits of two or more classes. It may hold for classes as well, such as
    instruments with a folder per dynamic, so the names must decide.
    """
    if len(folders) < 2 or any(map(_has_audio, folders)):
        return False
    inner = [{folder.name for folder in _folders(parent)} for parent in folders]
    return len(set.intersection(*inner)) > 1


def _has_audio(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES and path.is_file() for path in folder.iterdir())


def _check_one_folder_each(root: Path, splits: dict[Path, str]) -> None:
    for split, count in Counter(splits.values()).items():
        if count > 1:
            named = ", ".join(folder.name for folder, other in splits.items() if other == split)
            raise TaskError(f"{root}: {named} all mean the {split} split; keep one of them")


# --- Tables ---


def _load_csv(path: Path, seed: int, group: str | None) -> Task:
    rows = read_table(path, [_PATH], find_delimiter(path, _PATH), _KNOWN)
    if not rows:
        raise TaskError(f"{path}: no rows")
    columns = rows[0].keys()
    grouping = next((name for name in _GROUPS if name in columns), "")
    if group is not None:
        grouping = _column(group, columns, path)
    described = (*_KNOWN, grouping)
    targets = tuple(name for name in columns if name not in described)
    if _LABEL in columns and _LABELS in columns:
        raise TaskError(f"{path}: has both columns label and labels; keep one")
    if not (_LABEL in columns or _LABELS in columns or targets):
        raise TaskError(f"{path}: no column label, labels or of numbers beside path")
    clips = []
    for number, row in enumerate(rows, 2):
        where = f"{path}: row {number} ({row[_PATH]})"
        audio = _located(path.parent, row[_PATH], where)
        split = _checked_split(row.get(_SPLIT, ""), where)
        labels: tuple[str, ...] = ()
        values: tuple[float, ...] = ()
        if _LABEL in columns:
            labels = _one_label(row[_LABEL], where)
        elif _LABELS in columns:
            labels = _many_labels(row[_LABELS])
        else:
            values = tuple(finite_number(row[name], f"{where}: {name}") for name in targets)
        clips.append(Clip(audio, split, labels, values, row.get(grouping, "")))
    if _LABEL in columns:
        return _task(path, "multiclass", used_classes(clips), clips, seed, grouping)
    if _LABELS in columns:
        return _task(path, "multilabel", used_classes(clips), clips, seed, grouping)
    return _task(path, "regression", targets, clips, seed, grouping)


def _column(wanted: str, columns: Collection[str], path: Path) -> str:
    """Find a column by its exact name, or else in any case."""
    if wanted in columns:
        return wanted
    for name in columns:
        if name.lower() == wanted.lower():
            return name
    raise TaskError(f"{path}: no column {wanted!r} to group by; it has {', '.join(columns)}")


def _located(parent: Path, text: str, where: str) -> Path:
    """Resolve a path in a table, which another system may have written."""
    if not text:
        raise TaskError(f"{where}: no path")
    path = parent / (os.path.expanduser(text) if text.startswith("~") else text)
    if "\\" in text and os.sep != "\\" and not path.exists():
        return parent / text.replace("\\", os.sep)
    return path


def _checked_split(text: str, where: str) -> str:
    split = split_name(text) if text else ""
    if split is None:
        raise TaskError(f"{where}: split is {text!r}, not train, valid, test, fold00, fold01 ...")
    return split


def _one_label(text: str, where: str) -> tuple[str, ...]:
    if not text:
        raise TaskError(f"{where}: no label")
    return (text,)


def _many_labels(text: str) -> tuple[str, ...]:
    labels = (label.strip() for label in text.split(LABEL_SEPARATOR))
    return tuple(dict.fromkeys(label for label in labels if label))


# --- Both ---


def _task(
    root: Path,
    kind: Kind,
    classes: tuple[str, ...],
    clips: list[Clip],
    seed: int,
    grouping: str = "",
) -> Task:
    if repeated := repeated_paths(clips):
        raise TaskError(f"{root}: {repeated[0]} is named more than once")
    given = sum(bool(clip.split) for clip in clips)
    if given not in (0, len(clips)):
        raise TaskError(
            f"{root}: only {given} of {len(clips)} clips have a split; give all or none"
        )
    name = root.absolute().name if root.is_dir() else root.stem
    if given and not any(clip.group for clip in clips):
        return Task(name, kind, classes, tuple(clips), grouping=grouping)
    same = content_groups(clip.path for clip in clips)
    joined = joined_groups([same[clip.path] for clip in clips], [clip.group for clip in clips])
    clips = _regrouped(clips, joined)
    if given:
        return Task(name, kind, classes, tuple(clips), grouping=grouping)
    parent = root if root.is_dir() else root.parent
    splits = stratified_split(_names(parent, clips), _strata(kind, clips), joined, seed)
    drawn = (dataclasses.replace(c, split=s) for c, s in zip(clips, splits, strict=True))
    return Task(name, kind, classes, tuple(drawn), f"stratified, seed {seed}", grouping)


def _regrouped(clips: list[Clip], joined: list[str]) -> list[Clip]:
    """Name each joined group by the first group in it; files without any group stay without."""
    names: dict[str, str] = {}
    for clip, number in zip(clips, joined, strict=True):
        if clip.group:
            names.setdefault(number, clip.group)
    return [
        dataclasses.replace(clip, group=names.get(number, ""))
        for clip, number in zip(clips, joined, strict=True)
    ]


def _names(parent: Path, clips: Iterable[Clip]) -> list[str]:
    """Name clips for the draw of a split: their paths relative to the data, if below it."""
    top = parent.absolute()
    paths = [clip.path.absolute() for clip in clips]
    return [
        (path.relative_to(top) if path.is_relative_to(top) else path).as_posix() for path in paths
    ]


def _strata(kind: Kind, clips: list[Clip]) -> list[str]:
    if kind == "regression":
        ranked = sorted(clip.values[0] for clip in clips)
        edges = [ranked[len(ranked) * part // _VALUE_BINS] for part in range(1, _VALUE_BINS)]
        return [str(sum(clip.values[0] >= edge for edge in edges)) for clip in clips]
    counts = Counter(label for clip in clips for label in clip.labels)
    return [min(clip.labels, key=lambda name: (counts[name], name), default="") for clip in clips]
