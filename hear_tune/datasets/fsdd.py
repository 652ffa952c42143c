"""Free Spoken Digit Dataset: 3,000 recordings of ten digits by six speakers, 8 kHz.

The official test set is recordings 0 to 4 of each digit and speaker. Of the others, all official
training material, 5 to 9 are kept for validation: 2,400 / 300 / 300. For digits, ``speakers`` has a
fold for each speaker instead: a voice that was never heard is harder by far.
"""

from __future__ import annotations

from pathlib import Path

from .task import FOLD, TEST, TRAIN, VALID, Clip, Task, TaskError, used_classes

TARGETS = ("digit", "speaker")
OFFICIAL, SPEAKERS = SPLITS = ("official", "speakers")
_FIRST_VALID, _FIRST_TRAIN = 5, 10  # numbers of recordings


def load(root: Path, target: str = "digit", split: str = OFFICIAL) -> Task:
    """Read the task from the names of files, ``<digit>_<speaker>_<n>.wav``.

    Parameters
    ----------
    root : Path
        Folder with ``recordings``.
    target : str
        ``digit``, with the speaker as group; or ``speaker``.
    split : str
        ``official``; or, for digits, ``speakers``.

    Raises
    ------
    FileNotFoundError, TaskError
        If there are no recordings, or one has another name.
    """
    if target not in TARGETS:
        raise TaskError(f"fsdd has no target {target!r}, only {', '.join(TARGETS)}")
    if split not in (SPLITS if target == "digit" else (OFFICIAL,)):
        raise TaskError(f"fsdd-{target} has no split {split!r}")
    paths = sorted((root / "recordings").glob("*.wav"))
    if not paths:
        raise FileNotFoundError(f"{root / 'recordings'}: no .wav files")
    parts = [_parts(path) for path in paths]
    speakers = sorted({speaker for _, speaker, _ in parts})
    clips = []
    for path, (digit, speaker, number) in zip(paths, parts, strict=True):
        fold = f"{FOLD}{speakers.index(speaker):02d}"
        given = fold if split == SPEAKERS else _official(number)
        if target == "digit":
            clips.append(Clip(path, given, (digit,), group=speaker))
        else:
            clips.append(Clip(path, given, (speaker,)))
    named = "" if split == OFFICIAL else split  # only what is not the usual split has to be named
    return Task(f"fsdd-{target}", "multiclass", used_classes(clips), tuple(clips), named)


def _parts(path: Path) -> tuple[str, str, int]:
    parts = path.stem.split("_")
    if len(parts) != 3 or not parts[2].isdecimal():
        raise TaskError(f"{path}: its name is not <digit>_<speaker>_<n>.wav")
    return parts[0], parts[1], int(parts[2])


def _official(number: int) -> str:
    return TEST if number < _FIRST_VALID else VALID if number < _FIRST_TRAIN else TRAIN
