"""Single notes of the Philharmonia Orchestra: which instrument, or which pitch.

Splits are those of ``metadata.csv``: by pitch class for instruments (of percussion, by what is
struck), by instrument for pitches. These are the groups of clips as well.
"""

from __future__ import annotations

from pathlib import Path

from .keys import TONICS
from .tables import read_table
from .task import Clip, Task, TaskError

_LABEL_COLUMNS = {"instrument": "instrument", "pitch": "midi_pitch"}


def load(root: Path, target: str = "instrument") -> Task:
    """Read the task from ``metadata.csv``.

    Parameters
    ----------
    root : Path
        Folder with ``metadata.csv`` and ``audio``.
    target : str
        ``instrument``, or ``pitch`` as MIDI numbers.

    Raises
    ------
    FileNotFoundError, TaskError
        If the table is missing or has the wrong columns.
    """
    if target not in _LABEL_COLUMNS:
        raise TaskError(f"philharmonia has no target {target!r}, only {', '.join(_LABEL_COLUMNS)}")
    label, split = _LABEL_COLUMNS[target], f"split_{target}"
    columns = ["file", *_LABEL_COLUMNS.values(), "articulation", split]
    rows = read_table(root / "metadata.csv", columns)
    group = _pitch_class if target == "instrument" else _instrument
    clips = tuple(
        Clip(root / row["file"], row[split], (row[label],), group=group(row))
        for row in rows
        if row[split]
    )
    classes = sorted(
        {clip.labels[0] for clip in clips},
        key=lambda name: (int(name), "") if name.isdigit() else (0, name),
    )
    return Task(f"philharmonia-{target}", "multiclass", tuple(classes), clips)


def _pitch_class(row: dict[str, str]) -> str:
    pitch = row["midi_pitch"]
    return TONICS[int(pitch) % len(TONICS)] if pitch else row["articulation"].partition(":")[0]


def _instrument(row: dict[str, str]) -> str:
    return row["instrument"]
