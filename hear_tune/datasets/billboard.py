"""McGill Billboard (Burgoyne et al., ISMIR 2011): 890 chart slots of 1958 to 1991, without audio.

Annotations come through mirdata; the audio is your own. There is no official split: artists are
divided (`splits.stratified_split`), so that no song or artist is in two splits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .keys import TONICS, tonic_name
from .sources import mirdata_tracks
from .splits import DEFAULT_SEED, stratified_split
from .task import Clip, Task, TaskError

TARGETS = ("decade", "tonic")


def load(root: Path, target: str = "decade", seed: int = DEFAULT_SEED) -> Task:
    """Read the task, without slots for which mirdata has no label.

    Parameters
    ----------
    root : Path
        Folder with the annotations, and audio as in mirdata's index or as ``audio/<slot>.*``, with
        four digits.
    target : str
        ``decade`` of the chart, ``1950s`` to ``1990s``; or ``tonic``, the first of the song.
    seed : int
        Seed of the split.

    Raises
    ------
    FileNotFoundError, TaskError
        If the annotations are missing.
    """
    if target not in TARGETS:
        raise TaskError(f"billboard has no target {target!r}, only {', '.join(TARGETS)}")
    read = _decade if target == "decade" else _tonic
    tracks = mirdata_tracks("billboard", root)
    label_of = {slot: label for slot, track in sorted(tracks.items()) if (label := read(track))}
    slots = list(label_of)
    artists = [tracks[slot].artist or slot for slot in slots]
    splits = stratified_split(slots, list(label_of.values()), artists, seed)
    clips = tuple(
        Clip(_audio(root, slot, tracks[slot]), split, (label_of[slot],), group=artist)
        for slot, split, artist in zip(slots, splits, artists, strict=True)
    )
    used = set(label_of.values())
    classes = sorted(used) if target == "decade" else [tonic for tonic in TONICS if tonic in used]
    return Task(f"billboard-{target}", "multiclass", tuple(classes), clips, f"artists, seed {seed}")


def _audio(root: Path, slot: str, track: Any) -> Path:
    own = sorted((root / "audio").glob(f"{int(slot):04d}.*"))
    return own[0] if own else Path(track.audio_path)


def _decade(track: Any) -> str:
    date = track.chart_date
    return f"{date[:3]}0s" if date else ""


def _tonic(track: Any) -> str:
    tonic = track.salami_metadata.get("tonic", "")
    return tonic_name(tonic) if tonic else ""
