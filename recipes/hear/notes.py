"""Write a HEAR event task of synthesised notes with sample-exact onsets.

python recipes/hear/notes.py tasks [--clips 40]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hear_tune.hear_benchmark.rates import write_audio
from hear_tune.networks.config import SAMPLE_RATE_HZ

NAME, VERSION, MODE = "synthesized-notes", "1.0", "full"
SECONDS = 8.0
LOWEST, HIGHEST = 55, 78  # MIDI pitches
HARMONICS = 6
NOTE_SECONDS = (0.3, 1.0)
NOTES_PER_SECOND = 2.0
NOISE = 0.003
SHARES = {"train": 1.0, "valid": 0.3, "test": 0.3}  # clips, relative to the training split

Event = dict[str, str | float]


def main() -> None:
    """Write the task into the folder of the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--clips", type=int, default=40, help="training clips (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_task(options.tasks / f"{NAME}-{VERSION}-{MODE}", options.clips, options.seed)


def write_task(folder: Path, clips: int, seed: int = 0) -> None:
    """Write audio, labels and metadata of the task."""
    rng = np.random.default_rng(seed)
    for split, share in SHARES.items():
        events = {}
        for index in range(max(1, round(clips * share))):
            name = f"{split}-{index:04d}.wav"
            samples, events[name] = _clip(rng)
            write_audio(folder / str(SAMPLE_RATE_HZ) / split / name, samples, SAMPLE_RATE_HZ)
        _write(folder / f"{split}.json", json.dumps(events))
    labels = [f"{index},{pitch}" for index, pitch in enumerate(range(LOWEST, HIGHEST + 1))]
    _write(folder / "labelvocabulary.csv", "\n".join(["idx,label", *labels]) + "\n")
    metadata = {
        "task_name": NAME,
        "version": VERSION,
        "mode": MODE,
        "embedding_type": "event",
        "prediction_type": "multilabel",
        "split_mode": "trainvaltest",
        "splits": list(SHARES),
        "sample_duration": SECONDS,
        "evaluation": ["event_onset_50ms_fms", "event_onset_offset_50ms_20perc_fms"],
        "evaluation_params": {
            "event_postprocessing_grid": {"median_filter_ms": [100], "min_duration": [50]},
            # event scoring is slow
            "task_specific_param_grid": {"max_epochs": [100], "check_val_every_n_epoch": [10]},
        },
    }
    _write(folder / "task_metadata.json", json.dumps(metadata))


def _clip(rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], list[Event]]:
    """Synthesise notes at random times over a little noise; no pitch overlaps itself."""
    audio = rng.normal(0, NOISE, round(SECONDS * SAMPLE_RATE_HZ))
    free_from = dict.fromkeys(range(LOWEST, HIGHEST + 1), 0.0)
    events: list[Event] = []
    starts = rng.uniform(0, SECONDS - NOTE_SECONDS[0], round(NOTES_PER_SECOND * SECONDS))
    for start in np.sort(starts):
        free = [pitch for pitch, time in free_from.items() if time < start]
        pitch = int(rng.choice(free))
        end = min(SECONDS, start + rng.uniform(*NOTE_SECONDS))
        free_from[pitch] = end + NOTE_SECONDS[0]
        first = round(start * SAMPLE_RATE_HZ)
        note = _note(pitch, round(end * SAMPLE_RATE_HZ) - first, rng)
        audio[first : first + len(note)] += note
        events.append({"label": str(pitch), "start": 1000 * start, "end": 1000 * end})
    return (0.9 * audio / np.abs(audio).max()).astype(np.float32), events


def _note(pitch: int, samples: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Synthesise decaying harmonics of random phase, with a fade of 5 ms at either end."""
    time = np.arange(samples) / SAMPLE_RATE_HZ
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    phases = rng.uniform(0, 2 * np.pi, HARMONICS)
    tones = [
        np.sin(2 * np.pi * number * frequency * time + phase) / number
        for number, phase in enumerate(phases, 1)
    ]
    edge = np.minimum(1, np.minimum(time, time[::-1]) / 0.005)
    note: npt.NDArray[np.float64] = rng.uniform(0.3, 1) * np.exp(-time) * edge * sum(tones)
    return note


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
