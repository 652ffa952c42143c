"""Event tasks of HEAR: sounds strung together at random times, whose onsets are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hear_tune.datasets.task import FOLD
from hear_tune.hear_benchmark.rates import write_audio
from hear_tune.networks.config import SAMPLE_RATE_HZ

VERSION, MODE = "1.0", "full"
SECONDS = 8.0  # of a clip
SOUND_SECONDS = (0.3, 1.0)  # shortest and longest sound, and the shortest rest of a label
NOISE = 0.003
ONSETS, ONSETS_AND_OFFSETS = "event_onset_50ms_fms", "event_onset_offset_50ms_20perc_fms"

Samples = npt.NDArray[np.floating]
Event = dict[str, str | float]
Clip = tuple[npt.NDArray[np.float32], list[Event]]


def folder_name(name: str) -> str:
    """Of a task among HEAR's."""
    return f"{name}-{VERSION}-{MODE}"


def strung(
    labels: Sequence[str],
    sound: Callable[[str, int], Samples],
    sounds_per_second: float,
    rng: np.random.Generator,
) -> Clip:
    """Sounds at random times over a little noise, none of a label that still sounds.

    Parameters
    ----------
    labels
        To choose from.
    sound
        Takes a label and a number of samples; returns a sound of at most so many.
    sounds_per_second
        On average.
    rng
        Chooses times, labels and lengths.

    Returns
    -------
    samples : (SECONDS * SAMPLE_RATE_HZ,) float32
    events : list of dict
        ``label``, ``start`` and ``end`` in ms.
    """
    audio = rng.normal(0, NOISE, round(SECONDS * SAMPLE_RATE_HZ))
    free_from = dict.fromkeys(labels, 0.0)
    events: list[Event] = []
    starts = rng.uniform(0, SECONDS - SOUND_SECONDS[0], round(sounds_per_second * SECONDS))
    for start in np.sort(starts):
        free = [label for label, time in free_from.items() if time < start]
        if not free:
            continue
        label = str(rng.choice(free))
        end = min(SECONDS, start + rng.uniform(*SOUND_SECONDS))
        first = round(start * SAMPLE_RATE_HZ)
        samples = sound(label, round(end * SAMPLE_RATE_HZ) - first)
        audio[first : first + len(samples)] += samples
        end = (first + len(samples)) / SAMPLE_RATE_HZ
        free_from[label] = end + SOUND_SECONDS[0]
        events.append({"label": label, "start": 1000 * start, "end": 1000 * end})
    return (0.9 * audio / np.abs(audio).max()).astype(np.float32), events


def write_event_task(
    tasks: Path,
    name: str,
    labels: Sequence[str],
    clips_of: Mapping[str, Iterable[Clip]],
    metrics: Sequence[str],
) -> Path:
    """Write audio, labels and metadata of a task; returns its folder.

    Parameters
    ----------
    tasks
        Folder of HEAR's tasks.
    name
        Of the task.
    labels
        All that there are, in order.
    clips_of
        Clips of each split: train, valid and test, or folds.
    metrics
        heareval's names; the first decides.
    """
    folder = tasks / folder_name(name)
    for split, clips in clips_of.items():
        events = {}
        for index, (samples, found) in enumerate(clips):
            file = f"{split}-{index:04d}.wav"
            write_audio(folder / str(SAMPLE_RATE_HZ) / split / file, samples, SAMPLE_RATE_HZ)
            events[file] = found
        _write(folder / f"{split}.json", json.dumps(events))
    rows = [f"{index},{label}" for index, label in enumerate(labels)]
    _write(folder / "labelvocabulary.csv", "\n".join(["idx,label", *rows]) + "\n")
    folds = all(split.startswith(FOLD) for split in clips_of)
    metadata = {
        "task_name": name,
        "version": VERSION,
        "mode": MODE,
        "embedding_type": "event",
        "prediction_type": "multilabel",
        "split_mode": "presplit_kfold" if folds else "trainvaltest",
        "splits": list(clips_of),
        "sample_duration": SECONDS,
        "evaluation": list(metrics),
        "evaluation_params": {
            "event_postprocessing_grid": {"median_filter_ms": [100], "min_duration": [50]},
            # scoring of events is slow
            "task_specific_param_grid": {"max_epochs": [100], "check_val_every_n_epoch": [10]},
        },
    }
    _write(folder / "task_metadata.json", json.dumps(metadata))
    return folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
