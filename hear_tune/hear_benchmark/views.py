"""Three views of the scene embeddings that heareval left, with intervals.

The first is heareval's own probe, which standardises nothing and predicts the test clips, or each
fold. The others are classifiers across groups (`hear_tune.probe.across`): logistic regression on
standardised embeddings, and the nearest neighbour.
"""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.files import write_whole
from ..common.progress import say
from ..datasets.task import Clip, Task, TaskError
from ..probe.features import Features
from ..probe.metrics import intervals, score
from ..probe.protocols import (
    KNN,
    LOGISTIC,
    Predictions,
    Protocol,
    encode_targets,
    run_protocol,
)
from .make_task import GROUPS
from .results import (
    DONE_FILE,
    EMBEDDED_FILE,
    METADATA_FILE,
    VOCABULARY_FILE,
    Result,
    finished,
    grid,
    official_cells,
    read_json,
    result_of,
    task_title,
    titles,
)

HEAREVAL = "heareval"
SCENE = "scene"
PROTOCOLS: tuple[Protocol, ...] = (LOGISTIC, KNN)

Interval = tuple[float, float]
Scored = dict[str, Any]  # score; interval

_SHUFFLE_SEED = 0  # heareval's, of the clips in a split
_PREDICTIONS = ".predictions.pkl"
_OUR_METRICS = {
    "top1_acc": "accuracy",
    "pitch_acc": "accuracy",
    "aucroc": "roc_auc",
    "mAP": "average_precision",
}


def collect_views(embeddings_dir: Path) -> list[Result]:
    """Collect heareval's scores, and score all scene embeddings across groups.

    The scores are kept beside the embeddings.

    Parameters
    ----------
    embeddings_dir : Path
        Output of ``hear-tune hear``.

    Returns
    -------
    list of dict
        JSON-ready, by view, model and task: ``view``, "heareval" for tasks that it has scored, or a
        protocol of ``hear-tune probe``; ``model``, ``folder``, ``identity``, ``task``, ``mode``,
        ``clips`` and ``groups``, their numbers; ``embedding_size``, ``metric``, ``score`` and
        ``interval``, its low and high end, or None for events. Rows of heareval are of all its
        metrics, and also have ``grid_points``, ``leaderboard`` and ``leaderboard_task``, as in
        `hear_tune.hear_benchmark.results.collect`.
    """
    return [*_heareval_rows(embeddings_dir), *_protocol_rows(embeddings_dir)]


def _heareval_rows(embeddings_dir: Path) -> Iterator[Result]:
    for model, folder in finished(embeddings_dir, DONE_FILE):
        result = result_of(model, folder)
        for number, (metric, value) in enumerate(result["scores"].items()):
            yield {
                "view": HEAREVAL,
                **_facts(model, folder),
                "metric": metric,
                "score": value,
                "interval": _heareval_interval(folder, metric, value),
                "grid_points": result["grid_points"],
                "leaderboard": {} if number else result["leaderboard"],
                "leaderboard_task": result["leaderboard_task"],
            }


def _heareval_interval(folder: Path, metric: str, value: float) -> Interval | None:
    """Return the interval around a score, of all test clips, though scores are means of folds."""
    if metric not in _OUR_METRICS or not any(folder.glob(f"*{_PREDICTIONS}")):
        return None
    low, high = _kept(folder, HEAREVAL, DONE_FILE, _heareval)[_OUR_METRICS[metric]]["interval"]
    return min(low, value), max(high, value)


def _protocol_rows(embeddings_dir: Path) -> Iterator[Result]:
    for protocol in PROTOCOLS:
        across = partial(_across, protocol=protocol)
        for model, folder in finished(embeddings_dir, EMBEDDED_FILE):
            if read_json(folder / METADATA_FILE)["embedding_type"] != SCENE:
                continue
            try:
                scores = _kept(folder, protocol.name, EMBEDDED_FILE, across)
            except TaskError as error:
                say(f"  left out: {error}")
                continue
            metric = next(iter(scores))
            facts = _facts(model, folder)
            yield {"view": protocol.name, **facts, "metric": metric, **scores[metric]}


def _facts(model: dict[str, Any], folder: Path) -> Result:
    metadata = read_json(folder / METADATA_FILE)
    task = read_task(folder)
    _, size = read_json(folder / f"{metadata['splits'][0]}.embedding-dimensions.json")
    return {
        "model": model["name"],
        "folder": model["folder"],
        "identity": model["identity"],
        "task": task.name,
        "mode": metadata.get("mode", ""),
        "clips": len(task.clips),
        "groups": len({clip.group for clip in task.clips if clip.group}),
        "embedding_size": size,
    }


