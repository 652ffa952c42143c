"""What a data set is to a probe: clips, their labels, and who may see which."""

from __future__ import annotations

import re
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
LEAST_FOLDS = 3  # one to test, one to choose by, one to train on

SecondsRange = tuple[float, float]  # of the clips of a data set, least and most
Turn = dict[str, tuple[str, ...]]

_SPELLINGS = {
    TRAIN: ("train", "training"),
    VALID: ("valid", "val", "validation", "validate", "dev", "devel", "development"),
    TEST: ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {spelling: split for split, all_of in _SPELLINGS.items() for spelling in all_of}
_SHORT = {  # in names that are known to be of splits
    **_SPLIT_OF,
    **dict.fromkeys(("trn", "tr", "learn", "learning"), TRAIN),
    **dict.fromkeys(("vld", "cv"), VALID),
    **dict.fromkeys(("tst", "te", "tt", "heldout", "holdout"), TEST),
}
_FILLERS = ("subset", "set", "data", "split")


class TaskError(HearTuneError, ValueError):
    """Labels, audio and splits do not fit together."""


@dataclass(frozen=True)
class Clip:
    """A labelled audio file.

    Attributes
    ----------
    path
        Of the file.
    split
        ``train``, ``valid`` or ``test``; ``fold00`` and so on in a cross-validation.
    labels
        One for multiclass and key, any number for multilabel.
    values
        For regression, one per target.
    group
        What the clip shares with others that belong in the same split: its artist, say. Empty if
        nothing is known.
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
    name
        Of the data set and what is asked of it: ``magnatagatune``, ``emomusic``.
    kind
        multiclass (one label per clip), multilabel, regression, or key (24 keys as
        ``"C# minor"``, scored by mir_eval).
    classes
        Labels, or names of regression targets, in the order of a probe's outputs.
    clips
        Of all splits.
    split
        Name of the split, where several circulate.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    split: str = ""

    def of(self, split: str) -> tuple[Clip, ...]:
        """Clips of one split, in their order."""
        return tuple(clip for clip in self.clips if clip.split == split)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in the order of their first clips."""
        return tuple(dict.fromkeys(clip.split for clip in self.clips))


def folds(task: Task) -> tuple[str, ...]:
    """Names of the folds of a cross-validation, sorted; none if the task is no cross-validation."""
    return tuple(sorted(split for split in task.splits if split.startswith(FOLD)))


def turns(task: Task) -> tuple[Turn, ...]:
    """The splits that a probe is trained on, chosen by and tested on: one turn, or one per fold.

    Fold k is tested by a probe that is chosen on fold k + 1 and trained on the others.
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
    """The split that a name stands for, in any case: ``"Val"`` and ``"dev_set"`` are ``"valid"``.

    Folds are named by their number: ``"Fold 3"`` is ``"fold03"``. None if it stands for no split.
    """
    name = re.sub(r"[\W_]+", "", text.lower())
    fold = re.fullmatch(rf"{FOLD}([0-9]+)", name)
    if fold:
        return f"{FOLD}{int(fold[1]):02d}"
    return _SPLIT_OF.get(name) or _SPLIT_OF.get(re.sub(rf"({'|'.join(_FILLERS)})$", "", name))


def split_in(text: str) -> str | None:
    """The split that one of the words of a name stands for: ``"nsynth-train"`` is ``"train"``.

    None if none of them does, or several do, as different splits. More words count than for
    `split_name`: it is for names that are likely to be of splits.
    """
    if fold := re.search(rf"(?<![a-z]){FOLD}[\W_]*([0-9]+)", text.lower()):
        return f"{FOLD}{int(fold[1]):02d}"
    found = {_SHORT[word] for word in _words(text) if word in _SHORT}
    return found.pop() if len(found) == 1 else None


def is_split_word(text: str) -> bool:
    """Whether a name says nothing but that it is of a split: ``"1_train_data"``, ``"split2"``."""
    words = _words(text)
    kept = [word for word in words if word not in _FILLERS]
    return bool(words) and (not kept or (len(kept) == 1 and kept[0] in (*_SHORT, FOLD)))


def _words(text: str) -> list[str]:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)  # as in TrainData
    return re.findall(r"[^\W\d_]+", parted.lower())


def used_classes(clips: Iterable[Clip]) -> tuple[str, ...]:
    """All labels of some clips, sorted."""
    return tuple(sorted({label for clip in clips for label in clip.labels}))
