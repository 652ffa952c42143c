"""Results of probes: one JSON per run, with all that is needed to repeat it, and tables."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

from ..common.errors import HearTuneError
from ..common.files import write_whole
from ..common.markdown import markdown_table
from ..datasets.task import SPLITS, Clip, Task
from ..embedding.model import EmbeddingModel
from ..networks.config import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from .features import Features
from .metrics import INTERVAL_PERCENT, PRIMARY, intervals, score
from .protocols import PROTOCOLS, Predictions, Protocol, example_samples, run_protocol

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


class ResultError(HearTuneError, ValueError):
    """A file is not a probe's result."""


def probe(
    task: Task,
    features: Features,
    model: EmbeddingModel,
    protocol: Protocol,
    seeds: Sequence[int],
    name: str,
    root: str | os.PathLike[str] = "",
    max_clips: int | None = None,
) -> Result:
    """Run a protocol with several seeds and describe the run.

    Parameters
    ----------
    task : Task
        The labels.
    features : Features
        From `hear_tune.probe.features.embed_task`, or some layers of them.
    model : EmbeddingModel
        The model of the features.
    protocol : Protocol
        One of ``hear_tune.probe.protocols.PROTOCOLS``.
    seeds : sequence of int
        Seeds of weights, orders and windows; scores are means and standard deviations over seeds.
    name : str
        Name of the model in tables.
    root : path-like
        Folder of the clips, which distinguishes data of the same name.
    max_clips : int, optional
        Largest number of clips per split, if the task was reduced.

    Returns
    -------
    dict
        JSON-ready. Scores, intervals and scores per class are of all seeds; the confusion matrix is
        of the first.

    Raises
    ------
    TaskError
        If a split has no clips, or all have the same label.
    """
    outcomes = [run_protocol(task, features, protocol, seed) for seed in seeds]
    scores = [score(task.kind, task.classes, o.truth, o.predicted) for o in outcomes]
    counts = Counter(clip.split for clip in features.clips)
    predicted = np.stack([outcome.predicted for outcome in outcomes])
    first = outcomes[0]
    bounds = intervals(task.kind, task.classes, first.truth, predicted, groups=first.groups)
    samples = example_samples(protocol, features)
    return {
        "format": FORMAT,
        "task": task.name,
        "root": os.fspath(root),
        "max_clips": max_clips,
        "kind": task.kind,
        "split": task.split,
        "labels_sha256": _labels_digest(task),
        "grouping": task.grouping,
        "classes": list(task.classes),
        "clips": {split: counts[split] for split in task.splits},
        "tested": len(first.truth),
        "failed": features.failed,
        "model": name,
        "identity": model.identity,
        "training": getattr(model.encoder, "training_record", {}),
        "layers": list(features.layers),
        "embedding_size": int(features.windows[0].shape[1]),
        "hop_samples": model.hop_samples,
        "protocol": protocol.name,
        "grid_points": len(protocol.grid),
        "example_seconds": None if samples is None else samples / SAMPLE_RATE_HZ,
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
        "per_class": {
            label: {
                metric: float(np.mean([s.per_class[label][metric] for s in scores]))
                for metric in of_class
            }
            for label, of_class in scores[0].per_class.items()
        },
        "left_out_classes": list(scores[0].left_out),
        "confusion": scores[0].confusion,
        "versions": {
            "hear-tune": version("hear-tune"),
            "torch": torch.__version__,
            "scikit-learn": sklearn.__version__,
            "python": platform.python_version(),
        },
    }


def _labels_digest(task: Task) -> str:
    """Digest of all clips, splits, labels and groups, whatever the working folder."""
    rows = sorted(map(_digest_row, task.clips))
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _digest_row(clip: Clip) -> tuple[object, ...]:
    row = (os.path.realpath(clip.path), clip.split, clip.labels, clip.values)
    return (*row, clip.group) if clip.group else row


def _chosen(outcome: Predictions) -> list[dict[str, Any]]:
    return [
        {**asdict(settings), "valid": value}
        for settings, value in zip(outcome.settings, outcome.valid, strict=True)
    ]


