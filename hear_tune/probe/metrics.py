"""Scores of predictions, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from ..datasets.task import Kind

Array = npt.NDArray[Any]

PRIMARY: dict[Kind, str] = {
    "multiclass": "accuracy",
    "multilabel": "roc_auc",
    "regression": "r2",
    "key": "weighted",
}
BOOTSTRAP_SAMPLES = 1000
INTERVAL_PERCENT = 95


@dataclass(frozen=True)
class Scores:
    """Scores of predictions.

    Attributes
    ----------
    values : dict of str to float
        By metric; the primary one first.
    per_class : dict of str to dict of str to float
        By class and metric: average precision and ROC-AUC of a tag, F1 of a class, R2 of a target.
    left_out : tuple of str
        Classes excluded from the averages, because all examples are positive or none is.
    confusion : list of list of int, or None
        Confusion matrix of classes: rows are true, columns predicted.
    """

    values: dict[str, float]
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    confusion: list[list[int]] | None = None


def score(kind: Kind, classes: tuple[str, ...], truth: Array, predicted: Array) -> Scores:
    """Score predictions.

    Parameters
    ----------
    kind : str
        Kind of the task.
    classes : tuple of str
        Names of the columns of `predicted`.
    truth : array
        Class numbers (n,); or 0 and 1, or values, (n, classes).
    predicted : array
        Probabilities, scores or values, (n, classes).

    Returns
    -------
    Scores
        multilabel: macro ROC-AUC and macro average precision. multiclass: accuracy, macro-F1.
        regression: mean R2. key: mir_eval's weighted score, accuracy.
    """
    return _SCORERS[kind](classes, truth, predicted)


def intervals(
    kind: Kind,
    classes: tuple[str, ...],
    truth: Array,
    predicted: Array,
    seed: int = 0,
    groups: Sequence[str] = (),
) -> dict[str, tuple[float, float]]:
    """Bootstrap the 95 % percentile interval of each metric over groups of clips.

    Clips of a group, such as the notes of an instrument, succeed and fail together, so that
    intervals over clips would be too narrow.

    Parameters
    ----------
    kind, classes, truth : Kind, tuple of str, array
        As in `score`.
    predicted : array
        Shape (n, classes); or (seeds, n, classes) for intervals of the mean over seeds, all scored
        on the same drawn clips.
    seed : int
        Seed of the draws.
    groups : sequence of str
        Group of each clip. A clip whose group is empty is drawn on its own, and so are all clips
        without groups or of a single one.

    Returns
    -------
    dict of str to (float, float)
        Low and high end, by metric. An interval always includes the score of the clips themselves,
        even if all draws score on one side of it.
    """
    probes = np.asarray(predicted).reshape(-1, len(truth), np.shape(predicted)[-1])
    times = _times_drawn(_units(groups, len(truth)), np.random.default_rng(seed))
    drawn = [_DRAWN_SCORERS[kind](classes, truth, probe, times) for probe in probes]
    scored = [score(kind, classes, truth, probe).values for probe in probes]
    edge = (100 - INTERVAL_PERCENT) / 2
    bounds = {}
    for name in scored[0]:
        values = np.mean([of_seed[name] for of_seed in drawn], axis=0)
        mean = float(np.mean([of_seed[name] for of_seed in scored]))
        defined = values[~np.isnan(values)]
        low, high = np.percentile(defined, [edge, 100 - edge]) if len(defined) else (mean, mean)
        bounds[name] = (float(np.fmin(low, mean)), float(np.fmax(high, mean)))
    return bounds


def _units(groups: Sequence[str], count: int) -> Array:
    """Number the groups that are drawn together, by clip."""
    if len(set(groups)) < 2:
        return np.arange(count)
    names = [(group, -1) if group else ("", clip) for clip, group in enumerate(groups)]
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names])


def _times_drawn(units: Array, rng: np.random.Generator) -> Array:
    """Draw units, and count each clip's draws: (draws, n), as float32 for fast products."""
    count = int(units.max()) + 1
    drawn = rng.integers(count, size=(BOOTSTRAP_SAMPLES, count))
    times = np.stack([np.bincount(draw, minlength=count).astype(np.float32) for draw in drawn])
    return times[:, units]


