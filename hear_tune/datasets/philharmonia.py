"""Single notes of the Philharmonia Orchestra: which instrument, or which pitch.

Splits are those of ``metadata.csv``: by pitch class for instruments, by instrument for pitches.
"""

from __future__ import annotations

from pathlib import Path

from .tables import read_table
from .task import Clip, Task, TaskError

_LABEL_COLUMNS = {"instrument": "instrument", "pitch": "midi_pitch"}


def load(root: Path, target: str = "instrument") -> Task:
    """Read the task from ``metadata.csv``.

    Parameters
    ----------
    root
        Folder with ``metadata.csv`` and ``audio``.
    target
        ``instrument``, or ``pitch`` as MIDI numbers.

    Raises
    ------
    FileNotFoundError, TaskError
        If the table is not there or not as it should be.
    """
    if target not in _LABEL_COLUMNS:
        raise TaskError(f"philharmonia has no target {target!r}, only {', '.join(_LABEL_COLUMNS)}")
    label, split = _LABEL_COLUMNS[target], f"split_{target}"
    rows = read_table(root / "metadata.csv", ["file", label, split])
    clips = tuple(Clip(root / row["file"], row[split], (row[label],)) for row in rows if row[split])
    classes = sorted(
        {clip.labels[0] for clip in clips},
        key=lambda name: (int(name), "") if name.isdigit() else (0, name),
    )
    return Task(f"philharmonia-{target}", "multiclass", tuple(classes), clips)
