"""Decoded audio on disk, ready for random crops: 16-bit mono PCM at 22,050 Hz, memory-mapped.

A store is a folder of shards. ``000000.pcm`` holds the samples of some tracks end to end,
``000000.json`` says which: path, number of samples and CRC-32 of each, and what is missing of it.
A shard appears whole or not at all, so that building can be interrupted and goes on where it
stopped.
"""

from __future__ import annotations

import json
import os
import pickle
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..audio.files import find_audio, group_files, path_text
from ..audio.reading import AudioError, Remark, missing_audio, read_blocks
from ..common.devices import core_count
from ..common.errors import HearTuneError
from ..common.files import sole_use, writing
from ..common.progress import progress_bar
from ..common.samples import Samples
from ..embedding.workers import Crew, Job, Note, Outcome
from ..networks.config import SAMPLE_RATE_HZ

FORMAT = "hear-tune audio store 1"
_ENTRY = {"path": str, "samples": int, "crc32": int}
_OPTIONAL = {"missing": str}  # of files of which a part could not be decoded
FULL_SCALE = 32_768  # int16 value of 1.0

Pcm = npt.NDArray[np.int16]


class AudioStoreError(HearTuneError, ValueError):
    """A store is damaged, or no store at all."""


@dataclass(frozen=True)
class Track:
    """Where a track lies in a store.

    Attributes
    ----------
    path
        Of the file that it was decoded from.
    samples
        Its length at 22,050 Hz.
    crc32
        Of its PCM bytes.
    shard
        Name of its shard.
    start
        Its first sample in the shard.
    missing
        What is to be said of audio that is missing, as "cut off: ..."; empty if it is whole.
    """

    path: str
    samples: int
    crc32: int
    shard: str
    start: int
    missing: str = ""

    def parts(self, samples: int) -> Iterator[tuple[int, int]]:
        """First and last sample, exclusive, of equal parts of about so many samples."""
        count = max(1, round(self.samples / samples))
        edges = [self.samples * part // count for part in range(count + 1)]
        return pairwise(edges)


class AudioStore:
    """A store opened for reading; cheap to open, and nothing is read before it is needed.

    Parameters
    ----------
    folder
        Made by `build_store`.

    Attributes
    ----------
    tracks
        All tracks, in the order of the shards.

    Raises
    ------
    AudioStoreError
        If the folder is no store, or a shard is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.tracks: list[Track] = []
        self._maps: dict[str, Pcm] = {}
        for index in sorted(self.folder.glob("*.json")):
            self._open_shard(index)
        if not self.tracks:
            raise AudioStoreError(f"{self.folder}: no audio store; make one with hear-tune store")

    @property
    def seconds(self) -> float:
        """Length of all tracks."""
        return sum(track.samples for track in self.tracks) / SAMPLE_RATE_HZ

    def crop(self, track: Track, start: int, length: int) -> Pcm:
        """Samples of a track from `start` on, at most `length`, as a view of the file."""
        end = min(start + length, track.samples)
        return self._maps[track.shard][track.start + start : track.start + end]

    def verify(self) -> list[Track]:
        """Tracks whose samples are not those that were written."""
        return [
            track
            for track in progress_bar(self.tracks, desc="verify", unit="track")
            if zlib.crc32(self.crop(track, 0, track.samples).data) != track.crc32
        ]

    def _open_shard(self, index: Path) -> None:
        shard = index.stem
        entries = _read_index(index)
        start = 0
        for entry in entries:
            self.tracks.append(Track(**entry, shard=shard, start=start))
            start += entry["samples"]
        data = index.with_suffix(".pcm")
        size = data.stat().st_size if data.exists() else 0
        if size != 2 * start:
            raise AudioStoreError(
                f"{data}: {size:,} bytes where its index says {2 * start:,}; delete the shard "
                f"({shard}.json and {shard}.pcm) and build the store again"
            )
        self._maps[shard] = np.memmap(data, "<i2", "r", shape=(start,))


def build_store(
    inputs: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    workers: int | None = None,
) -> dict[str, str]:
    """Decode folders and files of music into a store, several at a time, with a progress bar.

    Files that the store holds already are left as they are; new ones are added.

    Parameters
    ----------
    inputs
        Folders, searched through all levels, and single files.
    folder
        The store; made if it is not there.
    workers
        Processes; by default one per core. A file that crashes its decoder costs no more than
        itself. Where processes are not forked (elsewhere than on Linux), a script must keep its own
        work under ``if __name__ == "__main__":``, as multiprocessing asks.

    Returns
    -------
    dict
        Reason by path of each file that could not be decoded, or not to its end; also of those
        that the store held already.

    Raises
    ------
    FileNotFoundError
        If the inputs hold no audio file at all.
    AudioStoreError
        If the store is damaged.
    InUseError
        If another process builds it.
    OSError
        If it cannot be written.
    WorkerError
        If a process died, but not because of a file.
    """
    folder = Path(folder)
    found = find_audio(inputs)
    paths = found.paths
    with sole_use(folder, "building it"):
        for leftover in folder.glob("*.partial"):
            leftover.unlink()
        indices = sorted(folder.glob("*.json"))
        entries = (entry for index in indices for entry in _read_index(index))
        held = {entry["path"]: entry.get("missing", "") for entry in entries}
        todo = [path for path in paths if path_text(path) not in held]
        first = 1 + max((int(index.stem) for index in indices), default=-1)
        groups = enumerate(group_files(todo), first)
        jobs = (_Shard(tuple(group), folder / f"{number:06d}") for number, group in groups)
        missing = {os.fspath(path): held.get(path_text(path), "") for path in paths}
        failed = found.unreadable | {path: reason for path, reason in missing.items() if reason}
        with (
            progress_bar(total=len(paths), initial=len(paths) - len(todo), unit="file") as bar,
            Crew(pickle.dumps(_write_shard), workers or core_count()) as crew,
        ):

            def note(outcome: Outcome) -> None:
                if reason := outcome.error or missing_audio(outcome.remarks):
                    failed[os.fspath(outcome.path)] = reason
                bar.update()

            crew.run(jobs, note)
    return failed


@dataclass(frozen=True)
class _Shard(Job):
    """A shard to be written, its name without suffix, and the files that it is made of."""

    name: Path


def _write_shard(shard: _Shard, note: Note) -> None:
    """Decode files into one shard, which appears whole or not at all; a bad file is left out."""
    with writing(shard.name):
        _decode(shard, note)


def _decode(shard: _Shard, note: Note) -> None:
    entries: list[dict[str, Any]] = []
    data = shard.name.with_suffix(".pcm.partial")
    with data.open("wb") as file:
        for path in shard.paths:
            start = file.tell()
            checksum = 0
            remarks: list[Remark] = []
            try:
                for block in read_blocks(path, remarks):
                    pcm = to_pcm(block).tobytes()
                    checksum = zlib.crc32(pcm, checksum)
                    file.write(pcm)
            except AudioError as error:
                file.seek(start)
                file.truncate()
                note(Outcome(path, error=str(error)))
                continue
            samples = (file.tell() - start) // 2
            entry = {"path": path_text(path), "samples": samples, "crc32": checksum}
            missing = missing_audio(remarks)
            entries.append(entry | ({"missing": missing} if missing else {}))
            note(Outcome(path, samples / SAMPLE_RATE_HZ, remarks=tuple(remarks)))
    if not entries:
        data.unlink()
        return
    index = shard.name.with_suffix(".json.partial")
    index.write_text(json.dumps({"format": FORMAT, "tracks": entries}, indent=1), "utf-8")
    data.replace(shard.name.with_suffix(".pcm"))
    index.replace(shard.name.with_suffix(".json"))


def to_pcm(samples: Samples) -> Pcm:
    """Float samples as 16-bit PCM, little-endian; what exceeds full scale is clipped."""
    scaled = np.rint(samples * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype("<i2")


def _read_index(index: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(index.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise AudioStoreError(f"{index}: made by another version ({content['format']})")
        tracks: list[dict[str, Any]] = content["tracks"]
        sound = all(map(_is_entry, tracks))
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AudioStoreError(f"{index}: damaged, or not of an audio store") from error
    if not sound:
        raise AudioStoreError(f"{index}: damaged, a track lacks its path, length or checksum")
    return tracks


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    types = {key: type(value) for key, value in entry.items()}
    is_typed = _ENTRY.items() <= types.items() <= (_ENTRY | _OPTIONAL).items()
    return is_typed and entry["samples"] >= 0
