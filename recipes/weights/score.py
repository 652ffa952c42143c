#!/usr/bin/env python3
"""Three views of embeddings on the training and validation clips of all sets at hand.

Clips are classified across groups by the protocols of ``hear-tune probe``: an instrument at another
pitch class, a pitch from another instrument, a digit from another speaker. The test clips, and the
last fold of sets with folds, are left alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hear_tune import EmbeddingModel, baselines, load_model
from hear_tune.datasets.catalog import get_data_set
from hear_tune.datasets.task import TEST, Task, folds
from hear_tune.probe import BASELINE_NAMES
from hear_tune.probe.features import embed_task
from hear_tune.probe.metrics import score
from hear_tune.probe.protocols import KNN, LOGISTIC, LOGISTIC_RAW, run_protocol

VIEWS = (LOGISTIC, LOGISTIC_RAW, KNN)
TASKS = {  # folder of the data, and split
    "philharmonia-instrument": ("philharmonia", None),
    "philharmonia-pitch": ("philharmonia", None),
    "fsdd-digit": ("fsdd", "speakers"),
    "nsynth-pitch": ("nsynth_test", None),
    "nsynth-family": ("nsynth_test", None),
    "mridangam-stroke": ("mridangam", None),
    "mridangam-tonic": ("mridangam", None),
    "gtzan-music-speech": ("gtzan_music_speech", None),
}


def main() -> None:
    """Print the scores of models, and append them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the data sets")
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help=f"weights, or {', '.join(BASELINE_NAMES)}"
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=[*TASKS], metavar="TASK")
    parser.add_argument("--layers", metavar="A,B", help="instead of the embedding")
    parser.add_argument("--cache", type=Path, default=Path(".hear-tune-cache"), metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line per model")
    options = parser.parse_args()
    tasks = {name: learnable(options.data, name) for name in options.tasks}
    for name in options.models:
        model = load(name, options.layers)
        record = getattr(model.encoder, "training_record", {})
        line = {"model": Path(name).name, "layers": model.layers, "pairs": pairs_seen(record)}
        for task in tasks.values():
            scores = [round(value, 4) for value in views(task, model, options.cache)]
            print(f"{name}: {task.name} {' / '.join(f'{s:.3f}' for s in scores)}", flush=True)
            line[task.name] = scores
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps(line) + "\n")


def learnable(data: Path, name: str) -> Task:
    """Load a task without its test clips."""
    folder, split = TASKS[name]
    task = get_data_set(name).load(data / folder, split)
    tested = folds(task)[-1] if folds(task) else TEST
    return replace(task, clips=tuple(clip for clip in task.clips if clip.split != tested))


def load(name: str, layers: str | None) -> EmbeddingModel:
    """Load a baseline, or weights by name or path."""
    if name in BASELINE_NAMES:
        return baselines.load_model(name=name)
    return load_model(name, layers=layers, precision="bfloat16")


def views(task: Task, model: EmbeddingModel, cache: Path) -> Iterator[float]:
    """Yield the accuracy of each view."""
    features = embed_task(task, model, cache, per="track")
    for protocol in VIEWS:
        found = run_protocol(task, features, protocol, seed=0)
        yield score(task.kind, task.classes, found.truth, found.predicted).values["accuracy"]


def pairs_seen(record: Mapping[str, Any]) -> int:
    """Count the pairs of a training and of those before it."""
    before = record.get("before")
    return int(record.get("pairs", 0)) + (pairs_seen(before) if before else 0)


if __name__ == "__main__":
    main()