def save(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a result as JSON, atomically."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, json.dumps(result, indent=1) + "\n")


def load(path: str | os.PathLike[str]) -> Result:
    """Read a result.

    Raises
    ------
    ResultError
        If the file is not a probe's result.
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
    """Raise an error if tables and figures could not be made of a result."""
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
    for describe in _DETAILS.values():
        describe(result)
    if result["confusion"]:
        shape = np.array(result["confusion"], np.uint32).shape
        if shape != (len(result["classes"]),) * 2:
            raise ValueError(f"confusion is {shape}")


def table(results: Iterable[Result]) -> str:
    """Format Markdown: one table per task, one row per model, layers and protocol."""
    return "\n\n".join(_task_table(title, rows) for title, rows in by_task(results).items())


def by_task(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Group comparable results by title: task and split, and the kind if it differs."""
    results = list(results)
    kinds = {(result["task"], result["split"]): result["kind"] for result in results}
    tasks: dict[str, list[Result]] = {}
    for result in results:
        split = f" ({result['split']})" if result["split"] else ""
        last = kinds[result["task"], result["split"]]
        kind = "" if result["kind"] == last else f", {result['kind']}"
        tasks.setdefault(f"{result['task']}{split}{kind}", []).append(result)
    return tasks


def task_rows(results: Sequence[Result]) -> list[list[str]]:
    """Return the table of one task: the header, and a row per result.

    It has a column for the length of a training example if that differs between results of one
    protocol, columns for clips, data, labels and groups that differ between any results, and
    columns for other details that distinguish otherwise equal rows.
    """
    metrics = list(results[0]["scores"])
    details = _details_needed(results)
    head = ["model", "layers", "size", "protocol", *details, *(NAMES[m] for m in metrics)]
    rows = [
        [
            result["model"],
            layers_text(result),
            str(result["embedding_size"]),
            result["protocol"],
            *(_DETAILS[detail](result) for detail in details),
            *(cell(result, metric) for metric in metrics),
        ]
        for result in results
    ]
    return [head, *rows]


def row_names(results: Sequence[Result]) -> list[str]:
    """Name each result for figures, with the details that distinguish it."""
    details = _details_needed(results)
    return [
        ", ".join(
            [
                result["model"],
                layers_text(result),
                result["protocol"],
                *(f"{detail} {_DETAILS[detail](result)}" for detail in details),
            ]
        )
        for result in results
    ]


def _example_text(result: Result) -> str:
    """Seconds of a training example; one window in older results."""
    protocol = PROTOCOLS.get(result["protocol"])
    if protocol is None or not protocol.one_window:
        return "all"
    window = result.get("hop_samples", WINDOW_SAMPLES) / SAMPLE_RATE_HZ
    return f"{result.get('example_seconds') or window:.2f}"


def _clips_text(result: Result) -> str:
    counts = result.get("clips", {})
    order = [*SPLITS, *sorted(counts.keys() - set(SPLITS))]
    return " / ".join(f"{counts[split]:,}" for split in order if split in counts)


_EXAMPLE = "seconds"
_DETAILS: dict[str, Callable[[Result], str]] = {
    _EXAMPLE: _example_text,
    "which layers": lambda result: " ".join(result["layers"]),
    "points": lambda result: str(result.get("grid_points", "")),
    "seeds": lambda result: " ".join(map(str, result["seeds"])),
    "clips": _clips_text,
    "data": lambda result: str(result.get("root", "")),
    "labels": lambda result: result.get("labels_sha256", "")[:8],
    "groups": lambda result: str(result.get("grouping", "")),
    "weights": lambda result: result["identity"].rpartition("sha256:")[2][:8],
}
_DATA = ("clips", "data", "labels", "groups")  # scores on different data must not look comparable


def _details_needed(results: Sequence[Result]) -> list[str]:
    """Select the details that a table needs."""
    alike: dict[tuple[str, ...], list[Result]] = {}
    examples: dict[str, set[str]] = {}
    for result in results:
        look = (result["model"], layers_text(result), result["protocol"])
        alike.setdefault(look, []).append(result)
        examples.setdefault(result["protocol"], set()).add(_example_text(result))
    return [
        name
        for name, describe in _DETAILS.items()
        if any(len({describe(result) for result in rows}) > 1 for rows in alike.values())
        or (name in _DATA and len({describe(result) for result in results}) > 1)
        or (name == _EXAMPLE and any(len(texts) > 1 for texts in examples.values()))
    ]


def layers_text(result: Result) -> str:
    """Return the layer of a result, or the number of layers."""
    layers: list[str] = result["layers"]
    return layers[0] if len(layers) == 1 else f"{len(layers)} layers"


def _task_table(title: str, results: list[Result]) -> str:
    return f"**{title}**\n\n{markdown_table(task_rows(results))}"


def cell(result: Result, metric: str) -> str:
    """Format a score with its standard deviation over several seeds and its interval."""
    values = result["scores"][metric]
    low, high = values["interval"]
    deviation = f" ± {values['deviation']:.3f}" if len(result["seeds"]) > 1 else ""
    return f"{values['mean']:.3f}{deviation} [{low:.3f}, {high:.3f}]"


def primary(result: Result) -> str:
    """Return the primary metric of a result."""
    return PRIMARY[result["kind"]]