# --- Scores of resampled clips: those of `score`, for each row of (draws, n) times drawn ---


def _drawn_multilabel(
    _: tuple[str, ...], truth: Array, predicted: Array, times: Array
) -> dict[str, Array]:
    times = np.ascontiguousarray(times.T)
    columns = zip(truth.T > 0, predicted.T, strict=True)
    tags = np.array([_drawn_tag(times, positive, scores) for positive, scores in columns])
    with np.errstate(invalid="ignore"):  # no tag is defined in a draw: NaN
        means = np.nansum(tags, axis=0) / np.sum(~np.isnan(tags), axis=0)
    return {"roc_auc": means[0], "average_precision": means[1]}


def _drawn_tag(times: Array, positive: Array, predicted: Array) -> Array:
    """ROC-AUC and average precision of one tag, (2, draws); NaN where undefined.

    The clips are sorted once. A clip drawn twice counts twice; equal predictions share a threshold.
    """
    order = np.argsort(-predicted, kind="stable")
    hits = order[positive[order]]
    thresholds = -predicted[hits]
    weights = times[hits]
    drawn_above, drawn_to = _counts_at(times[order], -predicted[order], thresholds)
    hits_above, hits_to = _counts_at(weights, thresholds, thresholds)
    hit_count = weights.sum(axis=0, dtype=np.float64)
    miss_count = times.sum(axis=0, dtype=np.float64) - hit_count
    beaten = miss_count - (drawn_above - hits_above + drawn_to - hits_to) / 2  # a tie is half one
    with np.errstate(divide="ignore", invalid="ignore"):
        auc = (weights * beaten).sum(axis=0) / (hit_count * miss_count)
        precision = (weights * hits_to / np.maximum(drawn_to, 1)).sum(axis=0) / hit_count
    return np.where((hit_count > 0) & (miss_count > 0), [auc, precision], np.nan)


def _counts_at(times: Array, ranked: Array, thresholds: Array) -> tuple[Array, Array]:
    """Number of ranked clips drawn before and up to each threshold: (thresholds, draws)."""
    totals = np.concatenate([np.zeros_like(times[:1]), np.cumsum(times, axis=0)])
    before, up_to = (np.searchsorted(ranked, thresholds, side) for side in ("left", "right"))
    return totals[before].astype(np.float64), totals[up_to].astype(np.float64)


def _drawn_multiclass(
    classes: tuple[str, ...], truth: Array, predicted: Array, times: Array
) -> dict[str, Array]:
    chosen = predicted.argmax(axis=1)
    right = truth == chosen
    one_hot = np.eye(len(classes), dtype=np.float32)
    true, claimed = times @ one_hot[truth], times @ one_hot[chosen]
    hits = times @ (one_hot[truth] * right[:, None])
    f1 = _f1(hits.astype(np.float64), true, claimed)
    return {
        "accuracy": hits.sum(axis=1, dtype=np.float64) / times.sum(axis=1),
        "macro_f1": np.mean(f1, axis=1, where=true > 0),
    }


def _drawn_regression(
    _: tuple[str, ...], truth: Array, predicted: Array, times: Array
) -> dict[str, Array]:
    clips = np.arange(len(truth))
    rows = [np.repeat(clips, of_draw.astype(np.intp)) for of_draw in times]
    drawn = [_r2(truth[of_draw], predicted[of_draw]).mean() for of_draw in rows]
    return {"r2": np.array(drawn)}


def _drawn_key(
    classes: tuple[str, ...], truth: Array, predicted: Array, times: Array
) -> dict[str, Array]:
    each = _key_scores(classes)[truth, predicted.argmax(axis=1)]
    plain = _drawn_multiclass(classes, truth, predicted, times)
    return {"weighted": times @ each / times.sum(axis=1), "accuracy": plain["accuracy"]}


