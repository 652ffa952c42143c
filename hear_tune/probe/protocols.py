"""The protocols by which embeddings are compared, as rows of configuration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.progress import progress_bar
from ..datasets.check import check_variety
from ..datasets.task import (
    LEAST_FOLDS,
    TEST,
    TRAIN,
    VALID,
    Clip,
    Kind,
    Task,
    TaskError,
    folds,
    turns,
)
from ..networks.config import WINDOW_SAMPLES
from . import across
from .features import Features, Matrix
from .heads import Examples, Head, Settings, train
from .metrics import PRIMARY, Array, score

Rows = npt.NDArray[np.intp]
Roles = dict[str, Rows]


@dataclass(frozen=True)
class Protocol:
    """Training, selection and test of a probe.

    Attributes
    ----------
    name : str
        Name on the command line.
    source : str
        Publication or program from which it is taken.
    grid : tuple of Settings
        Settings to choose from, by the primary metric on the validation clips.
    one_window : bool
        Train and validate on one random window of each clip, as long as the paper's, and average
        the predictions for all windows of a test clip. If an encoder's windows are shorter, the
        mean of as many as cover the paper's window is one example, so that encoders are compared on
        equal durations. Otherwise a clip has one embedding, as a track.
    classifier : Classifier, optional
        Without a grid: predicts each clip, embedded as a track, from clips of other groups
        (`hear_tune.probe.across`).
    """

    name: str
    source: str
    grid: tuple[Settings, ...] = ()
    one_window: bool = False
    classifier: across.Classifier | None = None


CLMR_LINEAR = Protocol(
    "clmr-linear",
    "CLMR (Spijkervet & Burgoyne, 2021) and TUNE (Vélez Vásquez & Burgoyne, 2022): MagnaTagATune",
    (
        Settings(
            learning_rate=1e-3,
            weight_decay=1e-6,
            batch_size=48,
            max_epochs=200,
            patience=10,
            reduce_patience=5,
        ),
    ),
    one_window=True,
)
JUKEMIR = Protocol(
    "jukemir",
    "Castellon, Donahue & Liang, 2021",
    tuple(
        Settings(
            standardize=standardize,
            hidden=hidden,
            batch_size=batch_size,
            learning_rate=learning_rate,
            dropout=dropout,
            weight_decay=weight_decay,
            check_every_steps=8,
            patience=256,
        )
        for standardize, hidden, batch_size, learning_rate, dropout, weight_decay in (
            itertools.product(
                (False, True),
                (0, 512),
                (64, 256),
                (1e-5, 1e-4, 1e-3),
                (0.25, 0.5, 0.75),
                (0.0, 1e-4, 1e-3),
            )
        )
    ),
    one_window=False,
)
KNN = Protocol("knn", "nearest neighbour by cosine, of another group", classifier=across.NEAREST)
LOGISTIC = Protocol(
    "logistic", "logistic regression on standardised embeddings", classifier=across.LOGISTIC
)
LOGISTIC_RAW = Protocol(
    "logistic-raw", "the same on embeddings as they are", classifier=across.LOGISTIC_RAW
)
PROTOCOLS = {
    protocol.name: protocol for protocol in (CLMR_LINEAR, JUKEMIR, KNN, LOGISTIC, LOGISTIC_RAW)
}


def budgeted(protocol: Protocol, points: int | None, seed: int = 0) -> Protocol:
    """The protocol with so many settings of its grid, drawn at random."""
    if points is None or points >= len(protocol.grid):
        return protocol
    rows = np.random.default_rng(seed).choice(len(protocol.grid), points, replace=False)
    return replace(protocol, grid=tuple(protocol.grid[row] for row in sorted(rows)))


def windows_joined(protocol: Protocol, features: Features) -> int | None:
    """Number of adjacent windows per example; None for all windows of the clip."""
    if not protocol.one_window:
        return None
    rest = WINDOW_SAMPLES - features.window_samples
    return 1 + max(0, -(-rest // features.hop_samples))


def example_samples(protocol: Protocol, features: Features) -> int | None:
    """Length of the audio of a training example; None if it is the whole clip."""
    count = windows_joined(protocol, features)
    if count is None:
        return None
    return features.window_samples + (count - 1) * features.hop_samples


@dataclass(frozen=True)
class Predictions:
    """Predictions for the test clips of a task.

    Attributes
    ----------
    truth, predicted : array
        Arguments of `hear_tune.probe.metrics.score`.
    settings : tuple of Settings
        The settings chosen for each fold; empty without a grid.
    valid : tuple of float
        Primary metric on the validation clips of each fold; empty without a grid.
    groups : tuple of str
        Group of each test clip.
    """

    truth: Array
    predicted: Array
    settings: tuple[Settings, ...]
    valid: tuple[float, ...]
    groups: tuple[str, ...] = ()


def run_protocol(task: Task, features: Features, protocol: Protocol, seed: int) -> Predictions:
    """Train, choose and test a probe; in a cross-validation, for each fold.

    Fold k is tested with a probe that is chosen on fold k + 1 and trained on the others. A protocol
    with a classifier predicts clips from other groups instead, and ignores the seed.

    Raises
    ------
    TaskError
        If there are no clips to train on, to choose by, or to test, or they are all alike.
    """
    if not features.clips:
        raise TaskError(f"{task.name}: none of {len(task.clips):,} clips could be embedded")
    task = replace(task, clips=features.clips)
    if protocol.classifier is not None:
        return _run_across(task, features, protocol.classifier)
    check_variety(task)
    parts = [
        _run_split(task, features, protocol, roles, seed) for roles in _roles(task, features.clips)
    ]
    return Predictions(
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.predicted for part in parts]),
        tuple(settings for part in parts for settings in part.settings),
        tuple(value for part in parts for value in part.valid),
        tuple(group for part in parts for group in part.groups),
    )


def _run_across(task: Task, features: Features, classifier: across.Classifier) -> Predictions:
    targets = encode_targets(task, features.clips)
    answers = targets if targets.ndim == 2 else F.one_hot(targets, len(task.classes)).float()
    vectors = _means(features.windows).numpy()
    rows, predicted = across.predict_across(task, vectors, answers.numpy(), classifier)
    groups = tuple(features.clips[row].group for row in rows)
    return Predictions(targets.numpy()[rows], predicted, (), (), groups)


def _roles(task: Task, clips: Sequence[Clip]) -> Iterator[Roles]:
    """Rows of the clips to train on, to choose by and to test."""
    splits = np.array([clip.split for clip in clips])
    count = len(folds(task))
    if 0 < count < LEAST_FOLDS:
        raise TaskError(
            f"{task.name}: a cross-validation needs {LEAST_FOLDS} folds or more, not {count}"
        )
    for turn in turns(task):
        roles = {role: np.flatnonzero(np.isin(splits, names)) for role, names in turn.items()}
        for role, rows in roles.items():
            if len(rows) == 0:
                raise TaskError(f"{task.name}: no {role} clips in {', '.join(turn[role])}")
        yield roles


def _run_split(
    task: Task, features: Features, protocol: Protocol, roles: Roles, seed: int
) -> Predictions:
    rng = np.random.default_rng(seed)
    joined = windows_joined(protocol, features)
    targets = encode_targets(task, features.clips)
    examples = {
        role: Examples(_vectors(features, roles[role], joined, rng), targets[roles[role]])
        for role in (TRAIN, VALID)
    }
    grid = progress_bar(protocol.grid, desc="grid", disable=len(protocol.grid) == 1)
    # one after the other, so that only the best head so far is kept
    trained = (_try(task, examples, settings, seed) for settings in grid)
    value, _, head, settings = max(trained, key=_rank)
    windows = [features.windows[row] for row in roles[TEST]]
    return Predictions(
        targets[roles[TEST]].numpy(),
        _predict(head, windows, joined),
        (settings,),
        (value,),
        tuple(features.clips[row].group for row in roles[TEST]),
    )


def _try(
    task: Task, examples: dict[str, Examples], settings: Settings, seed: int
) -> tuple[float, float, Head, Settings]:
    head = train(task.kind, len(task.classes), examples[TRAIN], examples[VALID], settings, seed)
    return (*_validate(task, head, examples[VALID]), head, settings)


def _rank(row: tuple[float, float, Head, Settings]) -> tuple[float, float]:
    """Where validation clips have no score, the loss decides."""
    value, loss = row[:2]
    return (-np.inf if np.isnan(value) else value), loss


def _validate(task: Task, head: Head, valid: Examples) -> tuple[float, float]:
    """The primary metric, and, where that is equal, what decides: the loss, negative."""
    predicted = head.predict(valid.vectors).numpy()
    scores = score(task.kind, task.classes, valid.targets.numpy(), predicted)
    with torch.no_grad():
        return scores.values[PRIMARY[task.kind]], -float(head.loss(valid))


def encode_targets(task: Task, clips: Sequence[Clip]) -> Tensor:
    """Class numbers (n,); or 0 and 1, or values, (n, classes)."""
    kind: Kind = task.kind
    if kind == "regression":
        return torch.tensor([clip.values for clip in clips], dtype=torch.float32)
    number = {name: column for column, name in enumerate(task.classes)}
    if kind == "multilabel":
        matrix = torch.zeros(len(clips), len(number))
        for row, clip in enumerate(clips):
            matrix[row, [number[label] for label in clip.labels]] = 1
        return matrix
    return torch.tensor([number[clip.labels[0]] for clip in clips])


def _vectors(
    features: Features, rows: Rows, joined: int | None, rng: np.random.Generator
) -> Tensor:
    windows = [features.windows[row] for row in rows]
    if joined is not None:
        windows = [_random_windows(matrix, joined, rng) for matrix in windows]
    return _means(windows)


def _random_windows(matrix: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    """So many windows next to each other, or all of a clip that has no more."""
    begin = rng.integers(max(len(matrix) - count, 0) + 1)
    return matrix[begin : begin + count]


def _means(windows: Sequence[Matrix]) -> Tensor:
    return torch.from_numpy(np.stack([matrix.mean(axis=0) for matrix in windows]))


def _predict(head: Head, windows: Sequence[Matrix], joined: int | None) -> Array:
    if joined is None:
        return head.predict(_means(windows)).numpy()
    examples = [_side_by_side(matrix, joined) for matrix in windows]
    predicted = head.predict(torch.from_numpy(np.concatenate(examples))).numpy()
    edges = np.cumsum([len(matrix) for matrix in examples])[:-1]
    return np.stack([part.mean(axis=0) for part in np.split(predicted, edges)])


def _side_by_side(matrix: Matrix, count: int) -> Matrix:
    """Means of so many windows each; the last ones end where the clip does."""
    last = max(len(matrix) - count, 0)
    begins = [*range(0, last, count), last]
    return np.stack([matrix[begin : begin + count].mean(axis=0) for begin in begins])
