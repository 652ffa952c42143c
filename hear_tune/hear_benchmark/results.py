"""Tabulate heareval's scores beside those of the official leaderboard."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.markdown import markdown_table

MODEL_FILE = "model.json"  # beside the folder that heareval makes for a model
METADATA_FILE = "task_metadata.json"
VOCABULARY_FILE = "labelvocabulary.csv"
EMBEDDED_FILE = ".done.embeddings"
SCORES_FILE = "test.predicted-scores.json"
DONE_FILE = "prediction-done.json"

Result = dict[str, Any]

# https://hearbenchmark.com/hear-leaderboard.html, 2023; by task and mode.
_OFFICIAL_MODELS = ("PaSST base", "OpenL3", "CREPE", "GURA fuse cat")
_OFFICIAL_SCORES = {
    ("beijing_opera", "full"): (0.966, 0.975, 0.928, 0.966),
    ("tfds_gtzan", "full"): (0.883, 0.879, 0.645, 0.805),
    ("tfds_gtzan_music_speech", "full"): (0.977, 0.969, 0.929, 0.928),
    ("maestro", "5h"): (None, 0.017, 0.401, 0.441),
    ("mridangam_stroke", "full"): (0.965, 0.967, 0.898, 0.972),
    ("mridangam_tonic", "full"): (0.819, 0.937, 0.824, 0.923),
    ("nsynth_pitch", "5h"): (0.256, 0.560, 0.870, 0.846),
    ("nsynth_pitch", "50h"): (0.541, 0.731, 0.900, 0.885),
}
LEADERBOARD = {
    task: {m: s for m, s in zip(_OFFICIAL_MODELS, scores, strict=True) if s is not None}
    for task, scores in _OFFICIAL_SCORES.items()
}
# Tasks of `hear-tune hear make-task` that are official ones, but for their data or folds.
_OFFICIAL_TASKS = {
    ("gtzan", "10-fold"): ("tfds_gtzan", "full"),
    ("gtzan-music-speech", "full"): ("tfds_gtzan_music_speech", "full"),
    ("mridangam-stroke", "full"): ("mridangam_stroke", "full"),
    ("mridangam-tonic", "full"): ("mridangam_tonic", "full"),
    ("nsynth-pitch", "full"): ("nsynth_pitch", "50h"),
    ("nsynth-pitch", "published"): ("nsynth_pitch", "50h"),
}


def collect(embeddings_dir: Path) -> list[Result]:
    """Collect the scores of all completed tasks and models in a folder.

    Parameters
    ----------
    embeddings_dir : Path
        Output of ``hear-tune hear``: one folder per model, which holds heareval's.

    Returns
    -------
    list of dict
        JSON-ready, by model and task: ``model``, ``folder``, ``identity``, ``task``, ``mode``,
        ``scores`` by metric, starting with the one that heareval selects by; ``deviations``,
        standard deviations over folds, if any; ``embedding_size``, ``grid_points``; and
        ``leaderboard``, the official scores of the first metric, with ``leaderboard_task``, which
        has another name where its data or folds are not the same.
    """
    return [result_of(*found) for found in finished(embeddings_dir, DONE_FILE)]


def finished(embeddings_dir: Path, mark: str) -> Iterator[tuple[dict[str, Any], Path]]:
    """Yield models and folders of their tasks, as far as these have a file of a finished step."""
    for model in sorted(embeddings_dir.glob(f"*/{MODEL_FILE}")):
        for path in sorted(model.parent.glob(f"*/*/{mark}")):
            yield read_json(model), path.parent


def result_of(model: dict[str, Any], folder: Path) -> Result:
    """Return heareval's scores of a model and task; see `collect`."""
    metadata = read_json(folder / METADATA_FILE)
    tested, done = read_json(folder / SCORES_FILE), read_json(folder / DONE_FILE)
    task, mode = metadata["task_name"], metadata.get("mode", "")
    official = _OFFICIAL_TASKS.get((task, mode), (task, mode))
    metrics = metadata["evaluation"]
    folds = tested.get("aggregated_scores")
    if folds is None:
        (split,) = (value for value in tested.values() if "test_loss" in value)
        scores = {metric: split[f"test_{metric}"] for metric in metrics}
        deviations = {}
    else:
        scores = {metric: folds[f"test_{metric}_mean"] for metric in metrics}
        deviations = {metric: folds[f"test_{metric}_std"] for metric in metrics}
    return {
        "model": model["name"],
        "folder": model["folder"],
        "identity": model["identity"],
        "task": task,
        "mode": mode,
        "scores": scores,
        "deviations": deviations,
        "embedding_size": done["embedding_size"],
        "grid_points": done["grid_points"],
        "leaderboard": LEADERBOARD.get(official, {}),
        "leaderboard_task": official[0],
    }


def read_json(path: Path) -> Any:
    """Read one of heareval's files."""
    return json.loads(path.read_text(encoding="utf-8"))


def table(results: Iterable[Result]) -> str:
    """Format scores as a Markdown table.

    The best score is not marked, because scores from different grids are not comparable.

    Parameters
    ----------
    results : iterable of dict
        As `collect` returns them.

    Returns
    -------
    str
        A row per task and metric; a column per model, then those of the leaderboard.
    """
    results = list(results)
    own = titles(results)
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    official: dict[str, None] = {}
    for result in results:
        official.update(dict.fromkeys(result["leaderboard"]))
        for index, (metric, score) in enumerate(result["scores"].items()):
            row = rows.setdefault((task_title(result), metric), {})
            deviation = result["deviations"].get(metric)
            row[own[result["folder"]]] = f"{score:.3f}" + (
                f" ± {deviation:.3f}" if deviation else ""
            )
            if index == 0:
                row.update(official_cells(result))
    return grid(["task", "metric"], [*sorted(own.values()), *official], rows)


def official_cells(result: Result) -> dict[str, str]:
    """Scores of the leaderboard, with a tilde if their task has other data or folds."""
    about = "" if result["leaderboard_task"] == result["task"] else "~"
    return {name: f"{about}{score:.3f}" for name, score in result["leaderboard"].items()}


def task_title(result: Result) -> str:
    """Name of a task, with its mode unless that is the full task."""
    task, mode = result["task"], result["mode"]
    return str(task) if mode in ("", "full") else f"{task} {mode}"


def titles(results: Sequence[Result]) -> dict[str, str]:
    """Title models by folder; models of the same name get the folder in the title."""
    names = {result["folder"]: result["model"] for result in results}
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    return {f: f"{name} ({f})" if name in shared else name for f, name in names.items()}


def grid(
    head: Sequence[str],
    columns: Sequence[str],
    rows: Mapping[tuple[str, ...], Mapping[str, str]],
) -> str:
    """Format a Markdown table of rows in order, with a dash for what is missing."""
    lines = [[*head, *columns]]
    lines += [
        [*names, *(cells.get(column, "–") for column in columns)]
        for names, cells in sorted(rows.items())
    ]
    return markdown_table(lines)
