"""Scores of predictions, with bootstrap intervals."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk
from sklearn.exceptions import UndefinedMetricWarning

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
    """How good predictions are.

    Attributes
    ----------
    values
        By metric; the primary one first.
    per_class
        By class: average precision and ROC-AUC of a tag, F1 of a class, R2 of a target.
    left_out
        Classes that cannot be scored (no positive example, or nothing else), and are not in the
        averages.
    confusion
        Of classes: rows are true, columns predicted; else None.
    """

    values: dict[str, float]
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    confusion: list[list[int]] | None = None


def score(kind: Kind, classes: tuple[str, ...], truth: Array, predicted: Array) -> Scores:
    """Score predictions.

    Parameters
    ----------
    kind
        Of the task.
    classes
        Names of the columns of `predicted`.
    truth
        (n,) class numbers; or (n, classes) of 0 and 1, or of values.
    predicted
        (n, classes): probabilities or scores, or values.

    Returns
    -------
    Scores
        multilabel: macro ROC-AUC and macro average precision. multiclass: accuracy, macro-F1.
        regression: mean R2, and that of each target. key: mir_eval's weighted score, accuracy.
    """
    return _SCORERS[kind](classes, truth, predicted)


def intervals(
    kind: Kind, classes: tuple[str, ...], truth: Array, predicted: Array, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of each metric, over clips drawn with replacement."""
    rng = np.random.default_rng(seed)
    score_rows = _tags_scorer(truth, predicted) if kind == "multilabel" else None
    drawn = []
    for rows in rng.integers(len(truth), size=(BOOTSTRAP_SAMPLES, len(truth))):
        if score_rows is not None:
            drawn.append(score_rows(rows))
        else:
            drawn.append(score(kind, classes, truth[rows], predicted[rows]).values)
    edge = (100 - INTERVAL_PERCENT) / 2
    bounds = {}
    for name in drawn[0]:
        low, high = np.nanpercentile([values[name] for values in drawn], [edge, 100 - edge])
        bounds[name] = (float(low), float(high))
    return bounds


def _tags_scorer(truth: Array, predicted: Array) -> Callable[[Array], dict[str, float]]:
    """Macro ROC-AUC and average precision of rows, sorted only once: a bootstrap of many tags.

    A row that is drawn twice counts twice, and predictions that are equal share a threshold.
    """
    order = np.argsort(-predicted, axis=0, kind="stable")
    positive = np.take_along_axis(truth, order, 0) > 0
    ranked = np.take_along_axis(predicted, order, 0)
    places = np.arange(len(ranked))[:, None]
    new = np.r_[np.ones((1, ranked.shape[1]), bool), ranked[1:] != ranked[:-1]]
    first = np.maximum.accumulate(np.where(new, places, 0), axis=0)
    final = np.r_[new[1:], np.ones((1, ranked.shape[1]), bool)]
    last = np.minimum.accumulate(np.where(final, places, len(ranked))[::-1], axis=0)[::-1]

    def score_rows(rows: Array) -> dict[str, float]:
        weights = np.bincount(rows, minlength=len(ranked))[order].astype(np.float64)
        hits, misses = np.cumsum(weights * positive, 0), np.cumsum(weights * ~positive, 0)
        hits_to, misses_to = np.take_along_axis(hits, last, 0), np.take_along_axis(misses, last, 0)
        hits_before = np.take_along_axis(np.r_[np.zeros((1, hits.shape[1])), hits], first, 0)
        scored = (hits[-1] > 0) & (misses[-1] > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            above = (hits_before + hits_to) / 2
            auc = (weights * ~positive * above).sum(0) / (hits[-1] * misses[-1])
            precision = np.nan_to_num(hits_to / (hits_to + misses_to))
            average_precision = (weights * positive * precision).sum(0) / hits[-1]
        if not scored.any():
            return {"roc_auc": np.nan, "average_precision": np.nan}
        return {
            "roc_auc": float(auc[scored].mean()),
            "average_precision": float(average_precision[scored].mean()),
        }

    return score_rows


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
    f1 = 2 * hits / np.maximum(true + claimed, 1)
    present = true > 0
    return Scores(
        {"accuracy": float(hits.sum() / len(truth)), "macro_f1": float(f1[present].mean())},
        {name: {"f1": float(f)} for name, f, ok in zip(classes, f1, present, strict=True) if ok},
        tuple(name for name, ok in zip(classes, present, strict=True) if not ok),
        confusion.tolist(),
    )


def _regression(classes: tuple[str, ...], truth: Array, predicted: Array) -> Scores:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        r2 = sk.r2_score(truth, predicted, multioutput="raw_values")
    each = {name: {"r2": float(value)} for name, value in zip(classes, r2, strict=True)}
    return Scores({"r2": float(np.mean(r2))}, each)


def _key(classes: tuple[str, ...], truth: Array, predicted: Array) -> Scores:
    from mir_eval.key import weighted_score

    scores = np.array([[weighted_score(a, b) for b in classes] for a in classes])
    chosen = predicted.argmax(axis=1)
    plain = _multiclass(classes, truth, predicted)
    weighted = float(scores[truth, chosen].mean())
    values = {"weighted": weighted, "accuracy": plain.values["accuracy"]}
    return Scores(values, plain.per_class, plain.left_out, plain.confusion)


_SCORERS: dict[Kind, Callable[[tuple[str, ...], Array, Array], Scores]] = {
    "multilabel": _multilabel,
    "multiclass": _multiclass,
    "regression": _regression,
    "key": _key,
}
