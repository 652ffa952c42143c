"""Classifiers across groups, which take seconds and have no settings to choose.

Clips of one group, such as the notes of one instrument, are classified by those of other groups
only. If every clip has a group, all clips are classified, whatever their split. Otherwise each fold
of a cross-validation is classified by the other folds, or the test clips by all others.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler, normalize

from ..common.text import first_n
from ..datasets.task import TEST, Kind, Task, TaskError, folds

Matrix = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

# inverse strengths of the logistic regression's penalty
LOGISTIC_C = 0.1  # on standardised embeddings
RAW_C = 1.0  # on embeddings as they are; scikit-learn's default
FOLDS = 5  # of groups, if these are not classified one by one

_LISTED = 3  # number of classes in a message
_MOST_ITERATIONS = 1000
_NEIGHBOUR_ROWS = 1024  # clips compared with all others at a time


@dataclass(frozen=True)
class Classifier:
    """A classifier of clips by others.

    Attributes
    ----------
    predict : callable
        Takes the kind of task, embeddings (n, size) and answers (n, classes) of the known clips,
        and embeddings (m, size) to classify; returns predictions (m, classes). Answers are 0 and 1,
        or values.
    folds : int or None
        Number of folds for the groups; None makes each group a fold.
    """

    predict: Callable[[Kind, Matrix, Matrix, Matrix], Matrix]
    folds: int | None = None


def predict_across(
    task: Task, vectors: Matrix, answers: Matrix, classifier: Classifier
) -> tuple[Rows, Matrix]:
    """Classify clips by clips of other groups.

    Parameters
    ----------
    task : Task
        The clips.
    vectors, answers : array
        Shape (n, size) and (n, classes), by clip.
    classifier : Classifier
        One of those below.

    Returns
    -------
    rows : (m,) int
        Numbers of the classified clips: all, or those of the test set.
    predicted : (m, classes) float32
        Their predictions.

    Raises
    ------
    TaskError
        If there are no clips to classify, or none to classify by, such as with a single group; if
        the latter all have the same labels; or if the classifier does not support the kind of task.
    """
    rows, predicted = [], []
    for known, asked in _rounds(task, classifier.folds):
        if len(known) == 0 or len(asked) == 0:
            raise TaskError(f"{task.name}: {len(known)} clips to label {len(asked)} others by")
        if (answers[known] == answers[known[0]]).all():
            raise TaskError(f"{task.name}: nothing to tell apart without {_named(task, asked)}")
        rows.append(asked)
        predicted.append(
            classifier.predict(task.kind, vectors[known], answers[known], vectors[asked])
        )
    return np.concatenate(rows), np.concatenate(predicted)


def check_classes(task: Task, classifier: Classifier) -> tuple[str, ...]:
    """Find classes whose clips are classified without any example of the class.

    Returns
    -------
    tuple of str
        A remark that lists them, if there are any.
    """
    parts = _parts(task, classifier.folds)
    parts_of = defaultdict(set)
    for clip, part in zip(task.clips, parts, strict=True):
        for label in clip.labels:
            parts_of[label].add(part)
    asked = _asked(task, parts)
    found = [name for name in task.classes if len(parts_of[name]) == 1 and parts_of[name] <= asked]
    if not found:
        return ()
    unit = _unit(task, classifier.folds)
    listed = first_n(found, _LISTED)
    return (f"classes in one {unit} only, whose clips cannot be recognised: {listed}",)


def _unit(task: Task, most: int | None) -> str:
    """Name what is classified at a time."""
    if task.all_grouped:
        return "group" if most is None else "fold of whole groups"
    return "fold" if folds(task) else "split"


def _rounds(task: Task, most: int | None) -> Iterator[tuple[Rows, Rows]]:
    """Yield rows of known clips, and of clips to classify by them."""
    names = _parts(task, most)
    parts = np.array(names)
    for part in sorted(_asked(task, names)):
        yield np.flatnonzero(parts != part), np.flatnonzero(parts == part)


def _parts(task: Task, most: int | None) -> list[str]:
    """Return the name of each clip's group, fold or split."""
    splits = [clip.split for clip in task.clips]
    groups = [clip.group for clip in task.clips]
    if not task.all_grouped:
        return splits
    if most is None:
        return groups
    kept = len(set(zip(groups, splits, strict=True))) == len(set(groups))
    return splits if folds(task) and kept else _dealt(groups, most)


def _asked(task: Task, parts: list[str]) -> set[str]:
    """Return the parts whose clips are classified."""
    return set(parts) if folds(task) or task.all_grouped else {TEST}


def _dealt(groups: list[str], most: int) -> list[str]:
    """Deal whole groups into folds of about equal size."""
    count = min(most, len(set(groups)))
    if count < 2:
        return groups
    names = np.empty(len(groups), np.intp)
    for number, (_, rows) in enumerate(GroupKFold(count).split(groups, groups=groups)):
        names[rows] = number
    return [str(name) for name in names]


def _named(task: Task, rows: Rows) -> str:
    names = sorted({task.clips[row].group or task.clips[row].split for row in rows})
    return first_n(names, 3)


# --- Classifiers ---


def _nearest(_: Kind, known: Matrix, answers: Matrix, asked: Matrix) -> Matrix:
    """Return the answers of the nearest known clips by cosine similarity."""
    known, asked = normalize(known), normalize(asked)
    parts = [
        (asked[begin : begin + _NEIGHBOUR_ROWS] @ known.T).argmax(axis=1)
        for begin in range(0, len(asked), _NEIGHBOUR_ROWS)
    ]
    predicted: Matrix = answers[np.concatenate(parts)]
    return predicted


def _standardized(kind: Kind, known: Matrix, answers: Matrix, asked: Matrix) -> Matrix:
    scaler = StandardScaler().fit(known)
    return _logistic(kind, scaler.transform(known), answers, scaler.transform(asked), LOGISTIC_C)


def _raw(kind: Kind, known: Matrix, answers: Matrix, asked: Matrix) -> Matrix:
    return _logistic(kind, known, answers, asked, RAW_C)


def _logistic(kind: Kind, known: Matrix, answers: Matrix, asked: Matrix, strength: float) -> Matrix:
    """Return probabilities by a logistic regression, of all classes or of each tag."""
    if kind == "regression":
        raise TaskError("a logistic regression predicts classes or tags, no values: try knn")
    if kind == "multilabel":
        tags = (
            _probabilities(known, tag, asked, 2, strength)[:, 1]
            for tag in answers.T.astype(np.intp)
        )
        return np.stack(list(tags), axis=1)
    return _probabilities(known, answers.argmax(axis=1), asked, answers.shape[1], strength)


def _probabilities(
    known: Matrix, numbers: Rows, asked: Matrix, classes: int, strength: float
) -> Matrix:
    """Return probabilities (m, classes), which are 0 for classes without known clips."""
    predicted = np.zeros((len(asked), classes), np.float32)
    used = np.unique(numbers)
    if len(used) == 1:
        predicted[:, used] = 1
        return predicted
    regression = LogisticRegression(C=strength, max_iter=_MOST_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # further steps gain no accuracy
        regression.fit(known, numbers)
    predicted[:, used] = regression.predict_proba(asked)
    return predicted


NEAREST = Classifier(_nearest)
LOGISTIC = Classifier(_standardized, FOLDS)
LOGISTIC_RAW = Classifier(_raw, FOLDS)
