#!/usr/bin/env python3
"""Three views of a checkpoint's embeddings on all sets at hand, as they are and whitened.

Of training and validation clips alone, across groups: what is asked about was never heard (an
instrument at another pitch class, a pitch from another instrument, a digit from another speaker).

    lr   logistic regression (C = 0.1) on standardised embeddings
    raw  the same on embeddings as they are
    nn   the nearest neighbour by cosine of another group

A whitened embedding is standardised, turned to its principal components and divided by their
standard deviations, all fitted on windows of the training corpora. With --gain, directions that
tell acoustic features of those windows count for more.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hear_tune import load_model
from hear_tune.embedding.batching import embed_clips
from hear_tune.embedding.model import EmbeddingModel
from hear_tune.pretrain.acoustic import TARGETS, Acoustics
from hear_tune.pretrain.pairs import to_float
from hear_tune.pretrain.pcm_store import FULL_SCALE, AudioStore, Pcm, build_store

FOLDS = 5
LONGEST_SECONDS = 10  # of a clip, from its beginning
WHITENED_SIZE = 512
BATCH = 64
FITTED_WINDOWS = 4000  # of the corpora, evenly from all stores
SETS = ("philharmonia", "fsdd", "nsynth_test", "mridangam", "gtzan_music_speech")
TEST_FOLDS = {"nsynth_test": "fold05", "mridangam": "fold05", "gtzan_music_speech": "fold10"}
FSDD_TEST_TAKES = 5  # the first so many of each speaker and digit
SAME_BYTES = "brass_acoustic_046"  # of NSynth: one recording under 21 pitches

Matrix = npt.NDArray[np.float32]
Labels = npt.NDArray[np.str_]
Projection = Callable[[Matrix], Matrix]


@dataclass(frozen=True)
class Question:
    """What is asked of clips: a label each, and the group that may not answer for it, if any."""

    name: str
    folder: str
    paths: tuple[str, ...]
    labels: Labels
    groups: Labels | None


def main() -> None:
    """Print and keep the scores of checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help=f"folder of {', '.join(SETS)}")
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--layers", nargs="+", required=True, help="choices, each joined by commas")
    parser.add_argument("--corpora", nargs="+", type=Path, metavar="STORE", required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, metavar="SET")
    parser.add_argument("--cache", type=Path, default=Path("scoring"), metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line per score")
    parser.add_argument("--gain", type=float, default=0, help="of what tells acoustic features")
    parser.add_argument("--plain", action="store_true", help="the embeddings as they are, too")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    build_store([options.data / name for name in SETS], options.cache / "store")
    questions = [q for q in read_questions(options.data) if q.folder in options.sets]
    wanted = {path for question in questions for path in question.paths}
    every = sorted({layer for choice in options.layers for layer in choice.split(",")})
    for checkpoint in options.checkpoints:
        model = load_model(checkpoint, layers=every, precision="bfloat16")
        clips = of_clips(model, wanted, options.cache)
        windows = list(corpus_windows(model, options.corpora))
        corpora = _embedded(model, windows, options.cache, "corpora")
        features = acoustic_features(windows) if options.gain else None
        for choice in options.layers:
            columns = np.r_[tuple(model.layer_columns[layer] for layer in choice.split(","))]
            project = whitening(corpora[:, columns])
            if features is not None:
                project = emphasised(project, corpora[:, columns], features, options.gain)
            views = {f"whitened, gain {options.gain:g}": project}
            if options.plain:
                views = {"plain": lambda rows: rows, **views}
            for kind, view in views.items():
                seen = dict(
                    zip(clips, view(np.stack(list(clips.values()))[:, columns]), strict=True)
                )
                scores = {q.name: score(q, seen, lr=kind == "plain") for q in questions}
                report(checkpoint, choice, kind, scores, options.json)


def report(
    checkpoint: str, layers: str, kind: str, scores: dict[str, Any], path: Path | None
) -> None:
    """Print a line, and append it to the file."""
    text = "  ".join(f"{name} {' '.join(f'{s:.3f}' for s in row)}" for name, row in scores.items())
    print(f"{checkpoint} {layers} {kind}:  {text}", flush=True)
    if path is not None:
        line = {"model": checkpoint, "layers": layers, "kind": kind, **scores}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def score(question: Question, seen: dict[str, Matrix], *, lr: bool) -> tuple[float, ...]:
    """The views of one question: lr, raw and nn, or without the first."""
    vectors = np.stack([seen[path] for path in question.paths])
    plain = LogisticRegression(C=0.1, max_iter=200)
    classifiers = ([make_pipeline(StandardScaler(), plain)] if lr else []) + [plain]
    if question.groups is None:
        split = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    else:
        groups = len(set(question.groups))
        split = GroupKFold(groups if groups < 2 * FOLDS else FOLDS)  # of few, each by itself
    found = [
        cross_val_predict(one, vectors, question.labels, groups=question.groups, cv=split)
        for one in classifiers
    ]
    found.append(question.labels[nearest(vectors, question.groups)])
    return tuple(float(np.mean(labels == question.labels)) for labels in found)


def nearest(vectors: Matrix, groups: Labels | None) -> npt.NDArray[np.int64]:
    """Row of each vector's nearest neighbour by cosine, itself and its group left out."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
    cosines = unit @ unit.T
    if groups is None:
        np.fill_diagonal(cosines, -2)
    else:
        cosines[groups[:, None] == groups] = -2
    return cosines.argmax(axis=1)


def whitening(rows: Matrix) -> Projection:
    """The projection to uncorrelated numbers at unit variance, fitted on rows."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    _, singular, axes = np.linalg.svd((rows - mean) / deviation, full_matrices=False)
    kept = slice(min(WHITENED_SIZE, int(np.sum(singular > 1e-4 * singular[0]))))
    scale = np.sqrt(len(rows)) / singular[kept]
    return lambda vectors: ((vectors - mean) / deviation) @ axes[kept].T * scale


def emphasised(project: Projection, rows: Matrix, features: Matrix, gain: float) -> Projection:
    """A whitening whose directions that tell features, canonical ones, have a greater variance.

    It is 1 + `gain` where a feature is told perfectly, and stays 1 where none is.
    """
    whitened, told = project(rows), whitening(features)(features)
    directions, correlations, _ = np.linalg.svd(whitened.T @ told / len(rows), full_matrices=False)
    extra = (np.sqrt(1 + gain) - 1) * correlations**2
    matrix = np.eye(len(directions)) + (directions * extra) @ directions.T
    return lambda vectors: project(vectors) @ matrix


def of_clips(model: EmbeddingModel, wanted: set[str], cache: Path) -> dict[str, Matrix]:
    """Embeddings by path."""
    store = AudioStore(cache / "store")
    longest = LONGEST_SECONDS * model.sample_rate
    tracks = [track for track in store.tracks if track.path in wanted]
    clips = [store.crop(track, 0, longest) for track in tracks]
    rows = _embedded(model, clips, cache, "clips")
    return dict(zip((track.path for track in tracks), rows, strict=True))


def corpus_windows(model: EmbeddingModel, stores: Sequence[Path]) -> Iterator[Pcm]:
    """Single windows, so many of each store, of tracks drawn at random."""
    rng = np.random.default_rng(0)
    for store in map(AudioStore, stores):
        tracks = [track for track in store.tracks if track.samples >= model.window_samples]
        for number in rng.integers(len(tracks), size=FITTED_WINDOWS // len(stores)):
            start = rng.integers(tracks[number].samples - model.window_samples + 1)
            yield store.crop(tracks[number], int(start), model.window_samples)


def acoustic_features(windows: Sequence[Pcm]) -> Matrix:
    """All features of whole windows that layers can be asked for, side by side."""
    rows = []
    for first in range(0, len(windows), BATCH):
        pcm = np.stack(windows[first : first + BATCH])
        sound = Acoustics(to_float(torch.from_numpy(pcm)))
        features = [target.compute(sound) for target in TARGETS.values()]
        rows.append(torch.cat([feature for feature in features if feature.ndim == 2], dim=1))
    return torch.cat(rows).numpy()


def _embedded(model: EmbeddingModel, clips: Sequence[Pcm], cache: Path, name: str) -> Matrix:
    digest = hashlib.sha256(f"{model.identity} {model.layers}".encode())
    for clip in clips:
        digest.update(clip.tobytes())
    key = digest.hexdigest()[:16]
    path = cache / f"{name}-{key}.npy"
    if not path.exists():
        floats = ((i, [clip.astype(np.float32) / FULL_SCALE]) for i, clip in enumerate(clips))
        rows = [part.vectors[0] for _, part in embed_clips(model, floats, "track")]
        np.save(path, np.stack(rows))
    rows_of: Matrix = np.load(path)
    return rows_of


def read_questions(data: Path) -> Iterator[Question]:
    """What is asked of each set."""

    def ask(
        name: str, folder: str, rows: list[dict[str, str]], label: str, group: str | None
    ) -> Question:
        return Question(
            name,
            folder,
            tuple(str(data / folder / row["file"]) for row in rows),
            np.array([row[label] for row in rows]),
            None if group is None else np.array([row[group] for row in rows]),
        )

    notes = _rows(data / "philharmonia/metadata.csv")
    for note in notes:
        pitch = note["midi_pitch"]
        note["class"] = str(int(pitch) % 12) if pitch else note["articulation"].split(":")[0]
    of_instrument, of_pitch = (
        [note for note in notes if note[f"split_{task}"] in ("train", "valid")]
        for task in ("instrument", "pitch")
    )
    yield ask("ph-instrument", "philharmonia", of_instrument, "instrument", "class")
    yield ask("ph-pitch", "philharmonia", of_pitch, "midi_pitch", "instrument")
    digits = []
    for path in sorted((data / "fsdd/recordings").glob("*.wav")):
        digit, speaker, take = path.stem.split("_")
        if int(take) >= FSDD_TEST_TAKES:
            digits.append({"file": f"recordings/{path.name}", "digit": digit, "speaker": speaker})
    yield ask("digit", "fsdd", digits, "digit", "speaker")
    tables = {
        name: [row for row in _rows(data / name / "labels.csv") if row["fold"] != fold]
        for name, fold in TEST_FOLDS.items()
    }
    nsynth, strokes, excerpts = tables.values()
    single = [row for row in nsynth if row["instrument"] != SAME_BYTES]
    yield ask("nsynth-pitch", "nsynth_test", single, "pitch", "instrument")
    yield ask("nsynth-family", "nsynth_test", nsynth, "label", "instrument")
    yield ask("stroke", "mridangam", strokes, "label", "tonic")
    yield ask("tonic", "mridangam", strokes, "tonic", None)
    yield ask("music-speech", "gtzan_music_speech", excerpts, "label", None)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
