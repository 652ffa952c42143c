"""Results of probes: one JSON per run with all that repeats it, and tables of several."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

from ..datasets.task import Task
from ..files import write_whole
from ..model import EmbeddingModel
from .features import Features
from .metrics import INTERVAL_PERCENT, PRIMARY, intervals, score
from .protocols import Outcome, Protocol, run_protocol

FORMAT = "hear-tune probe 1"
NAMES = {
    "accuracy": "accuracy",
    "average_precision": "AP",
    "f1": "F1",
    "macro_f1": "macro-F1",
    "r2": "R²",
    "roc_auc": "ROC-AUC",
    "weighted": "weighted score",
}

Result = dict[str, Any]


class ResultError(ValueError):
    """A file is not the result of a probe."""


def probe(
    task: Task,
    features: Features,
    model: EmbeddingModel,
    protocol: Protocol,
    seeds: Sequence[int],
    name: str,
) -> Result:
    """Run a protocol with several seeds and gather all that is known about it.

    Parameters
    ----------
    task
        Whose labels.
    features
        From `hear_tune.probe.features.embed_task`, or some layers of them.
    model
        That made them.
    protocol
        One of ``hear_tune.probe.protocols.PROTOCOLS``.
    seeds
        Of weights, orders and windows; the results are their mean and deviation.
    name
        Of the model, for tables.

    Returns
    -------
    dict
        JSON-ready. Intervals, tables per class and confusion are of the first seed.

    Raises
    ------
    TaskError
        If a split has no clips.
    """
    outcomes = [run_protocol(task, features, protocol, seed) for seed in seeds]
    scores = [score(task.kind, task.classes, o.truth, o.predicted) for o in outcomes]
    first = outcomes[0]
    counts = Counter(clip.split for clip in features.clips)
    bounds = intervals(task.kind, task.classes, first.truth, first.predicted)
    return {
        "format": FORMAT,
        "task": task.name,
        "kind": task.kind,
        "split": task.split,
        "classes": list(task.classes),
        "clips": {split: counts[split] for split in task.splits},
        "failed": features.failed,
        "model": name,
        "identity": model.identity,
        "training": getattr(model.encoder, "training_record", {}),
        "layers": list(features.layers),
        "embedding_size": int(features.windows[0].shape[1]),
        "hop_samples": model.hop_samples,
        "protocol": protocol.name,
        "grid_points": len(protocol.grid),
        "seeds": list(seeds),
        "scores": {
            metric: {
                "mean": float(np.mean([s.values[metric] for s in scores])),
                "deviation": float(np.std([s.values[metric] for s in scores])),
                "each": [s.values[metric] for s in scores],
                "interval": bounds[metric],
            }
            for metric in scores[0].values
        },
        "interval_percent": INTERVAL_PERCENT,
        "chosen": [_chosen(outcome) for outcome in outcomes],
        "per_class": scores[0].per_class,
        "left_out_classes": list(scores[0].left_out),
        "confusion": scores[0].confusion,
        "versions": {
            "hear-tune": version("hear-tune"),
            "torch": torch.__version__,
            "scikit-learn": sklearn.__version__,
            "python": platform.python_version(),
        },
    }


def _chosen(outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {**asdict(settings), "valid": value}
        for settings, value in zip(outcome.settings, outcome.valid, strict=True)
    ]


def save(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a result as JSON, whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, json.dumps(result, indent=1) + "\n")


def load(path: str | os.PathLike[str]) -> Result:
    """Read a result.

    Raises
    ------
    ResultError
        If the file is no result of a probe.
    """
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ResultError(f"{os.fspath(path)}: cannot be read as a result ({error})") from error
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise ResultError(f"{os.fspath(path)}: not a result of hear-tune probe")
    try:
        _check(result)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ResultError(f"{os.fspath(path)}: a damaged result ({reason})") from error
    return result


_TEXTS = ("task", "kind", "split", "model", "identity", "protocol")
_LISTS = ("classes", "layers", "seeds")


def _check(result: Result) -> None:
    """Meet what tables and pictures are made of."""
    for name in (*_TEXTS, *_LISTS):
        if not isinstance(result[name], list if name in _LISTS else str):
            raise TypeError(f"{name} is {result[name]!r}")
    if not result["layers"] or not all(isinstance(name, str) for name in result["layers"]):
        raise ValueError(f"layers is {result['layers']!r}")
    scores, per_class = result["scores"], list((result["per_class"] or {}).values())
    if primary(result) not in scores or any(row.keys() != per_class[0].keys() for row in per_class):
        raise ValueError("scores are missing")
    if unknown := {*scores, *(per_class[0] if per_class else [])} - NAMES.keys():
        raise ValueError(f"no such metric: {unknown}")
    numbers = [number for row in per_class for number in row.values()]
    for values in scores.values():
        low, high = values["interval"]
        numbers += [values["mean"], values["deviation"], low, high]
    if np.isinf(np.array([result["embedding_size"], *numbers], np.float64)).any():
        raise ValueError("scores are infinite")
    if result["confusion"]:
        shape = np.array(result["confusion"], np.uint32).shape
        if shape != (len(result["classes"]),) * 2:
            raise ValueError(f"confusion is {shape}")


def table(results: Iterable[Result]) -> str:
    """Markdown: one table per task, one row per model, layers and protocol."""
    return "\n\n".join(_task_table(title, rows) for title, rows in by_task(results).items())


def by_task(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results that can be compared, by the name of task and split."""
    tasks: dict[str, list[Result]] = {}
    for result in results:
        split = f" ({result['split']})" if result["split"] else ""
        tasks.setdefault(f"{result['task']}{split}", []).append(result)
    return tasks


def task_rows(results: Sequence[Result]) -> list[list[str]]:
    """The table of one task: its head, and a row per result."""
    metrics = list(results[0]["scores"])
    head = ["model", "layers", "size", "protocol", *(NAMES[metric] for metric in metrics)]
    rows = [
        [
            result["model"],
            layers_text(result),
            str(result["embedding_size"]),
            result["protocol"],
            *(cell(result, metric) for metric in metrics),
        ]
        for result in results
    ]
    return [head, *rows]


def layers_text(result: Result) -> str:
    """The layer of a result, or how many there are."""
    layers: list[str] = result["layers"]
    return layers[0] if len(layers) == 1 else f"{len(layers)} layers"


def _task_table(title: str, results: list[Result]) -> str:
    head, *rows = task_rows(results)
    lines = [f"**{title}**", "", _line(head), _line(["---"] * len(head)), *map(_line, rows)]
    return "\n".join(lines)


def cell(result: Result, metric: str) -> str:
    """A score with the deviation over seeds, if there are several, and its interval."""
    values = result["scores"][metric]
    low, high = values["interval"]
    deviation = f" ± {values['deviation']:.3f}" if len(result["seeds"]) > 1 else ""
    return f"{values['mean']:.3f}{deviation} [{low:.3f}, {high:.3f}]"


def primary(result: Result) -> str:
    """Name of the metric that a result is compared by."""
    return PRIMARY[result["kind"]]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
