"""Tar shards: music streamed during training, for corpora larger than a disk.

Shards follow WebDataset's convention: plain tars of audio files, one clip each. An index,
``shards.json``, lists them and the length of every clip. These numbers and a seed determine who
reads what and when, so that a run resumes anywhere after opening a few shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import posixpath
import tarfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..audio.reading import SUFFIXES, AudioError, Remark, missing_audio, read_blocks, to_mono
from ..common.devices import core_count
from ..common.errors import HearTuneError
from ..common.files import replacing, sole_use, write_whole, writing
from ..common.progress import progress_bar
from ..common.ranges import at_least
from ..embedding.workers import Crew, FileReport, Job, Note, Outcome
from ..networks.config import SAMPLE_RATE_HZ
from .pairs import Pairs, Share, draw_starts, to_pair
from .pcm_store import AudioStore, Pcm, Track, has_types, to_pcm

INDEX = "shards.json"
FORMAT = "hear-tune shards 1"
_SHORTEST_CLIP_SECONDS = 0.01
CLIP_SECONDS = 30.0
CLIPS_PER_SHARD = 256  # about 200 MB of FLAC
OPEN_SHARDS = 8  # mixed by a reader at a time
_ENTRY, _OPTIONAL = {"url": str, "lengths": list}, {"crc32": int, "missing": dict}
_LONGEST = 2**40  # samples of a clip; corrupt Ogg headers gave more
_SEEKABLE = (b"fLaC", b"RIFF")  # formats in which libsndfile seeks to the sample
RETRIES, RETRY_SECONDS = 5, 1.0  # the pause doubles each time


class ShardError(HearTuneError, ValueError):
    """A shard or index is missing or damaged, or they do not match."""


@dataclass(frozen=True)
class Shard:
    """A tar of clips.

    Attributes
    ----------
    url : str
        Anything that fsspec opens; in an index, relative to it or absolute.
    lengths : list of int
        Lengths of the clips in order, in samples at 22,050 Hz; 0 for an unusable clip.
    crc32 : int or None
        CRC-32 of the clips' samples as 16-bit PCM; None in older indices.
    missing : dict of str to str
        What audio is missing, such as "cut off: ...", by the path of the track that clips were cut
        from, or by the name of an indexed clip.
    """

    url: str
    lengths: list[int]
    crc32: int | None = None
    missing: dict[str, str] = field(default_factory=dict)


def read_index(url: str) -> list[Shard]:
    """Read the shards of an index.

    Raises
    ------
    ShardError
        If there is no index, or it is damaged.
    """
    try:
        with fsspec.open(url, "rb") as file:
            content = json.load(file)
    except Exception as error:  # each file system raises its own
        raise ShardError(f"{url}: no index of shards can be read there ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ShardError(f"{url}: not an index of shards; make one with hear-tune shards")
    entries = content.get("shards")
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise ShardError(f"{url}: damaged; make it anew with hear-tune shards")
    parent = url.rpartition("/")[0]
    shards = [Shard(**entry) for entry in entries]
    return [
        shard if "://" in shard.url else replace(shard, url=posixpath.join(parent, shard.url))
        for shard in shards
    ]


def _is_entry(entry: Any) -> bool:
    return (
        has_types(entry, _ENTRY, _OPTIONAL)
        and all(type(length) is int and 0 <= length < _LONGEST for length in entry["lengths"])
        and all(isinstance(reason, str) for reason in entry.get("missing", {}).values())
    )


def write_shards(
    stores: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    clip_seconds: float = CLIP_SECONDS,
    clips_per_shard: int = CLIPS_PER_SHARD,
    seed: int = 0,
    workers: int | None = None,
) -> list[Shard]:
    """Cut the tracks of audio stores into equal clips and write these, shuffled, as FLAC shards.

    Each track gives at least one clip. Existing shards are kept, so an interrupted job resumes.

    Parameters
    ----------
    stores : sequence of path-like
        Made by `hear_tune.pretrain.pcm_store.build_store`.
    folder : path-like
        Output folder; created if needed.
    clip_seconds : float
        Approximate length of clips.
    clips_per_shard : int
        The last shard may hold fewer.
    seed : int
        Seed of the shuffling.
    workers : int, optional
        Number of processes; by default one per core.

    Returns
    -------
    list of Shard
        As in the index that is written beside them.

    Raises
    ------
    AudioStoreError
        If a store is unusable.
    InUseError
        If another process is writing to the folder.
    ValueError
        If a number is out of range.
    ShardError
        If a process died while writing a shard; the others are kept.
    OSError
        If a shard cannot be written.
    """
    at_least(_SHORTEST_CLIP_SECONDS, clip_seconds=clip_seconds)
    at_least(1, clips_per_shard=clips_per_shard)
    folder = Path(folder)
    names = [os.fspath(store) for store in stores]
    clips = _plan(names, round(clip_seconds * SAMPLE_RATE_HZ), seed)
    groups = [clips[i : i + clips_per_shard] for i in range(0, len(clips), clips_per_shard)]
    # the digest keeps shards of another plan apart
    digest = hashlib.sha256(repr((names, groups)).encode()).hexdigest()[:8]
    shards = [
        _ShardOfClips((folder / f"{digest}-{number:06d}.tar",), group)
        for number, group in enumerate(groups)
    ]
    with sole_use(folder, "writing shards there"):
        for leftover in folder.glob("*.partial"):
            leftover.unlink()
        _write_all(shards, partial(_write_shard, stores=names), workers)
        opened = [AudioStore(store) for store in names]
        index = [_describe(shard, opened) for shard in shards]
        _write_index(index, folder)
    return index


def _describe(shard: _ShardOfClips, stores: Sequence[AudioStore]) -> Shard:
    """Return the index entry of a written shard, with the checksum that `index_shards` finds."""
    crc = 0
    for clip in shard.clips:
        crc = zlib.crc32(_pcm(clip, stores).data, crc)
    missing = {clip.track.path: clip.track.missing for clip in shard.clips if clip.track.missing}
    lengths = [clip.samples for clip in shard.clips]
    return Shard(Path(shard.paths[0]).name, lengths, crc, missing)


def _write_all(
    shards: Sequence[_ShardOfClips],
    write: Callable[[_ShardOfClips, Note], None],
    workers: int | None,
) -> None:
    jobs = [shard for shard in shards if not Path(shard.paths[0]).exists()]
    failed: list[str] = []
    with (
        progress_bar(total=len(shards), initial=len(shards) - len(jobs), unit="shard") as bar,
        Crew(pickle.dumps(write), workers or core_count(), task="wrote") as crew,
    ):

        def note(outcome: Outcome) -> None:
            if outcome.error is not None:
                failed.append(f"{outcome.path}: not written ({outcome.error})")
            bar.update()

        crew.run(jobs, note)
    if failed:
        raise ShardError("; ".join(failed))


def index_shards(
    urls: Sequence[str], folder: str | os.PathLike[str]
) -> tuple[list[Shard], FileReport]:
    """Index existing shards: tars of audio files in any format.

    Parameters
    ----------
    urls : sequence of str
        Tars, local or anywhere that fsspec reads.
    folder : path-like
        Folder for the index; created if needed.

    Returns
    -------
    shards : list of Shard
        As in the index.
    report : FileReport
        On the clips, by the tar's and their own name.

    Raises
    ------
    ShardError
        If a shard cannot be read, or none holds a usable clip.
    """
    shards, report = [], FileReport()
    for url in progress_bar(urls, desc="index", unit="shard"):
        url = url if "://" in url else os.path.abspath(url)
        lengths, crc, incomplete = [], 0, {}
        for name, data in _members(url):
            remarks: list[Remark] = []
            samples, failure = 0, None
            try:
                for block in read_blocks(io.BytesIO(data), remarks):
                    samples += len(block)
                    crc = zlib.crc32(to_pcm(block).data, crc)
            except AudioError as error:
                samples, failure = 0, str(error)
            lengths.append(samples)
            report.note(Outcome(f"{url}: {name}", error=failure, remarks=tuple(remarks)))
            if missing := missing_audio(remarks):
                incomplete[name] = missing
        shards.append(Shard(url, lengths, crc, incomplete))
    if not any(any(shard.lengths) for shard in shards):
        raise ShardError(f"{', '.join(urls)}: no clip that can be used")
    Path(folder).mkdir(parents=True, exist_ok=True)
    _write_index(shards, Path(folder))
    return shards, report


class StreamedPairs:
    """Pairs of crops from shards, one pair of each clip per pass.

    Each reader (a worker of any process) takes its own shards of a pass and mixes a few at a time;
    all read equally many batches. The seed and the number of readers determine what each reads.
    Clips that are too short are excluded or padded as by `PairDataset`.

    Parameters
    ----------
    shards : sequence of Shard
        From `read_index`.
    crop_samples, seed, max_distance_samples, shortest_samples : int
        As for `hear_tune.pretrain.pairs.PairDataset`.

    Raises
    ------
    ValueError
        If no clip is long enough.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        crop_samples: int,
        seed: int,
        max_distance_samples: int | None = None,
        shortest_samples: int | None = None,
    ) -> None:
        self.shards = list(shards)
        shortest = crop_samples // 2 if shortest_samples is None else shortest_samples
        self.shortest_samples = max(1, shortest)
        self.usable = np.array(
            [sum(n >= self.shortest_samples for n in shard.lengths) for shard in self.shards]
        )
        self.left_out = sum(len(shard.lengths) for shard in self.shards) - len(self)
        if not len(self):
            raise ValueError(f"none of {self.left_out} clips has {shortest} samples or more")
        self.crop_samples = crop_samples
        self.seed = seed
        self.max_distance_samples = max_distance_samples

    def __len__(self) -> int:
        return int(self.usable.sum())

    @property
    def seconds(self) -> float:
        """Total length of the clips in use."""
        lengths = (length for shard in self.shards for length in shard.lengths)
        return sum(n for n in lengths if n >= self.shortest_samples) / SAMPLE_RATE_HZ

    def check(self, share: Share) -> None:
        """Raise a ValueError if there are too few shards or clips for all readers."""
        if share.readers > len(self.shards):
            raise ValueError(
                f"{share.readers} readers ({share.world_size} processes of {max(1, share.workers)} "
                f"workers) need as many shards, and there are {len(self.shards)}"
            )
        if self.batches_per_pass(share, 0) == 0:
            raise ValueError(
                f"a batch of {share.batch_size} pairs is more than a reader's share of "
                f"{len(self)} clips ({self.left_out} too short)"
            )

    def batches(self, share: Share, first: int, last: int) -> Iterable[Pairs]:
        """Batches `first` to `last` of a process's share of the run."""
        return DataLoader(
            _Readers(self, share, first, last), batch_size=None, num_workers=share.workers
        )

    def batches_per_pass(self, share: Share, turn: int) -> int:
        """Number of batches that each reader has in a pass, given by the one with fewest clips."""
        readers = range(share.readers)
        counts = [int(self.usable[self._shards_of(share, i, turn)].sum()) for i in readers]
        return min(counts) // share.batch_size

    def read(self, share: Share, reader: int, first: int) -> Iterator[Pairs]:
        """Yield a reader's batches from number `first` on, endlessly."""
        turn = 0
        while first >= (count := self.batches_per_pass(share, turn)):
            first -= count
            turn += 1
        while True:
            yield from self._read_pass(share, reader, turn, first)
            turn, first = turn + 1, 0

    def _read_pass(self, share: Share, reader: int, turn: int, first: int) -> Iterator[Pairs]:
        order = self._mix(self._shards_of(share, reader, turn), [self.seed, 3, turn, reader])
        begin, end = (
            number * share.batch_size for number in (first, self.batches_per_pass(share, turn))
        )
        streams = {
            i: self._clips(self.shards[i], skip=int(np.sum(order[:begin] == i)))
            for i in np.unique(order[begin:end])
        }
        batch: list[Tensor] = []
        for place, shard in enumerate(order[begin:end], begin):
            rng = np.random.default_rng([self.seed, 4, turn, reader, place])
            batch.append(self._pair(next(streams[shard]), rng))
            if len(batch) == share.batch_size:
                yield Pairs(torch.stack(batch), torch.zeros(len(batch), dtype=torch.long))
                batch = []

    def _shards_of(self, share: Share, reader: int, turn: int) -> Any:
        order = np.random.default_rng([self.seed, 2, turn]).permutation(len(self.shards))
        return order[reader :: share.readers]

    def _mix(self, shards: Any, seed: list[int]) -> Any:
        """Draw the shard of each clip in a reader's pass."""
        rng = np.random.default_rng(seed)
        groups = [shards[i : i + OPEN_SHARDS] for i in range(0, len(shards), OPEN_SHARDS)]
        return np.concatenate(
            [rng.permutation(np.repeat(group, self.usable[group])) for group in groups]
        )

    def _clips(self, shard: Shard, skip: int) -> Iterator[_Member]:
        """Yield the usable clips of a shard after the first `skip`, retrying a broken stream."""
        failures = 0
        while True:
            try:
                for number, clip in enumerate(self._usable(shard)):
                    if number >= skip:
                        skip += 1
                        yield clip
                return
            except ShardError:
                if failures == RETRIES:
                    raise
                time.sleep(RETRY_SECONDS * 2**failures)
                failures += 1

    def _usable(self, shard: Shard) -> Iterator[_Member]:
        count = 0
        for (name, data), length in zip(_members(shard.url), shard.lengths, strict=False):
            count += 1
            if length >= self.shortest_samples:
                yield _Member(f"{shard.url}: {name}", data, length)
        if count < len(shard.lengths):
            raise ShardError(
                f"{shard.url}: {count} clips where its index says {len(shard.lengths)}; "
                "copy it again, or index it again with hear-tune shards"
            )

    def _pair(self, clip: _Member, rng: np.random.Generator) -> Tensor:
        try:
            crop, samples = _open_clip(clip)
            starts = draw_starts(samples, self.crop_samples, self.max_distance_samples, rng)
            crops = [crop(start, self.crop_samples) for start in starts]
        except (soundfile.SoundFileError, AudioError) as error:
            raise ShardError(
                f"{clip.name}: cannot be decoded ({error}); index its shard again with "
                "hear-tune shards"
            ) from error
        return to_pair(crops, self.crop_samples)


