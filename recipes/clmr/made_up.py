#!/usr/bin/env python3
"""Write a tiny synthetic MagnaTagATune in its original layout, and music to pre-train on.

made_up.py DATA MUSIC FOLDER ...    writes DATA/magnatagatune and MUSIC/FOLDER
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE_HZ = 22_050
SECONDS = 4
TAGS = [f"tag{number}" for number in range(50)]
CLIPS_PER_FOLDER = 3


def main() -> None:
    """Write both below the folders that the arguments name."""
    data, music, *folders = sys.argv[1:]
    root = Path(data, "magnatagatune")
    rng = np.random.default_rng(0)
    rows = []
    for folder in "0123456789abcdef":
        for _ in range(CLIPS_PER_FOLDER):
            number = len(rows)
            tags = sorted({number % len(TAGS), *rng.integers(len(TAGS), size=12)})
            path = f"{folder}/clip-{number}.mp3"
            write_sound(root / path, 110 * 2 ** (tags[0] / 12), rng)
            rows.append([number, *(int(tag in tags) for tag in range(len(TAGS))), path])
    with (root / "annotations_final.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL)
        writer.writerow(["clip_id", *TAGS, "mp3_path"])
        writer.writerows(rows)
    for number, folder in enumerate(folders):
        if not Path(music, folder).exists():
            for clip in range(8 // len(folders) + 1):
                sound = Path(music, folder, f"{clip}.mp3")
                write_sound(sound, 110 * 2 ** ((8 * number + clip) / 12), rng)


def write_sound(path: Path, frequency_hz: float, rng: np.random.Generator) -> None:
    """Write a tone with some noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(SECONDS * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    sound = 0.3 * np.sin(2 * np.pi * frequency_hz * time) + 0.05 * rng.normal(size=len(time))
    soundfile.write(path, sound, SAMPLE_RATE_HZ)


if __name__ == "__main__":
    main()
