"""Tar shards: music that streams past training, for corpora larger than a disk.

Shards follow WebDataset's convention: plain tars of audio files, one clip each. An index,
``shards.json``, names them and the length of every clip. From these numbers and a seed alone
follows who reads what and when, so that a run can go on from any place after opening a few shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import tarfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
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
from ..common.files import sole_use, write_whole, writing
from ..common.progress import progress_bar
from ..common.ranges import above, at_least
from ..embedding.workers import Crew, Job, Note, Outcome
from ..networks.config import SAMPLE_RATE_HZ
from .pairs import Pairs, Share, draw_starts, to_pair
from .pcm_store import AudioStore, Pcm, Track, to_pcm

INDEX = "shards.json"
FORMAT = "hear-tune shards 1"
CLIP_SECONDS = 30.0
CLIPS_PER_SHARD = 256  # about 200 MB of FLAC
OPEN_SHARDS = 8  # that a reader mixes
_LONGEST = 2**40  # samples of a clip; headers of Ogg that were once believed gave more
_SEEKABLE = (b"fLaC", b"RIFF")  # what libsndfile finds a place in by its sample
RETRIES, RETRY_SECONDS = 5, 1.0  # the pause doubles each time


class ShardError(HearTuneError, ValueError):
    """A shard or index is missing, damaged or not what its index says."""


@dataclass(frozen=True)
class Shard:
    """A tar of clips.

    Attributes
    ----------
    url
        Anything that fsspec opens; in an index, relative to it or absolute.
    lengths
        Of its clips in their order, in samples at 22,050 Hz; 0 if a clip cannot be used.
    crc32
        Of the clips' samples as 16-bit PCM; None if the index does not say.
    """

    url: str
    lengths: list[int]
    crc32: int | None = None


def read_index(url: str) -> list[Shard]:
    """Shards of an index.

    Raises
    ------
    ShardError
        If there is none, or it is damaged.
    """
    try:
        with fsspec.open(url, "rb") as file:
            content = json.load(file)
    except Exception as error:  # each file system raises its own
        raise ShardError(f"{url}: no index of shards can be read there ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ShardError(f"{url}: not an index of shards; make one with hear-tune shards")
    if not _are_entries(content.get("shards")):
        raise ShardError(f"{url}: damaged; make it anew with hear-tune shards")
    parent = url.rpartition("/")[0]
    shards = [Shard(**entry) for entry in content["shards"]]
    return [replace(shard, url=_join(parent, shard.url)) for shard in shards]


def _are_entries(shards: Any) -> bool:
    """Whether each has its place, the lengths of its clips and, if any, their checksum."""
    kinds = {"url": str, "lengths": list}
    return isinstance(shards, list) and all(
        isinstance(shard, dict)
        and {key: type(value) for key, value in shard.items()} in (kinds, {**kinds, "crc32": int})
        and all(type(length) is int and 0 <= length < _LONGEST for length in shard["lengths"])
        for shard in shards
    )


def write_shards(
    stores: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    clip_seconds: float = CLIP_SECONDS,
    clips_per_shard: int = CLIPS_PER_SHARD,
    seed: int = 0,
    workers: int | None = None,
) -> list[Shard]:
    """Cut the tracks of audio stores into clips and write these, shuffled, as FLAC into shards.

    A track gives the whole number of equal clips that comes nearest to the length asked for, at
    least one. Shards that are there already are kept: an interrupted job goes on.

    Parameters
    ----------
    stores
        Made by `hear_tune.pretrain.pcm_store.build_store`.
    folder
        Where to; made if it is not there.
    clip_seconds
        About how long clips are.
    clips_per_shard
        The last shard may hold fewer.
    seed
        Of the shuffling.
    workers
        Processes; by default one per core.

    Returns
    -------
    list of Shard
        As in the index that is written beside them.

    Raises
    ------
    AudioStoreError
        If a store is unusable.
    InUseError
        If another process is writing there.
    ValueError
        If a number is out of range.
    ShardError
        If a process died while it wrote a shard; the others are kept.
    OSError
        If a shard cannot be written.
    """
    above(0, clip_seconds=clip_seconds)
    at_least(1, clips_per_shard=clips_per_shard)
    folder = Path(folder)
    names = [os.fspath(store) for store in stores]
    clips = _plan(names, round(clip_seconds * SAMPLE_RATE_HZ), seed)
    groups = [clips[i : i + clips_per_shard] for i in range(0, len(clips), clips_per_shard)]
    # the digest keeps shards of another plan apart
    digest = hashlib.sha256(repr((names, groups)).encode()).hexdigest()[:8]
    paths = [folder / f"{digest}-{number:06d}.tar" for number in range(len(groups))]
    with sole_use(folder, "writing shards there"):
        jobs = [
            _ShardOfClips((path,), group)
            for path, group in zip(paths, groups, strict=True)
            if not path.exists()
        ]
        _write_all(jobs, partial(_write_shard, stores=names), workers, len(paths))
        opened = [AudioStore(store) for store in names]
        shards = [
            Shard(path.name, [clip.samples for clip in group], _checksum(group, opened))
            for path, group in zip(paths, groups, strict=True)
        ]
        _write_index(shards, folder)
    return shards


def _checksum(clips: Sequence[_Clip], stores: Sequence[AudioStore]) -> int:
    """What `index_shards` finds too, of shards that another run of the job wrote as well."""
    crc = 0
    for clip in clips:
        crc = zlib.crc32(_pcm(clip, stores).data, crc)
    return crc


def _write_all(
    jobs: Sequence[_ShardOfClips],
    write: Callable[[_ShardOfClips, Note], None],
    workers: int | None,
    total: int,
) -> None:
    failed: list[str] = []
    with (
        progress_bar(total=total, initial=total - len(jobs), unit="shard") as bar,
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
) -> tuple[list[Shard], dict[str, str]]:
    """Index shards that others made: tars of audio files of any kind.

    Parameters
    ----------
    urls
        Of tars, local or wherever fsspec reads.
    folder
        For the index; made if it is not there.

    Returns
    -------
    shards : list of Shard
        As in the index.
    failed : dict
        Reason by name of each clip that cannot be used, or is not whole.

    Raises
    ------
    ShardError
        If a shard cannot be read, or none holds a usable clip.
    """
    shards, failed = [], {}
    for url in progress_bar(urls, desc="index", unit="shard"):
        url = url if "://" in url else os.path.abspath(url)
        lengths, crc = [], 0
        for name, data in _members(url):
            remarks: list[Remark] = []
            samples = 0
            try:
                for block in read_blocks(io.BytesIO(data), remarks):
                    samples += len(block)
                    crc = zlib.crc32(to_pcm(block).data, crc)
            except AudioError as error:
                samples = 0
                failed[f"{url}: {name}"] = str(error)
            lengths.append(samples)
            if missing := missing_audio(remarks):
                failed[f"{url}: {name}"] = missing
        shards.append(Shard(url, lengths, crc))
    if not any(any(shard.lengths) for shard in shards):
        raise ShardError(f"{', '.join(urls)}: no clip that can be used")
    Path(folder).mkdir(parents=True, exist_ok=True)
    _write_index(shards, Path(folder))
    return shards, failed


class StreamedPairs:
    """Pairs of crops from shards, one pair of each clip in a pass.

    Each of the readers (the workers of all processes) takes its own shards of a pass and mixes a
    few at a time; all read equally many batches. What a reader sees follows from the seed and the
    number of readers. Clips too short are left out or filled up as `PairDataset` does.

    Parameters
    ----------
    shards
        From `read_index`.
    crop_samples, seed, max_distance_samples, shortest_samples
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
        """Length of all clips."""
        return sum(sum(shard.lengths) for shard in self.shards) / SAMPLE_RATE_HZ

    def check(self, share: Share) -> None:
        """Raise a ValueError if there are too few shards or clips for the processes."""
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
        """Batches number `first` to `last` of a process's share of the run."""
        return DataLoader(
            _Readers(self, share, first, last), batch_size=None, num_workers=share.workers
        )

    def batches_per_pass(self, share: Share, turn: int) -> int:
        """Batches that every reader has in a pass: as many as the one with the fewest clips."""
        readers = range(share.readers)
        counts = [int(self.usable[self._shards_of(share, i, turn)].sum()) for i in readers]
        return min(counts) // share.batch_size

    def read(self, share: Share, reader: int, first: int) -> Iterator[Pairs]:
        """Batches of a reader from number `first` on, without end."""
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
        """From which shard each clip of a reader's pass comes."""
        rng = np.random.default_rng(seed)
        groups = [shards[i : i + OPEN_SHARDS] for i in range(0, len(shards), OPEN_SHARDS)]
        return np.concatenate(
            [rng.permutation(np.repeat(group, self.usable[group])) for group in groups]
        )

    def _clips(self, shard: Shard, skip: int) -> Iterator[_Member]:
        """Usable clips of a shard after the first `skip`, whatever interrupts the stream."""
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
    """The batches of one process, dealt to its workers in turn."""

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
    """A clip as it lies in a shard, and its length in samples by the index."""

    name: str
    data: bytes
    samples: int


