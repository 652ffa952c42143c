"""Write event tasks of HEAR from real recordings, strung together at random times.

python recipes/hear/recordings.py DATA tasks [--clips 40]

philharmonia-events are orchestral notes, by pitch: two a second, some at once. The instruments of
the test set are never heard in training. mridangam-events are drum strokes, four a second and of
one tonic in each clip, in five folds. A recording begins where it first reaches ONSET_DB.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from events import ONSETS, ONSETS_AND_OFFSETS, Clip, Samples, strung, write_event_task

from hear_tune.datasets import task as tasks
from hear_tune.datasets.catalog import get_data_set
from hear_tune.hear_benchmark.rates import read_audio
from hear_tune.networks.config import SAMPLE_RATE_HZ

ONSET_DB = -30.0  # of the peak
FADE_SECONDS = 0.02
GAIN_DB = (-12.0, 0.0)  # lowest and highest peak
SHARES = {"train": 1.0, "valid": 0.3, "test": 0.3}  # clips, of those for training
FOLD_SHARE = 0.4

# data set; sounds per second; metrics; what all sounds of a clip share
SOURCES: dict[str, tuple[str, float, Sequence[str], Callable[[tasks.Clip], str]]] = {
    "philharmonia-events": (
        "philharmonia-pitch",
        2.0,
        [ONSETS, ONSETS_AND_OFFSETS],
        lambda _: "",
    ),
    "mridangam-events": ("mridangam-stroke", 4.0, [ONSETS], lambda clip: clip.group),
}


def main() -> None:
    """Write the tasks into the folder that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of philharmonia and mridangam")
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--clips", type=int, default=40, help="for training (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name, (source, rate, metrics, shared) in SOURCES.items():
        data_set = get_data_set(source)
        task = data_set.load(options.data / data_set.folder)
        rng = np.random.default_rng(options.seed)
        clips_of = {
            split: _clips(
                task.of(split),
                max(1, round(options.clips * SHARES.get(split, FOLD_SHARE))),
                rate,
                shared,
                rng,
            )
            for split in _ordered(task)
        }
        print(write_event_task(options.tasks, name, task.classes, clips_of, metrics))


def _ordered(task: tasks.Task) -> Sequence[str]:
    """Splits as heareval names them, or folds in their order."""
    return tasks.folds(task) or tasks.SPLITS


def _clips(
    recordings: Sequence[tasks.Clip],
    count: int,
    rate: float,
    shared: Callable[[tasks.Clip], str],
    rng: np.random.Generator,
) -> Iterator[Clip]:
    """Clips of recordings that share something: rate is of sounds per second."""
    pools: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for recording in recordings:
        pools[shared(recording)][recording.labels[0]].append(recording.path)
    for _ in range(count):
        pool = pools[str(rng.choice(sorted(pools)))]

        def sound(label: str, samples: int, pool: dict[str, list[Path]] = pool) -> Samples:
            paths = pool[label]
            return _excerpt(paths[rng.integers(len(paths))], samples, rng)

        yield strung(sorted(pool), sound, rate, rng)


def _excerpt(path: Path, most: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A recording from its onset on, at most so many samples, at a random level."""
    samples = read_audio(path, SAMPLE_RATE_HZ)
    level = np.abs(samples)
    onset = int(np.argmax(level >= level.max() * 10 ** (ONSET_DB / 20)))
    kept = samples[onset : onset + most]
    fade = np.minimum(1, np.arange(len(kept), 0, -1) / (FADE_SECONDS * SAMPLE_RATE_HZ))
    gain = 10 ** (rng.uniform(*GAIN_DB) / 20) / max(float(level.max()), 1e-9)
    return (gain * fade * kept).astype(np.float32)


if __name__ == "__main__":
    main()