class _Readers(IterableDataset[Pairs]):
    """Batches of one process, dealt to its workers in turn."""

    def __init__(self, pairs: StreamedPairs, share: Share, first: int, last: int) -> None:
        self.pairs, self.share, self.first, self.last = pairs, share, first, last

    def __iter__(self) -> Iterator[Pairs]:
        info = get_worker_info()
        workers = max(1, self.share.workers)
        # torch asks worker 0 first, which must be the one whose turn it is
        numbers = range(self.first + (info.id if info else 0), self.last, workers)
        if not numbers:
            return
        reader = self.share.rank * workers + numbers[0] % workers
        stream = self.pairs.read(self.share, reader, numbers[0] // workers)
        for _ in numbers:
            yield next(stream)


@dataclass(frozen=True)
class _Member:
    """A clip in a shard, and its length in samples by the index."""

    name: str
    data: bytes
    samples: int


@dataclass(frozen=True)
class _Clip:
    """A part of a track in a store."""

    store: int
    track: Track
    start: int
    samples: int


def _plan(stores: Sequence[str], clip_samples: int, seed: int) -> list[_Clip]:
    clips = []
    for number, store in enumerate(stores):
        for track in AudioStore(store).tracks:
            clips += [
                _Clip(number, track, start, end - start)
                for start, end in track.parts(clip_samples)
                if end > start
            ]
    return [clips[i] for i in np.random.default_rng(seed).permutation(len(clips))]


@dataclass(frozen=True)
class _ShardOfClips(Job):
    """A shard to write: its path and clips."""

    clips: list[_Clip]


def _write_shard(shard: _ShardOfClips, note: Note, stores: list[str]) -> None:
    """Write a shard atomically."""
    opened = [AudioStore(store) for store in stores]
    for path in map(Path, shard.paths):
        with writing(path), replacing(path) as partial, tarfile.open(partial, "w") as tar:
            _write_clips(tar, shard.clips, opened)
        note(Outcome(path))


def _write_clips(
    tar: tarfile.TarFile, clips: Sequence[_Clip], stores: Sequence[AudioStore]
) -> None:
    for number, clip in enumerate(clips):
        flac = io.BytesIO()
        soundfile.write(flac, _pcm(clip, stores), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        source = {"path": clip.track.path, "start_seconds": clip.start / SAMPLE_RATE_HZ}
        _add(tar, f"{number:06d}.flac", flac.getvalue())
        _add(tar, f"{number:06d}.json", json.dumps(source).encode())


def _pcm(clip: _Clip, stores: Sequence[AudioStore]) -> Pcm:
    return stores[clip.store].crop(clip.track, clip.start, clip.samples)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _write_index(shards: list[Shard], folder: Path) -> None:
    entries = [
        {key: value for key, value in asdict(shard).items() if value or key != "missing"}
        for shard in shards
    ]
    write_whole(folder / INDEX, json.dumps({"format": FORMAT, "shards": entries}))


def _members(url: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each audio file in a tar."""
    try:
        with fsspec.open(url, "rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                if member.isfile() and PurePosixPath(member.name).suffix.lower() in SUFFIXES:
                    content = tar.extractfile(member)
                    assert content is not None
                    yield member.name, content.read()
    except Exception as error:  # each file system raises its own
        raise ShardError(f"{url}: cannot be read as a tar ({error})") from error


def _open_clip(clip: _Member) -> tuple[Callable[[int, int], Pcm], int]:
    """Return a function that crops a clip by first sample and length, and the clip's length."""
    if clip.data.startswith(_SEEKABLE):
        file = soundfile.SoundFile(io.BytesIO(clip.data))
        if file.frames * SAMPLE_RATE_HZ // file.samplerate == clip.samples:
            return partial(_crop, file), clip.samples
    whole = to_pcm(np.concatenate(list(read_blocks(io.BytesIO(clip.data)))))
    return lambda start, samples: whole[start : start + samples], len(whole)


def _crop(file: soundfile.SoundFile, start: int, samples: int) -> Pcm:
    """Read up to `samples` samples from `start` on, both counted at 22,050 Hz."""
    ratio = file.samplerate / SAMPLE_RATE_HZ
    file.seek(min(round(start * ratio), file.frames))
    audio = file.read(int(np.ceil(samples * ratio)), dtype="float32")
    return to_pcm(to_mono(audio, file.samplerate)[:samples])
