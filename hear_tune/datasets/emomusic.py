"""Emomusic (Soleymani et al., CrowdMM 2013): 744 clips of 45 s, arousal and valence of 1 to 9.

The test set is the authors' evaluation set. As in jukemir (Castellon et al., ISMIR 2021), the
rest is divided by artist: 504 / 115 / 125.
"""

from __future__ import annotations

from pathlib import Path

from .splits import hashed_split
from .tables import finite_number, read_table
from .task import TEST, Clip, Task, TaskError

TARGETS = ("arousal", "valence")

_INFO, _LABELS = Path("songs_info.csv"), Path("static_annotations.csv")
_SET = "Mediaeval 2013 set"
_FOLDS, _TRAIN_FOLDS = 10, 8  # of artists


def load(root: Path) -> Task:
    """Read the task; values are as annotated, 1 to 9.

    Parameters
    ----------
    root : Path
        Folder with ``songs_info.csv`` and ``static_annotations.csv``, or with both in
        ``annotations``, and ``clips_45seconds``.

    Raises
    ------
    FileNotFoundError, TaskError
        If the tables are missing or invalid.
    """
    folder = root / "annotations" if (root / "annotations").is_dir() else root
    info = {row["song_id"]: row for row in read_table(folder / _INFO, ["song_id", "Artist", _SET])}
    columns = [f"mean_{target}" for target in TARGETS]
    clips = []
    for row in read_table(folder / _LABELS, ["song_id", *columns]):
        song = row["song_id"]
        where = f"{folder / _LABELS}: song {song}"
        if song not in info:
            raise TaskError(f"{where} is not in {_INFO}")
        values = tuple(finite_number(row[column], f"{where}: {column}") for column in columns)
        audio = root / "clips_45seconds" / f"{song}.mp3"
        artist = _artist(info[song])
        clips.append(Clip(audio, _split(info[song], artist), values=values, group=artist))
    return Task("emomusic", "regression", TARGETS, tuple(clips))


def _artist(song: dict[str, str]) -> str:
    """Reduce the name to letters and single spaces."""
    letters = "".join(
        c for c in song["Artist"].lower() if c.isascii() and (c.isalpha() or c == " ")
    )
    return " ".join(letters.split())


def _split(song: dict[str, str], artist: str) -> str:
    if song[_SET] == "evaluation":
        return TEST
    return hashed_split(artist, _FOLDS, _TRAIN_FOLDS)
