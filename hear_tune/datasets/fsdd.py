"""Free Spoken Digit Dataset: 3,000 recordings of ten digits by six speakers, 8 kHz.

The official test set is recordings 0 to 4 of each digit and speaker. Of the others, all official
training material, 5 to 9 are kept for validation: 2,400 / 300 / 300.
"""

from __future__ import annotations

from pathlib import Path

from .task import TEST, TRAIN, VALID, Clip, Task, TaskError, used_classes

TARGETS = ("digit", "speaker")
_FIRST_VALID, _FIRST_TRAIN = 5, 10  # numbers of recordings


def load(root: Path, target: str = "digit") -> Task:
    """Read the task from the names of files, ``<digit>_<speaker>_<n>.wav``.

    Parameters
    ----------
    root
        Folder with ``recordings``.
    target
        ``digit`` or ``speaker``.

    Raises
    ------
    FileNotFoundError, TaskError
        If there are no recordings, or one has another name.
    """
    if target not in TARGETS:
        raise TaskError(f"fsdd has no target {target!r}, only {', '.join(TARGETS)}")
    paths = sorted((root / "recordings").glob("*.wav"))
    if not paths:
        raise FileNotFoundError(f"{root / 'recordings'}: no .wav files")
    clips = tuple(_clip(path, TARGETS.index(target)) for path in paths)
    return Task(f"fsdd-{target}", "multiclass", used_classes(clips), clips)


def _clip(path: Path, part: int) -> Clip:
    parts = path.stem.split("_")
    if len(parts) != 3 or not parts[2].isdecimal():
        raise TaskError(f"{path}: its name is not <digit>_<speaker>_<n>.wav")
    number = int(parts[2])
    split = TEST if number < _FIRST_VALID else VALID if number < _FIRST_TRAIN else TRAIN
    return Clip(path, split, (parts[part],))
