"""Run downstream tasks end to end on tiny synthetic data, to see that they work."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from .configuration import config_path
from .runner import run_s3prl

SECONDS = 0.5
HEAR_RATE_HZ = 48_000  # the rate of HEAR's public folders
SPEECH_RATE_HZ = 16_000
STEPS = 4
SPLITS = ("train", "valid", "test")


def smoke(task: str, upstream: str) -> bool:
    """Train and test a task in a temporary folder, and return whether it worked."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"smoke: {task}")
        return TASKS[task](Path(folder), upstream)


def _tags(folder: Path, upstream: str, *config: str) -> bool:
    labels = ["guitar; slow", "techno", "", "guitar; techno; not a tag"]
    arguments = ["--prepare_data.csv", _clips(folder, labels)]
    arguments += ["--build_encoder.classes", "['guitar', 'slow', 'techno']"]
    return _problem("MagnaTagATune", folder, upstream, *config, *arguments)


def _tags_native(folder: Path, upstream: str) -> bool:
    return _tags(folder, upstream, "--config", str(config_path("native_rate")))


def _classes(folder: Path, upstream: str) -> bool:
    csv_path = _clips(folder, ["flute", "oboe"])
    return _problem("ClipClassification", folder, upstream, "--prepare_data.csv", csv_path)


def _folds(problem: str, folds: int, folder: Path, upstream: str) -> bool:
    for fold in range(folds):
        _hear_split(folder, f"fold{fold:02d}", [["low"], ["high"]])
    arguments = ["--config", str(config_path(problem)), "--prepare_data.test_fold", "0"]
    return _hear(problem, folder, upstream, *arguments)


def _pitch(folder: Path, upstream: str) -> bool:
    for split in SPLITS:
        _hear_split(folder, split, [[60], [62], [100]])
    return _hear("NsynthPitch", folder, upstream)


def _notes(folder: Path, upstream: str) -> bool:
    note = {"label": 60, "start": 100.0, "end": 300.0}  # ms
    for fold in range(5):
        _hear_split(folder, f"fold{fold:02d}", [[note], [note | {"label": 72}]])
    return _hear("MaestroNotes", folder, upstream, "--prepare_data.test_fold", "0")


def _fluent_commands(folder: Path, upstream: str) -> bool:
    """Train by run_downstream, then evaluate from its checkpoint."""
    (folder / "data").mkdir()
    for split in SPLITS:
        path = folder / f"{split}.wav"
        _write_tone(path, 0, SPEECH_RATE_HZ)
        rows = [[path.name, "increase", "heat", place] for place in ("kitchen", "bedroom")]
        header = ["path", "action", "object", "location"]
        _write_rows(folder / "data" / f"{split}_data.csv", header, rows)
    changes = {"runner.total_steps": STEPS, "downstream_expert.datarc.num_workers": 0}
    changes |= {f"runner.{kind}_step": STEPS // 2 for kind in ("log", "eval", "save")}
    override = [f"config.{key}={value}" for key, value in changes.items()]
    override.append(f"config.downstream_expert.datarc.file_path={folder}")
    run = ["-m", "train", "-u", upstream, "-d", "fluent_commands", "-p", str(folder / "result")]
    run += ["-c", str(config_path("fluent_commands")), "--device", "cpu", "-o", ",,".join(override)]
    checkpoint = folder / "result" / f"states-{STEPS}.ckpt"
    evaluate = ["-m", "evaluate", "--device", "cpu"]
    return (
        run_s3prl("run_downstream", run) == 0
        and run_s3prl("run_downstream", [*evaluate, "-e", str(checkpoint)]) == 0
    )


def _hear(problem: str, folder: Path, upstream: str, *arguments: str) -> bool:
    root = ["--prepare_data.dataset_root", str(folder)]
    return _problem(problem, folder, upstream, *root, *arguments)


def _problem(problem: str, folder: Path, upstream: str, *arguments: str) -> bool:
    """Run s3prl.main for a few steps, and return whether there is a result for the test set."""
    run = [problem, *arguments, "--target_dir", str(folder / "result"), "--device", "cpu"]
    run += ["--cache_dir", str(folder / "cache"), "--num_workers", "0"]
    run += ["--build_upstream.name", upstream, "--train.total_steps", str(STEPS)]
    for kind in ("log", "eval", "save"):
        run += [f"--train.{kind}_step", str(STEPS // 2)]
    code = run_s3prl("main", run)
    results = list((folder / "result" / "evaluate").rglob("result.yaml"))
    for result in results:
        print(result.read_text())
    return code == 0 and bool(results)


def _clips(folder: Path, labels: list[str]) -> str:
    rows = []
    for split in SPLITS:
        for index, text in enumerate(labels):
            path = folder / f"{split}-{index}.wav"
            _write_tone(path, index, HEAR_RATE_HZ)
            rows.append([path.name, split, text])
    return _write_rows(folder / "clips.csv", ["path", "split", "labels"], rows)


def _hear_split(folder: Path, split: str, labels: list[list[object]]) -> None:
    audio = folder / str(HEAR_RATE_HZ) / split
    audio.mkdir(parents=True)
    names = {f"{split}-{index}.wav": found for index, found in enumerate(labels)}
    for index, name in enumerate(names):
        _write_tone(audio / name, index, HEAR_RATE_HZ)
    (folder / f"{split}.json").write_text(json.dumps(names))


def _write_tone(path: Path, index: int, rate: int) -> None:
    time = np.arange(round(SECONDS * rate)) / rate
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * 220 * (index + 1) * time), rate)


def _write_rows(path: Path, header: list[str], rows: Iterable[list[str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


TASKS: dict[str, Callable[[Path, str], bool]] = {
    "MagnaTagATune": _tags,
    "MagnaTagATune-native": _tags_native,
    "ClipClassification": _classes,
    "HearGtzan": partial(_folds, "HearGtzan", 10),
    "HearGtzanMusicSpeech": partial(_folds, "HearGtzanMusicSpeech", 10),
    "HearBeijingOpera": partial(_folds, "HearBeijingOpera", 5),
    "HearStroke": partial(_folds, "HearStroke", 5),
    "HearTonic": partial(_folds, "HearTonic", 5),
    "NsynthPitch": _pitch,
    "MaestroNotes": _notes,
    "fluent_commands": _fluent_commands,
}
