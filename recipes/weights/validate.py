#!/usr/bin/env python3
"""How well a linear classifier tells validation clips apart by a checkpoint's embeddings.

For trials: quick, and blind to the test splits. A logistic regression on standardised embeddings is
trained on the training clips of each task, and the best of three regularisations is reported.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hear_tune import baselines, load_model
from hear_tune.baselines import BASELINES
from hear_tune.datasets.catalog import get_data_set
from hear_tune.datasets.task import TRAIN, VALID, Task
from hear_tune.model import EmbeddingModel
from hear_tune.probe.features import embed_task

TASKS = ("philharmonia-instrument", "philharmonia-pitch", "fsdd-digit")
REGULARISATIONS = (0.01, 0.1, 1.0)  # C of LogisticRegression


def main() -> None:
    """Print and save the scores of checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of philharmonia and fsdd")
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT")
    parser.add_argument("--baselines", nargs="*", default=[], choices=sorted(BASELINES))
    parser.add_argument("--layers", help="as of hear-tune embed")
    parser.add_argument("--cache", type=Path, default=Path("validation"), metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line per model")
    options = parser.parse_args()
    models = {name: baselines.load_model(name=name) for name in options.baselines}
    for checkpoint in options.checkpoints:
        models[checkpoint] = load_model(checkpoint, layers=options.layers)
    for name, model in models.items():
        scores = {task: validate(task, options.data, model, options.cache) for task in TASKS}
        print(name, *(f"{task} {score:.3f}" for task, score in scores.items()), sep="  ")
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps({"model": name, **scores}) + "\n")


def validate(name: str, data: Path, model: EmbeddingModel, cache: Path) -> float:
    """Accuracy on the validation clips of a task."""
    data_set = get_data_set(name)
    task = data_set.load(data / data_set.folder)
    clips = tuple(clip for clip in task.clips if clip.split in (TRAIN, VALID))
    features = embed_task(Task(task.name, task.kind, task.classes, clips), model, cache)
    vectors = np.stack([windows.mean(axis=0) for windows in features.windows])
    labels = np.array([clip.labels[0] for clip in features.clips])
    train = np.array([clip.split == TRAIN for clip in features.clips])
    warnings.simplefilter("ignore", ConvergenceWarning)
    scores = []
    for regularisation in REGULARISATIONS:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=300))
        probe.fit(vectors[train], labels[train])
        scores.append(float(probe.score(vectors[~train], labels[~train])))
    return max(scores)


if __name__ == "__main__":
    main()