@dataclass(frozen=True)
class _Clip:
    """A part of a track of a store."""

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
    """A shard to be written: its path, and the clips of it."""

    clips: list[_Clip]


def _write_shard(shard: _ShardOfClips, note: Note, stores: list[str]) -> None:
    """Write a shard; it appears whole or not at all."""
    opened = [AudioStore(store) for store in stores]
    for path in map(Path, shard.paths):
        unfinished = path.with_suffix(".partial")
        with writing(path), tarfile.open(unfinished, "w") as tar:
            _write_clips(tar, shard.clips, opened)
        unfinished.replace(path)
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
    content = {"format": FORMAT, "shards": [asdict(shard) for shard in shards]}
    write_whole(folder / INDEX, json.dumps(content))


def _members(url: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each audio file of a tar, read front to back."""
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
    """What takes crops of a clip, by first sample and length, and how many samples it has."""
    if clip.data.startswith(_SEEKABLE):
        file = soundfile.SoundFile(io.BytesIO(clip.data))
        if file.frames * SAMPLE_RATE_HZ // file.samplerate == clip.samples:
            return partial(_crop, file), clip.samples
    whole = to_pcm(np.concatenate(list(read_blocks(io.BytesIO(clip.data)))))
    return lambda start, samples: whole[start : start + samples], len(whole)


def _crop(file: soundfile.SoundFile, start: int, samples: int) -> Pcm:
    """Samples of a file from `start` on, both counted at 22,050 Hz; at most so many."""
    ratio = file.samplerate / SAMPLE_RATE_HZ
    file.seek(min(round(start * ratio), file.frames))
    audio = file.read(int(np.ceil(samples * ratio)), dtype="float32")
    return to_pcm(to_mono(audio, file.samplerate)[:samples])


def _join(parent: str, url: str) -> str:
    return url if not parent or "://" in url or url.startswith("/") else f"{parent}/{url}"
