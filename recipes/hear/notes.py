"""Write a HEAR event task of synthesised notes with sample-exact onsets.

python recipes/hear/notes.py tasks [--clips 40]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from events import ONSETS, ONSETS_AND_OFFSETS, strung, write_event_task

from hear_tune.networks.config import SAMPLE_RATE_HZ

NAME = "synthesized-notes"
PITCHES = [str(pitch) for pitch in range(55, 79)]  # MIDI
HARMONICS = 6
NOTES_PER_SECOND = 2.0
SHARES = {"train": 1.0, "valid": 0.3, "test": 0.3}  # clips, of those for training


def main() -> None:
    """Write the task into the folder of the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--clips", type=int, default=40, help="training clips (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)

    def note(label: str, samples: int) -> npt.NDArray[np.float64]:
        return _note(int(label), samples, rng)

    clips_of = {
        split: [
            strung(PITCHES, note, NOTES_PER_SECOND, rng)
            for _ in range(max(1, round(options.clips * share)))
        ]
        for split, share in SHARES.items()
    }
    write_event_task(options.tasks, NAME, PITCHES, clips_of, [ONSETS, ONSETS_AND_OFFSETS])


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


if __name__ == "__main__":
    main()
