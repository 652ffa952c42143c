"""What a data set is to a probe: clips, their labels, and who may see which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["multiclass", "multilabel", "regression", "key"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TRAIN, VALID, TEST = "train", "valid", "test"
FOLD = "fold"  # splits of a cross-validation are fold00, fold01, ...


class TaskError(ValueError):
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
    """

    path: Path
    split: str
    labels: tuple[str, ...] = ()
    values: tuple[float, ...] = ()


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


def used_classes(clips: Iterable[Clip]) -> tuple[str, ...]:
    """All labels of some clips, sorted."""
    return tuple(sorted({label for clip in clips for label in clip.labels}))
