"""Decoded audio on disk, ready for random crops: 16-bit mono PCM at 22,050 Hz, memory-mapped.

A store is a folder of parts. ``000000.pcm`` holds the samples of some tracks end to end, and
``000000.json`` lists these: path, number of samples, CRC-32 and remarks on the file. Parts appear
atomically, so that an interrupted build resumes where it stopped.
"""

from __future__ import annotations

import json
import os
import pickle
import zlib
from collections.abc import Iterator, Mapping, Sequence
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
from ..embedding.workers import Crew, FileReport, Job, Note, Outcome
from ..networks.config import SAMPLE_RATE_HZ

FORMAT = "hear-tune audio store 1"
_ENTRY = {"path": str, "samples": int, "crc32": int}
_OPTIONAL = {"missing": str, "remarks": list}  # older stores have what is missing, joined
FULL_SCALE = 32_768  # int16 value of 1.0

Pcm = npt.NDArray[np.int16]


class AudioStoreError(HearTuneError, ValueError):
    """A store is damaged or missing."""


@dataclass(frozen=True)
class Track:
    """A track in a store.

    Attributes
    ----------
    path : str
        Path of the file that it was decoded from.
    samples : int
        Length at 22,050 Hz.
    crc32 : int
        CRC-32 of the PCM bytes.
    shard : str
        Name of the part of the store.
    start : int
        First sample in that part.
    missing : str
        What audio is missing, such as "cut off: ..."; empty if the track is complete.
    """

    path: str
    samples: int
    crc32: int
    shard: str
    start: int
    missing: str = ""

    def parts(self, samples: int) -> Iterator[tuple[int, int]]:
        """Pairs (begin, end) of equal parts of about that many samples."""
        count = max(1, round(self.samples / samples))
        edges = [self.samples * part // count for part in range(count + 1)]
        return pairwise(edges)


class AudioStore:
    """A store opened for reading, by memory mapping.

    Parameters
    ----------
    folder : path-like
        Made by `build_store`.

    Attributes
    ----------
    tracks : list of Track
        All tracks, in the order of the parts.

    Raises
    ------
    AudioStoreError
        If the folder is no store, or damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.tracks: list[Track] = []
        self._maps: dict[str, Pcm] = {}
        for index in indices_of(self.folder):
            self._open_part(index)
        if not self.tracks:
            raise AudioStoreError(f"{self.folder}: no audio store; make one with hear-tune store")

    @property
    def seconds(self) -> float:
        """Total length of all tracks."""
        return sum(track.samples for track in self.tracks) / SAMPLE_RATE_HZ

    def crop(self, track: Track, start: int, length: int) -> Pcm:
        """Return up to `length` samples of a track from `start` on, as a view of the file."""
        end = min(start + length, track.samples)
        return self._maps[track.shard][track.start + start : track.start + end]

    def verify(self) -> list[Track]:
        """Return the tracks whose samples do not match their CRC-32."""
        return [
            track
            for track in progress_bar(self.tracks, desc="verify", unit="track")
            if zlib.crc32(self.crop(track, 0, track.samples).data) != track.crc32
        ]

    def _open_part(self, index: Path) -> None:
        shard, start = index.stem, 0
        for entry in _read_index(index):
            path, samples, crc32 = (entry[name] for name in _ENTRY)
            missing = missing_audio(_remarks_in(entry))
            self.tracks.append(Track(path, samples, crc32, shard, start, missing))
            start += samples
        data = index.with_suffix(".pcm")
        size = data.stat().st_size if data.exists() else 0
        if size != 2 * start:
            raise AudioStoreError(
                f"{data}: {size:,} bytes where its index says {2 * start:,}; delete "
                f"{shard}.json and {shard}.pcm, and build the store again"
            )
        self._maps[shard] = np.memmap(data, "<i2", "r", shape=(start,))


def indices_of(folder: Path) -> list[Path]:
    """Return the indices of a store's parts, in order; none if it has no part."""
    return sorted(folder.glob("*.json"))


def build_store(
    inputs: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    workers: int | None = None,
) -> FileReport:
    """Decode music into a store with several processes and a progress bar.

    Files that the store holds are kept as they are; new ones are added.

    Parameters
    ----------
    inputs : sequence of path-like
        Files, and folders to search recursively.
    folder : path-like
        The store; created if needed.
    workers : int, optional
        Number of processes; by default one per core. A file that crashes its decoder affects no
        other. Except on Linux, scripts need the ``if __name__ == "__main__":`` guard of
        multiprocessing.

    Returns
    -------
    FileReport
        Of all these files, including those that the store held before.

    Raises
    ------
    FileNotFoundError
        If the inputs hold no audio file.
    AudioStoreError
        If the store is damaged.
    InUseError
        If another process is building it.
    OSError
        If it cannot be written.
    WorkerError
        If a process died, and not because of a file.
    """
    folder = Path(folder)
    found = find_audio(inputs)
    paths = found.paths
    with sole_use(folder, "building it"):
        for leftover in folder.glob("*.partial"):
            leftover.unlink()
        indices = indices_of(folder)
        entries = (entry for index in indices for entry in _read_index(index))
        held = {entry["path"]: _remarks_in(entry) for entry in entries}
        todo = [path for path in paths if path_text(path) not in held]
        first = 1 + max((int(index.stem) for index in indices), default=-1)
        groups = enumerate(group_files(todo), first)
        jobs = (_Part(tuple(group), folder / f"{number:06d}") for number, group in groups)
        report = FileReport(failed=dict(found.unreadable))
        for path in paths:
            report.keep(path, held.get(path_text(path), ()))
        with (
            progress_bar(total=len(paths), initial=len(paths) - len(todo), unit="file") as bar,
            Crew(pickle.dumps(_write_part), workers or core_count()) as crew,
        ):

            def note(outcome: Outcome) -> None:
                report.note(outcome)
                bar.update()

            crew.run(jobs, note)
    return report


@dataclass(frozen=True)
class _Part(Job):
    """A part of the store to write: the audio files and its path without suffix."""

    name: Path


def _write_part(part: _Part, note: Note) -> None:
    """Decode files into one part, which appears atomically; exclude unreadable files."""
    with writing(part.name):
        _decode(part, note)


def _decode(part: _Part, note: Note) -> None:
    entries: list[dict[str, Any]] = []
    data = part.name.with_suffix(".pcm.partial")
    with data.open("wb") as file:
        for path in part.paths:
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
            if remarks:
                entry["remarks"] = [(remark.text, remark.incomplete) for remark in remarks]
            entries.append(entry)
            note(Outcome(path, samples / SAMPLE_RATE_HZ, remarks=tuple(remarks)))
    if not entries:
        data.unlink()
        return
    index = part.name.with_suffix(".json.partial")
    index.write_text(json.dumps({"format": FORMAT, "tracks": entries}, indent=1), "utf-8")
    data.replace(part.name.with_suffix(".pcm"))
    index.replace(part.name.with_suffix(".json"))


def to_pcm(samples: Samples) -> Pcm:
    """Convert float samples to 16-bit little-endian PCM, clipped at full scale."""
    scaled = np.rint(samples * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype("<i2")


def _read_index(index: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(index.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise AudioStoreError(f"{index}: made by another version ({content['format']})")
        tracks: list[dict[str, Any]] = content["tracks"]
        is_valid = all(map(_is_entry, tracks))
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AudioStoreError(f"{index}: damaged, or not of an audio store") from error
    if not is_valid:
        raise AudioStoreError(f"{index}: damaged, a track is not described as it should be")
    return tracks


def _is_entry(entry: Any) -> bool:
    return (
        has_types(entry, _ENTRY, _OPTIONAL)
        and entry["samples"] >= 0
        and all(map(_is_remark, entry.get("remarks", [])))
    )


def _is_remark(pair: Any) -> bool:
    return isinstance(pair, list) and [*map(type, pair)] == [str, bool]


def _remarks_in(entry: Mapping[str, Any]) -> list[Remark]:
    if "missing" in entry:
        return [Remark(entry["missing"], incomplete=True)]
    return [Remark(*pair) for pair in entry.get("remarks", [])]


def has_types(entry: Any, required: Mapping[str, type], optional: Mapping[str, type]) -> bool:
    """Whether a JSON value is an object with values of these types, and no others."""
    if not isinstance(entry, dict):
        return False
    types = {key: type(value) for key, value in entry.items()}
    return required.items() <= types.items() <= {**required, **optional}.items()
