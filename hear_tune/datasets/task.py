"""Labelled clips and their train, validation and test split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ..common.errors import HearTuneError

Kind = Literal["multiclass", "multilabel", "regression", "key"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TRAIN, VALID, TEST = "train", "valid", "test"
SPLITS = (TRAIN, VALID, TEST)
FOLD = "fold"  # splits of a cross-validation are fold00, fold01, ...
LEAST_FOLDS = 3  # one each for testing, validation and training

SecondsRange = tuple[float, float]  # length of the shortest and the longest clip of a data set
Turn = dict[str, tuple[str, ...]]

_SPELLINGS = {
    TRAIN: ("train", "training"),
    VALID: ("valid", "val", "validation", "validate", "dev", "devel", "development"),
    TEST: ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {spelling: split for split, all_of in _SPELLINGS.items() for spelling in all_of}
_SHORT = {  # only in names that are likely to be splits
    **_SPLIT_OF,
    **dict.fromkeys(("trn", "tr", "learn", "learning"), TRAIN),
    **dict.fromkeys(("vld", "cv"), VALID),
    **dict.fromkeys(("tst", "te", "tt", "heldout", "holdout"), TEST),
}
_FILLERS = ("subset", "set", "data", "split")


class TaskError(HearTuneError, ValueError):
    """Labels, audio and splits are inconsistent."""


@dataclass(frozen=True)
class Clip:
    """A labelled audio file.

    Attributes
    ----------
    path : Path
        The audio file.
    split : str
        ``train``, ``valid`` or ``test``; ``fold00`` and so on in a cross-validation.
    labels : tuple of str
        One for multiclass and key, any number for multilabel.
    values : tuple of float
        One per regression target.
    group : str
        Clips of a group, such as an artist, belong in the same split. Empty if unknown.
    """

    path: Path
    split: str
    labels: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Task:
    """Clips with one kind of label.

    Attributes
    ----------
    name : str
        Data set and target: ``magnatagatune``, ``billboard-decade``.
    kind : str
        multiclass (one label per clip), multilabel, regression, or key (24 keys such as
        ``"C# minor"``, scored by mir_eval).
    classes : tuple of str
        Labels, or names of regression targets, in the order of a probe's outputs.
    clips : tuple of Clip
        Clips of all splits.
    split : str
        Name of the split, if several are in use.
    grouping : str
        Column of a CSV that names the clips' groups.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    split: str = ""
    grouping: str = ""

    def of(self, split: str) -> tuple[Clip, ...]:
        """Return the clips of one split, in order."""
        return tuple(clip for clip in self.clips if clip.split == split)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order of their first clips."""
        return tuple(dict.fromkeys(clip.split for clip in self.clips))

    @property
    def all_grouped(self) -> bool:
        """Whether every clip has a group."""
        return all(clip.group for clip in self.clips)


def folds(task: Task) -> tuple[str, ...]:
    """Return the sorted names of a cross-validation's folds; empty for other tasks."""
    return tuple(sorted(split for split in task.splits if split.startswith(FOLD)))


def turns(task: Task) -> tuple[Turn, ...]:
    """Return the splits for training, validation and testing: one turn, or one per fold.

    When fold k is tested, fold k + 1 is for validation and the others for training.
    """
    names = folds(task)
    if not names:
        return ({split: (split,) for split in SPLITS},)
    following = (*names[1:], names[0])
    return tuple(
        {
            TRAIN: tuple(other for other in names if other not in (fold, after)),
            VALID: (after,),
            TEST: (fold,),
        }
        for fold, after in zip(names, following, strict=True)
    )


def split_name(text: str) -> str | None:
    """Return the split that a name means, in any case: ``"Val"``, ``"dev_set"`` for ``"valid"``.

    Folds keep their number: ``"Fold 3"`` is ``"fold03"``. None for other names.
    """
    name = re.sub(r"[\W_]+", "", text.lower())
    fold = re.fullmatch(rf"{FOLD}([0-9]+)", name)
    if fold:
        return f"{FOLD}{int(fold[1]):02d}"
    return _SPLIT_OF.get(name) or _SPLIT_OF.get(re.sub(rf"({'|'.join(_FILLERS)})$", "", name))


def split_in(text: str) -> str | None:
    """Return the split that a word of a name means: ``"nsynth-train"`` is ``"train"``.

    None if no word does, or words mean different splits. For names that are likely to be splits:
    more words count than in `split_name`.
    """
    if fold := re.search(rf"(?<![a-z]){FOLD}[\W_]*([0-9]+)", text.lower()):
        return f"{FOLD}{int(fold[1]):02d}"
    found = {_SHORT[word] for word in _words(text) if word in _SHORT}
    return found.pop() if len(found) == 1 else None


def is_split_word(text: str) -> bool:
    """Whether a name consists of words for a split: ``"1_train_data"``, ``"split2"``."""
    words = _words(text)
    kept = [word for word in words if word not in _FILLERS]
    return bool(words) and (not kept or (len(kept) == 1 and kept[0] in (*_SHORT, FOLD)))


def _words(text: str) -> list[str]:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)  # as in TrainData
    return re.findall(r"[^\W\d_]+", parted.lower())


def repeated_paths(clips: Iterable[Clip]) -> list[Path]:
    """Return the files that several clips name, in order."""
    counts = Counter(clip.path for clip in clips)
    return [path for path, count in counts.items() if count > 1]


def used_classes(clips: Iterable[Clip]) -> tuple[str, ...]:
    """Return all labels of some clips, sorted."""
    return tuple(sorted({label for clip in clips for label in clip.labels}))
