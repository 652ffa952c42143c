"""Mridangam Stroke (Anantapadmanabhan et al., ICASSP 2013): 6,977 single strokes by one player.

The label is one of ten strokes, or one of six tonics of the drum. Folds are drawn at random, as in
HEAR's tasks, whose folds differ: every tonic is in every fold.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .folds import has_table, read_folded
from .keys import tonic_name
from .sources import mirdata_tracks
from .splits import stratified_folds
from .task import Clip, Task, TaskError, used_classes

TARGETS = ("stroke", "tonic")
FOLDS = 5


class _Stroke(NamedTuple):
    path: Path
    fold: str
    stroke: str
    tonic: str


def load(root: Path, target: str = "stroke") -> Task:
    """Read the task.

    Parameters
    ----------
    root : Path
        Folder with mirdata's index and the unpacked audio; or with ``labels.csv``: ``file``,
        ``label`` (the stroke), ``tonic`` and ``fold``.
    target : str
        ``stroke``, grouped by tonic; or ``tonic``.

    Raises
    ------
    FileNotFoundError, TaskError
        If the index is missing or invalid, or mirdata is not installed.
    """
    if target not in TARGETS:
        raise TaskError(f"mridangam has no target {target!r}, only {', '.join(TARGETS)}")
    strokes = _table(root) if has_table(root) else _dealt(root)
    clips = tuple(
        Clip(s.path, s.fold, (s.stroke,), group=s.tonic)
        if target == "stroke"
        else Clip(s.path, s.fold, (s.tonic,))
        for s in strokes
    )
    return Task(f"mridangam-{target}", "multiclass", used_classes(clips), clips)


def _table(root: Path) -> list[_Stroke]:
    return [
        _Stroke(path, fold, row["label"], _tonic(row["tonic"], path))
        for path, fold, row in read_folded(root, ["label", "tonic"])
    ]


def _dealt(root: Path) -> list[_Stroke]:
    """Deal the strokes of mirdata's index out into folds, evenly by stroke and tonic."""
    tracks = [track for _, track in sorted(mirdata_tracks("mridangam_stroke", root).items())]
    folds = stratified_folds(
        [track.track_id for track in tracks],
        [f"{track.stroke_name} {track.tonic}" for track in tracks],
        FOLDS,
    )
    return [
        _Stroke(Path(track.audio_path), fold, track.stroke_name, track.tonic)
        for track, fold in zip(tracks, folds, strict=True)
    ]


def _tonic(text: str, path: Path) -> str:
    """Spell a tonic with sharps: file names have ``csh`` for C#."""
    try:
        return tonic_name(text.replace("sh", "#"))
    except TaskError as error:
        raise TaskError(f"{path}: {error}") from error
