"""GiantSteps key (Knees et al., ISMIR 2015): the key of two-minute pieces of dance music.

Training and validation clips are those of the MTG key data set with a confidence of 2 and one key,
divided by artist as in jukemir (Castellon et al., ISMIR 2021). Two versions of the test set are in
use: ``original``, 604 pieces of the GiantSteps repository (923 / 236 / 604 with the MTG's), and
``plus``, its revision (Faraldo, 2017), through mirdata. Scores on the two are not comparable.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .keys import KEYS, key_name
from .sources import mirdata_tracks
from .splits import hashed_split
from .tables import read_table
from .task import TEST, VALID, Clip, Task, TaskError

ORIGINAL, PLUS = SPLITS = ("original", "plus")

_CONFIDENT = "2"
_FOLDS, _TRAIN_FOLDS = 116, 100  # of artists
_HOPS = 2  # collaborators of collaborators


def load(root: Path, split: str = ORIGINAL) -> Task:
    """Read the task; without the MTG's annotations it has only a test set.

    Parameters
    ----------
    root : Path
        Folder with the repositories ``giantsteps-key-dataset`` and ``giantsteps-mtg-key-dataset``
        (or unpacked archives, with a commit after the name), each with ``annotations`` and
        ``audio``; for ``plus``, also with mirdata's ``giantsteps_key``.
    split : str
        ``original`` or ``plus``.

    Raises
    ------
    FileNotFoundError, TaskError
        If the annotations are missing or invalid.
    """
    if split not in SPLITS:
        raise TaskError(f"giantsteps has no split {split!r}, only {', '.join(SPLITS)}")
    test = _original(root) if split == ORIGINAL else _plus(root)
    clips = (*_mtg(root), *test)
    return Task("giantsteps", "key", KEYS, clips, split)


def _repository(root: Path, name: str) -> Path | None:
    return next(iter(sorted(path for path in root.glob(f"{name}*") if path.is_dir())), None)


def _original(root: Path) -> Iterator[Clip]:
    folder = _repository(root, "giantsteps-key-dataset")
    files = sorted((folder or root).glob("annotations/key/*.key"))
    if folder is None or not files:
        raise FileNotFoundError(f"{root}: no giantsteps-key-dataset*/annotations/key/*.key")
    for file in files:
        key = _key(file.read_text(encoding="utf-8"), file)
        yield Clip(folder / "audio" / f"{file.stem}.mp3", TEST, (key,))


def _plus(root: Path) -> Iterator[Clip]:
    for _, track in sorted(mirdata_tracks("giantsteps_key", root).items()):
        yield Clip(Path(track.audio_path), TEST, (_key(track.key, track.keys_path),))


def _mtg(root: Path) -> Iterator[Clip]:
    folder = _repository(root, "giantsteps-mtg-key-dataset")
    if folder is None:
        return
    metadata = read_table(folder / "annotations" / "beatport_metadata.txt", ["ID", "ARTIST"], "\t")
    artists_of = {row["ID"]: _artists(row["ARTIST"]) for row in metadata}
    split_of = _split_artists(list(artists_of.values()))
    annotations = folder / "annotations" / "annotations.txt"
    for row in read_table(annotations, ["ID", "MANUAL KEY", "C"], "\t"):
        key = row["MANUAL KEY"]
        if row["C"] == _CONFIDENT and "/" not in key:
            piece = row["ID"]
            if piece not in artists_of:
                raise TaskError(f"{annotations}: {piece} is not in beatport_metadata.txt")
            audio = folder / "audio" / f"{piece}.LOFI.mp3"
            artist = artists_of[piece][0]
            label = _key(key, f"{annotations}: {piece}")
            yield Clip(audio, split_of[artist], (label,), group=artist)


def _key(text: str, where: object) -> str:
    try:
        return key_name(text)
    except TaskError as error:
        raise TaskError(f"{where}: {error}") from error


def _artists(text: str) -> tuple[str, ...]:
    return tuple(artist.strip() for artist in text.split(","))


def _split_artists(pieces: list[tuple[str, ...]]) -> dict[str, str]:
    """Split artists by hash, then move collaborators of validation artists to validation too."""
    split_of = {
        artist: hashed_split(artist.lower(), _FOLDS, _TRAIN_FOLDS)
        for artists in pieces
        for artist in artists
    }
    for _ in range(_HOPS):
        for artists in pieces:
            if any(split_of[artist] == VALID for artist in artists):
                split_of.update(dict.fromkeys(artists, VALID))
    return split_of
