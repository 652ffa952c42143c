#!/usr/bin/env python3
"""Score checkpoints by a linear classifier on their embeddings.

For trials, quickly and without the test splits: a logistic regression on standardised embeddings of
the training and validation clips is cross-validated in five folds. Groups of clips stay in one
fold: pitch classes for instruments, instruments for pitches, takes for digits.

With --test, for the final choice: the same classifier, fitted on all of those clips, scores the
test clips.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from hear_tune import baselines, load_model
from hear_tune.baselines import BASELINES
from hear_tune.datasets.catalog import get_data_set
from hear_tune.datasets.tables import read_table
from hear_tune.datasets.task import TEST
from hear_tune.embedding.model import EmbeddingModel
from hear_tune.networks.encoders import LayeredEncoder
from hear_tune.probe.features import embed_task

FOLDS = 5


def main() -> None:
    """Print and save the scores of checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="holds philharmonia and fsdd")
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT")
    parser.add_argument("--baselines", nargs="*", default=[], choices=sorted(BASELINES))
    parser.add_argument("--variant", help="also score this one, with random weights")
    parser.add_argument("--layers", help="as in hear-tune embed")
    parser.add_argument("--cache", type=Path, default=Path("validation"), metavar="DIR")
    parser.add_argument("--test", action="store_true", help="score the test clips")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line per model")
    options = parser.parse_intermixed_args()
    models = {name: baselines.load_model(name=name) for name in options.baselines}
    if options.variant:
        models["random"] = load_model(variant=options.variant, layers=options.layers)
    for checkpoint in options.checkpoints:
        models[checkpoint] = load_model(checkpoint, layers=options.layers)
    measure = score_test if options.test else cross_validate
    for name, model in models.items():
        scores: dict[str, float] = {}
        for task in GROUPS:
            scores |= measure(task, options.data, model, options.cache)
        print(name, *(f"{task} {score:.3f}" for task, score in scores.items()), sep="  ")
        if options.json:
            line = {"model": name, "layers": list(model.layers), "pairs": pairs(model.encoder)}
            with options.json.open("a") as file:
                file.write(json.dumps(line | scores) + "\n")


def pairs(encoder: LayeredEncoder) -> int:
    """Return the number of pairs an encoder was trained on, over all runs behind its weights."""
    record: dict[str, Any] | None = getattr(encoder, "training_record", None)
    count = 0
    while record:
        count += record["pairs"]
        record = record.get("before")
    return count


def cross_validate(name: str, data: Path, model: EmbeddingModel, folder: Path) -> dict[str, float]:
    """Cross-validate on a task's training and validation clips; return the accuracy."""
    clips = _embed(name, data, model, folder, test=False)
    groups = np.array([GROUPS[name](path) for path in clips.paths])
    predicted: npt.NDArray[np.str_] = cross_val_predict(
        _classifier(), clips.vectors, clips.labels, groups=groups, cv=GroupKFold(FOLDS)
    )
    return {name: float(np.mean(predicted == clips.labels))}


def score_test(name: str, data: Path, model: EmbeddingModel, folder: Path) -> dict[str, float]:
    """Return accuracy and macro-F1 on a task's test clips."""
    known = _embed(name, data, model, folder, test=False)
    test = _embed(name, data, model, folder, test=True)
    predicted = _classifier().fit(known.vectors, known.labels).predict(test.vectors)
    return {
        f"{name} test": float(np.mean(predicted == test.labels)),
        f"{name} test macro-F1": float(f1_score(test.labels, predicted, average="macro")),
    }


class Clips(NamedTuple):
    """Clips of a task: embeddings (n, size), labels (n,) and files."""

    vectors: npt.NDArray[np.float32]
    labels: npt.NDArray[np.str_]
    paths: list[Path]


def _embed(name: str, data: Path, model: EmbeddingModel, folder: Path, *, test: bool) -> Clips:
    """Embed the test clips of a task, or all others."""
    data_set = get_data_set(name)
    task = data_set.load(data / data_set.folder)
    clips = tuple(clip for clip in task.clips if (clip.split == TEST) == test)
    features = embed_task(replace(task, clips=clips), model, folder)
    return Clips(
        np.stack([windows.mean(axis=0) for windows in features.windows]),
        np.array([clip.labels[0] for clip in features.clips]),
        [clip.path for clip in features.clips],
    )


def _classifier() -> Pipeline:
    warnings.simplefilter("ignore", ConvergenceWarning)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))


def pitch_class(note: Path) -> str:
    """Return the pitch class of a Philharmonia note; for percussion, the instrument struck."""
    row = _table(note.parents[2])[note]
    pitch = row["midi_pitch"]
    return str(int(pitch) % 12) if pitch else row["articulation"].split(":")[0]


@cache
def _table(root: Path) -> dict[Path, dict[str, str]]:
    return {root / row["file"]: row for row in read_table(root / "metadata.csv")}


def instrument(note: Path) -> str:
    """Return the instrument of a Philharmonia note."""
    return note.parent.name


def take(recording: Path) -> str:
    """Return the take number of a recorded digit."""
    return recording.stem.rpartition("_")[2]


GROUPS: dict[str, Callable[[Path], str]] = {
    "philharmonia-instrument": pitch_class,
    "philharmonia-pitch": instrument,
    "fsdd-digit": take,
}

if __name__ == "__main__":
    main()
