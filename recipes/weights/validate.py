#!/usr/bin/env python3
"""How well a linear classifier tells clips apart by a checkpoint's embeddings.

For trials: quick, and blind to test splits. A logistic regression on standardised embeddings of the
training and validation clips is cross-validated in five folds of groups, so that what is asked
about was never heard: pitch classes for instruments, instruments for pitches, takes for digits.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hear_tune import baselines, load_model
from hear_tune.baselines import BASELINES
from hear_tune.datasets.catalog import get_data_set
from hear_tune.datasets.tables import read_table
from hear_tune.datasets.task import TEST
from hear_tune.model import EmbeddingModel
from hear_tune.network import LayeredEncoder
from hear_tune.probe.features import embed_task

FOLDS = 5


def main() -> None:
    """Print and save the scores of checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of philharmonia and fsdd")
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT")
    parser.add_argument("--baselines", nargs="*", default=[], choices=sorted(BASELINES))
    parser.add_argument("--variant", help="also this one, with random weights")
    parser.add_argument("--layers", help="as of hear-tune embed")
    parser.add_argument("--cache", type=Path, default=Path("validation"), metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line per model")
    options = parser.parse_args()
    models = {name: baselines.load_model(name=name) for name in options.baselines}
    if options.variant:
        models["random"] = load_model(variant=options.variant, layers=options.layers)
    for checkpoint in options.checkpoints:
        models[checkpoint] = load_model(checkpoint, layers=options.layers)
    for name, model in models.items():
        scores = {task: validate(task, options.data, model, options.cache) for task in GROUPS}
        print(name, *(f"{task} {score:.3f}" for task, score in scores.items()), sep="  ")
        if options.json:
            line = {"model": name, "layers": list(model.layers), "pairs": pairs(model.encoder)}
            with options.json.open("a") as file:
                file.write(json.dumps(line | scores) + "\n")


def pairs(encoder: LayeredEncoder) -> int:
    """How many pairs an encoder was trained on, in all runs that made its weights."""
    record: dict[str, Any] | None = getattr(encoder, "training_record", None)
    count = 0
    while record:
        count += record["pairs"]
        record = record.get("before")
    return count


def validate(name: str, data: Path, model: EmbeddingModel, folder: Path) -> float:
    """Accuracy on a task's training and validation clips, by cross-validation."""
    data_set = get_data_set(name)
    task = data_set.load(data / data_set.folder)
    clips = tuple(clip for clip in task.clips if clip.split != TEST)
    features = embed_task(replace(task, clips=clips), model, folder)
    vectors = np.stack([windows.mean(axis=0) for windows in features.windows])
    labels = np.array([clip.labels[0] for clip in features.clips])
    groups = np.array([GROUPS[name](clip.path) for clip in features.clips])
    warnings.simplefilter("ignore", ConvergenceWarning)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    predicted: npt.NDArray[np.str_] = cross_val_predict(
        probe, vectors, labels, groups=groups, cv=GroupKFold(FOLDS)
    )
    return float(np.mean(predicted == labels))


def pitch_class(note: Path) -> str:
    """Of a note of Philharmonia; of percussion, the kind that is struck."""
    row = _table(note.parents[2])[note]
    pitch = row["midi_pitch"]
    return str(int(pitch) % 12) if pitch else row["articulation"].split(":")[0]


@cache
def _table(root: Path) -> dict[Path, dict[str, str]]:
    return {root / row["file"]: row for row in read_table(root / "metadata.csv")}


def instrument(note: Path) -> str:
    """That plays a note of Philharmonia."""
    return note.parent.name


def take(recording: Path) -> str:
    """Number of a recording of a digit."""
    return recording.stem.rpartition("_")[2]


GROUPS: dict[str, Callable[[Path], str]] = {
    "philharmonia-instrument": pitch_class,
    "philharmonia-pitch": instrument,
    "fsdd-digit": take,
}

if __name__ == "__main__":
    main()