_DRAWN_SCORERS: dict[Kind, Callable[[tuple[str, ...], Array, Array, Array], dict[str, Array]]] = {
    "multilabel": _drawn_multilabel,
    "multiclass": _drawn_multiclass,
    "regression": _drawn_regression,
    "key": _drawn_key,
}


# --- Scores ---


def _multilabel(classes: tuple[str, ...], truth: Array, predicted: Array) -> Scores:
    positives = truth.sum(axis=0)
    scored = (positives > 0) & (positives < len(truth))
    if not scored.any():
        return Scores({"roc_auc": np.nan, "average_precision": np.nan}, left_out=classes)
    truth, predicted = truth[:, scored], predicted[:, scored]
    auc = np.atleast_1d(sk.roc_auc_score(truth, predicted, average=None))
    precision = np.atleast_1d(sk.average_precision_score(truth, predicted, average=None))
    names = [name for name, ok in zip(classes, scored, strict=True) if ok]
    return Scores(
        {"roc_auc": float(auc.mean()), "average_precision": float(precision.mean())},
        {
            name: {"average_precision": float(p), "roc_auc": float(a)}
            for name, p, a in zip(names, precision, auc, strict=True)
        },
        tuple(name for name, ok in zip(classes, scored, strict=True) if not ok),
    )


def _multiclass(classes: tuple[str, ...], truth: Array, predicted: Array) -> Scores:
    chosen = predicted.argmax(axis=1)
    confusion = sk.confusion_matrix(truth, chosen, labels=np.arange(len(classes)))
    hits, true, claimed = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = _f1(hits, true, claimed)
    present = true > 0
    return Scores(
        {"accuracy": float(hits.sum() / len(truth)), "macro_f1": float(f1[present].mean())},
        {name: {"f1": float(f)} for name, f, ok in zip(classes, f1, present, strict=True) if ok},
        tuple(name for name, ok in zip(classes, present, strict=True) if not ok),
        confusion.tolist(),
    )


def _f1(hits: Array, true: Array, claimed: Array) -> Array:
    """F1 of each class, from its numbers of hits, true clips and predicted clips."""
    f1: Array = 2 * hits / np.maximum(true + claimed, 1)
    return f1


def _r2(truth: Array, predicted: Array) -> Array:
    """R2 of each target; 0 for a target of constant value, as for a constant prediction."""
    truth = truth.astype(np.float64)
    missed = np.square(truth - predicted).sum(axis=0)
    spread = np.square(truth - truth.mean(axis=0)).sum(axis=0)
    spread[(truth == truth[0]).all(axis=0)] = 0  # without rounding errors
    r2: Array = 1 - np.divide(missed, spread, out=np.ones_like(missed), where=spread > 0)
    return r2


def _regression(classes: tuple[str, ...], truth: Array, predicted: Array) -> Scores:
    r2 = _r2(truth, predicted)
    each = {name: {"r2": float(value)} for name, value in zip(classes, r2, strict=True)}
    return Scores({"r2": float(np.mean(r2))}, each)


@cache
def _key_scores(classes: tuple[str, ...]) -> Array:
    """Scores of predicted keys (columns) for true keys (rows)."""
    from mir_eval.key import weighted_score

    return np.array([[weighted_score(a, b) for b in classes] for a in classes])


def _key(classes: tuple[str, ...], truth: Array, predicted: Array) -> Scores:
    plain = _multiclass(classes, truth, predicted)
    weighted = float(_key_scores(classes)[truth, predicted.argmax(axis=1)].mean())
    values = {"weighted": weighted, "accuracy": plain.values["accuracy"]}
    return Scores(values, plain.per_class, plain.left_out, plain.confusion)


_SCORERS: dict[Kind, Callable[[tuple[str, ...], Array, Array], Scores]] = {
    "multilabel": _multilabel,
    "multiclass": _multiclass,
    "regression": _regression,
    "key": _key,
}
