"""NSynth (Engel et al., ICML 2017): single notes of 4 s, by pitch or by instrument family.

``5-fold`` has the 4,096 notes of the test set, with no instrument in two folds; ``published`` has
the authors' train, valid and test sets; valid and test share instruments. Pitches are those of
HEAR's NSynth Pitch, the 88 keys of a piano. The notes of brass_acoustic_046 from 84 up, 41 of them
in the test set, are all the same recording and excluded from the pitch task.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from .folds import has_table, read_folded
from .splits import stratified_folds
from .task import SPLITS as SETS
from .task import TEST, Clip, Task, TaskError, used_classes

TARGETS = ("pitch", "family")
FIVE_FOLD, PUBLISHED = SPLITS = ("5-fold", "published")
PITCHES = range(21, 109)  # MIDI
FOLDS = 5
REPEATED, REPEATED_FROM = "brass_acoustic_046", 84  # same bytes from this pitch up

_INDEX = "examples.json"


class _Note(NamedTuple):
    path: Path
    split: str
    family: str
    pitch: int
    instrument: str


def load(root: Path, target: str = "pitch", split: str = FIVE_FOLD) -> Task:
    """Read the task.

    Parameters
    ----------
    root : Path
        Folder with the unpacked ``nsynth-train``, ``nsynth-valid`` and ``nsynth-test``, each with
        ``examples.json`` and ``audio``. For ``5-fold``, ``nsynth-test`` is enough; or a folder with
        ``labels.csv``: ``file``, ``label`` (the family), ``pitch``, ``instrument`` and ``fold``.
    target : str
        ``pitch`` as MIDI numbers, or ``family`` of the instrument.
    split : str
        ``5-fold`` or ``published``.

    Raises
    ------
    FileNotFoundError, TaskError
        If the index is missing or invalid.
    """
    if target not in TARGETS:
        raise TaskError(f"nsynth has no target {target!r}, only {', '.join(TARGETS)}")
    if split == FIVE_FOLD:
        notes = _table(root) if has_table(root) else _dealt(_set(root, TEST))
    elif split == PUBLISHED:
        notes = [note for name in SETS for note in _set(root, name)]
    else:
        raise TaskError(f"nsynth has no split {split!r}, only {', '.join(SPLITS)}")
    if target == "family":
        clips = [Clip(n.path, n.split, (n.family,), group=n.instrument) for n in notes]
        return _task(target, used_classes(clips), clips, split)
    pitched = [note for note in notes if _has_pitch(note)]
    clips = [Clip(n.path, n.split, (str(n.pitch),), group=n.instrument) for n in pitched]
    return _task(target, tuple(sorted(used_classes(clips), key=int)), clips, split)


def _task(target: str, classes: tuple[str, ...], clips: list[Clip], split: str) -> Task:
    return Task(f"nsynth-{target}", "multiclass", classes, tuple(clips), split)


def _has_pitch(note: _Note) -> bool:
    repeated = note.instrument == REPEATED and note.pitch >= REPEATED_FROM
    return note.pitch in PITCHES and not repeated


def _table(root: Path) -> list[_Note]:
    rows = read_folded(root, ["label", "pitch", "instrument"])
    return [
        _Note(path, fold, row["label"], _pitch(row["pitch"], path), row["instrument"])
        for path, fold, row in rows
    ]


def _dealt(notes: list[_Note]) -> list[_Note]:
    """Deal the instruments of each family out into folds, evenly."""
    folds = stratified_folds(
        [note.path.stem for note in notes],
        [note.family for note in notes],
        FOLDS,
        [note.instrument for note in notes],
    )
    return [note._replace(split=fold) for note, fold in zip(notes, folds, strict=True)]


def _set(root: Path, name: str) -> list[_Note]:
    index = root / f"nsynth-{name}" / _INDEX
    try:
        rows = json.loads(index.read_text(encoding="utf-8"))
        return [
            _Note(
                index.parent / "audio" / f"{stem}.wav",
                name,
                row["instrument_family_str"],
                int(row["pitch"]),
                row["instrument_str"],
            )
            for stem, row in sorted(rows.items())
        ]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{index}: no such file; unpack nsynth-{name}.jsonwav.tar.gz into {root}"
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise TaskError(f"{index}: not NSynth's index ({type(error).__name__}: {error})") from error


def _pitch(text: str, path: Path) -> int:
    if not text.isdecimal():
        raise TaskError(f"{path}: its pitch is {text!r}, not a MIDI number")
    return int(text)
