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

from ..common.files import write_whole
from ..common.progress import say
from ..datasets.task import Clip, Task
from ..probe.features import Features
from ..probe.metrics import intervals, score
from ..probe.protocols import KNN, LOGISTIC, Predictions, Protocol, run_protocol
from .make_task import GROUPS
from .results import (
    DONE_FILE,
    EMBEDDED_FILE,
    METADATA_FILE,
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

Scored = dict[str, Any]  # score; interval, as (low, high), of 95 %

_SHUFFLE_SEED = 0  # heareval's, of the clips in a split
_OUR_METRICS = {
    "top1_acc": "accuracy",
    "pitch_acc": "accuracy",
    "aucroc": "roc_auc",
    "mAP": "average_precision",
}


def collect_views(embeddings_dir: Path) -> list[Result]:
    """Score all scene embeddings in a folder. The scores are kept beside them.

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
        ``interval``. Rows of heareval also have ``grid_points``, ``leaderboard`` and
        ``leaderboard_task``, as in `hear_tune.hear_benchmark.results.collect`.
    """
    return [*_heareval_rows(embeddings_dir), *_protocol_rows(embeddings_dir)]


def _heareval_rows(embeddings_dir: Path) -> Iterator[Result]:
    for model, folder in finished(embeddings_dir, DONE_FILE):
        result = result_of(model, folder)
        metric, value = next(iter(result["scores"].items()))
        if metric in _OUR_METRICS:  # not of events
            ours = _kept(folder, HEAREVAL, DONE_FILE, _heareval)[_OUR_METRICS[metric]]
            low, high = ours["interval"]
            yield {
                "view": HEAREVAL,
                **_facts(model, folder),
                "metric": metric,
                "score": value,  # the mean of folds; the interval is of all clips
                "interval": (min(low, value), max(high, value)),
                "grid_points": result["grid_points"],
                "leaderboard": result["leaderboard"],
                "leaderboard_task": result["leaderboard_task"],
            }


def _protocol_rows(embeddings_dir: Path) -> Iterator[Result]:
    for protocol in PROTOCOLS:
        for model, folder in finished(embeddings_dir, EMBEDDED_FILE):
            if read_json(folder / METADATA_FILE)["embedding_type"] == SCENE:
                across = partial(_across, protocol=protocol)
                scores = _kept(folder, protocol.name, EMBEDDED_FILE, across)
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
    vocabulary = pd.read_csv(folder / "labelvocabulary.csv").sort_values("idx")
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
    truth, predicted, groups = [], [], []
    for split in read_json(folder / METADATA_FILE)["splits"]:
        clips = list(task.of(split))
        draw.shuffle(clips)
        file = folder / f"{split}.predictions.pkl"
        if not file.exists():
            continue
        tested = pickle.loads(file.read_bytes())  # heareval's own, as in its embeddings
        truth.append(tested["target"].numpy())
        predicted.append(tested["prediction"].numpy())
        groups += [clip.group for clip in clips]
    targets = np.concatenate(truth)
    if task.kind == "multiclass":
        targets = targets.argmax(axis=1)
    return task, Predictions(targets, np.concatenate(predicted), (), (), tuple(groups))


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
        low, high = row["interval"]
        cell = cells.setdefault((task_title(row),), {})
        cell[own[row["folder"]]] = f"{row['score']:.3f} [{low:.3f}, {high:.3f}]"
        if "leaderboard" in row:
            cell |= official_cells(row)
            official |= dict.fromkeys(row["leaderboard"])
    table = grid(["task"], [*sorted(own.values()), *official], cells)
    return f"**{_heading(rows)}**\n\n{table}"


def _heading(rows: Sequence[Result]) -> str:
    points = sorted({row["grid_points"] for row in rows if "grid_points" in row})
    named = " or ".join(map(str, points)) + (" grid point" if points == [1] else " grid points")
    return f"{rows[0]['view']}, {named}" if points else str(rows[0]["view"])