def _kept(
    folder: Path, view: str, source: str, predict: Callable[[Path], tuple[Task, Predictions]]
) -> dict[str, Scored]:
    """Return the scores of a view by metric, computed once for each state of their source."""
    file = folder / f"{view}-view.json"
    if not file.exists() or file.stat().st_mtime_ns < (folder / source).stat().st_mtime_ns:
        say(f"{folder.parent.name} {folder.name}: {view}")
        write_whole(file, json.dumps(_score(*predict(folder)), indent=1) + "\n")
    scores: dict[str, Scored] = read_json(file)
    return scores


def _score(task: Task, predictions: Predictions) -> dict[str, Scored]:
    truth, predicted = predictions.truth, predictions.predicted
    values = score(task.kind, task.classes, truth, predicted).values
    bounds = intervals(task.kind, task.classes, truth, predicted, groups=predictions.groups)
    return {name: {"score": value, "interval": bounds[name]} for name, value in values.items()}


# --- What heareval leaves ---


def read_task(folder: Path) -> Task:
    """Read a scene task from the folder of its embeddings; clips are the embeddings' files."""
    metadata = read_json(folder / METADATA_FILE)
    vocabulary = pd.read_csv(
        folder / VOCABULARY_FILE, dtype={"label": str}, keep_default_na=False
    ).sort_values("idx")
    clips = [
        Clip(
            folder / split / f"{name}.embedding.npy",
            split,
            tuple(map(str, labels)),
            group=metadata.get(GROUPS, {}).get(split, {}).get(name, ""),
        )
        for split in metadata["splits"]
        for name, labels in read_json(folder / f"{split}.json").items()
    ]
    classes = tuple(map(str, vocabulary["label"]))
    return Task(metadata["task_name"], metadata["prediction_type"], classes, tuple(clips))


def _across(folder: Path, protocol: Protocol) -> tuple[Task, Predictions]:
    task = read_task(folder)
    scenes = tuple(np.load(clip.path)[None] for clip in task.clips)
    return task, run_protocol(task, Features(task.clips, scenes, {}, {}), protocol, seed=0)


def _heareval(folder: Path) -> tuple[Task, Predictions]:
    """Read the predictions of heareval's probes for all test clips."""
    task = read_task(folder)
    draw = random.Random(_SHUFFLE_SEED)
    tested: list[Clip] = []
    predicted = []
    for split in read_json(folder / METADATA_FILE)["splits"]:
        clips = list(task.of(split))
        draw.shuffle(clips)
        file = folder / f"{split}{_PREDICTIONS}"
        if file.exists():
            stored = pickle.loads(file.read_bytes())  # heareval loads others of this folder itself
            if not torch.equal(stored["target"].long(), _one_hot(task, clips)):
                raise ValueError(f"{file}: not of the labels in {split}.json")
            tested += clips
            predicted.append(stored["prediction"].numpy())
    groups = tuple(clip.group for clip in tested)
    truth = encode_targets(task, tested).numpy()
    return task, Predictions(truth, np.concatenate(predicted), (), (), groups)


def _one_hot(task: Task, clips: Sequence[Clip]) -> Tensor:
    targets = encode_targets(task, clips).long()
    return targets if targets.ndim == 2 else F.one_hot(targets, len(task.classes))


# --- Tables ---


def view_tables(rows: Iterable[Result]) -> str:
    """Format a Markdown table for each view: a row per task, a column per model.

    Parameters
    ----------
    rows : iterable of dict
        As `collect_views` returns them.

    Returns
    -------
    str
        Scores with their intervals. After heareval's scores come those of the leaderboard, with a
        tilde where the task is the same, but its data or folds are not.
    """
    rows = list(rows)
    views = dict.fromkeys(row["view"] for row in rows)
    return "\n\n".join(_view_table([row for row in rows if row["view"] == view]) for view in views)


def _view_table(rows: Sequence[Result]) -> str:
    own = titles(rows)
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    official: dict[str, None] = {}
    for row in rows:
        cell = cells.setdefault((task_title(row), row["metric"]), {})
        cell[own[row["folder"]]] = f"{row['score']:.3f}" + (
            " [{:.3f}, {:.3f}]".format(*row["interval"]) if row["interval"] else ""
        )
        if "leaderboard" in row:
            cell |= official_cells(row)
            official |= dict.fromkeys(row["leaderboard"])
    table = grid(["task", "metric"], [*sorted(own.values()), *official], cells)
    return f"**{_heading(rows)}**\n\n{table}"


def _heading(rows: Sequence[Result]) -> str:
    points = sorted({row["grid_points"] for row in rows if "grid_points" in row})
    named = " or ".join(map(str, points)) + (" grid point" if points == [1] else " grid points")
    return f"{rows[0]['view']}, {named}" if points else str(rows[0]["view"])
