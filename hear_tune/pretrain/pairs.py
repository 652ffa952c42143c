"""Pairs of crops of one track, in an order that depends on a seed and a position only.

Sample n of a run does not depend on workers, processes or earlier samples: a run can resume
anywhere, and no two workers or ranks share a sample.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..common.ranges import at_least
from ..common.samples import pad_end
from ..networks.config import SAMPLE_RATE_HZ
from .pcm_store import FULL_SCALE, AudioStore, Pcm, Track


@dataclass(frozen=True)
class Share:
    """A process's share of every batch.

    Attributes
    ----------
    batch_size : int
        Pairs per batch and process.
    rank, world_size : int
        Number of this process, and how many there are.
    workers : int
        Processes that read for this one.
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1
    workers: int = 0

    @property
    def readers(self) -> int:
        """Number of readers; a process without workers reads itself."""
        return self.world_size * max(1, self.workers)


class Pairs(NamedTuple):
    """Pairs of crops.

    Attributes
    ----------
    crops : Tensor
        Shape (pairs, 2, crop_samples), int16.
    groups : Tensor
        Shape (pairs,), integers: only pairs of one group are each other's negatives.
    """

    crops: Tensor
    groups: Tensor


class PairSource(Protocol):
    """A source of pairs: tracks on disk, or streamed clips."""

    crop_samples: int
    left_out: int

    @property
    def seconds(self) -> float:
        """Total length of the audio."""

    def __len__(self) -> int:
        """Number of tracks or clips that are long enough."""

    def check(self, share: Share) -> None:
        """Raise a ValueError if the source is too small for the batches."""

    def batches(self, share: Share, first: int, last: int) -> Iterable[Pairs]:
        """Batches `first` to `last` of a process."""


class PairDataset(Dataset[Pairs]):
    """Two random crops of one track.

    Tracks shorter than `shortest_samples` are excluded; those shorter than a crop are padded with
    silence. Segments weight tracks by their length, and make parts of one track negatives of each
    other.

    Parameters
    ----------
    stores : sequence of AudioStore
        The audio.
    crop_samples : int
        Length of a crop.
    seed : int
        Seed of all draws.
    max_distance_samples : int, optional
        Largest distance between the starts of the two crops; by default anywhere in the track.
    shortest_samples : int, optional
        Length of the shortest track to use; by default half a crop.
    segment_samples : int, optional
        Cut tracks into equal segments of about this length, each used as a track of its own.
    neighbours : int
        Keep up to this many tracks of one folder together in the order, as hard negatives of each
        other. Segments of one track are not kept together: only chance could distinguish them.
    by_folder : sequence of AudioStore
        More stores, in which each folder is a group of its own; all tracks of `stores` are one.

    Raises
    ------
    ValueError
        If no track is long enough, a segment could be shorter than a crop, or there is nothing to
        compare by folder.
    """

    def __init__(
        self,
        stores: Sequence[AudioStore],
        crop_samples: int,
        seed: int,
        max_distance_samples: int | None = None,
        shortest_samples: int | None = None,
        segment_samples: int | None = None,
        neighbours: int = 1,
        by_folder: Sequence[AudioStore] = (),
    ) -> None:
        shortest = crop_samples // 2 if shortest_samples is None else shortest_samples
        if segment_samples is not None and 3 * segment_samples < 4 * crop_samples:
            raise ValueError(  # "about" so long is at least three quarters of it
                f"segments of about {segment_samples} samples can be shorter than a crop "
                f"({crop_samples}): make them a third longer"
            )
        at_least(1, neighbours=neighbours)
        every = [*stores, *by_folder]
        tracks = [(s, t) for s in every for t in s.tracks if t.samples >= max(1, shortest)]
        self.left_out = sum(len(store.tracks) for store in every) - len(tracks)
        if not tracks:
            raise ValueError(f"none of {self.left_out} tracks has {shortest} samples or more")
        segments = [
            (number, (store, replace(track, samples=end - begin, start=track.start + begin)))
            for store, track in tracks
            for number, (begin, end) in enumerate(track.parts(segment_samples or track.samples))
        ]
        # all first segments, then all second ones: neighbours are segments of different tracks
        segments.sort(key=lambda item: item[0])
        self.tracks = [segment for _, segment in segments]
        self.crop_samples = crop_samples
        self.seed = seed
        self.max_distance_samples = max_distance_samples
        self.neighbours = neighbours
        folders = number_folders(self.tracks)
        # first row of each run of the same segment of one folder's tracks, which may be neighbours
        self._borders = np.flatnonzero(np.diff(folders) | np.diff([n for n, _ in segments])) + 1
        apart = np.array([store in by_folder for store, _ in self.tracks])
        self._groups = np.where(apart, folders, 0)
        together = np.delete(apart, [0, *self._borders])
        if by_folder and (neighbours < 2 or not together.any()):
            raise ValueError(
                "by folder there is nothing to compare: no folder has two tracks, "
                f"or neighbours ({neighbours}) is less than 2"
            )

    def __len__(self) -> int:
        return len(self.tracks)

    @property
    def seconds(self) -> float:
        """Total length of the tracks in use."""
        return sum(track.samples for _, track in self.tracks) / SAMPLE_RATE_HZ

    def __getitem__(self, number: int) -> Pairs:
        """Sample `number` of the run: one pair, without the first dimension."""
        epoch, place = divmod(number, len(self))
        row = self._order(epoch)[place]
        store, track = self.tracks[row]
        rng = np.random.default_rng([self.seed, 1, number])
        starts = draw_starts(track.samples, self.crop_samples, self.max_distance_samples, rng)
        crops = [store.crop(track, start, self.crop_samples) for start in starts]
        return Pairs(to_pair(crops, self.crop_samples), torch.tensor(self._groups[row]))

    def check(self, share: Share) -> None:
        """Raise a ValueError if a batch over all processes exceeds the number of tracks."""
        together = share.batch_size * share.world_size
        if together > len(self):
            raise ValueError(
                f"a batch of {together} pairs needs as many tracks, and there are {len(self)} "
                f"({self.left_out} too short): a track would be its own negative"
            )

    def batches(self, share: Share, first: int, last: int) -> Iterable[Pairs]:
        """Batches `first` to `last` of a process."""
        numbers = [self._numbers(share, batch) for batch in range(first, last)]
        return DataLoader(self, batch_sampler=numbers, num_workers=share.workers)

    def _numbers(self, share: Share, batch: int) -> list[int]:
        """Numbers of the samples in a process's share of a batch."""
        together = share.batch_size * share.world_size
        turn, place = divmod(batch, len(self) // together)
        first = turn * len(self) + place * together + share.rank * share.batch_size
        return list(range(first, first + share.batch_size))

    def _order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Shuffle the tracks of an epoch, with neighbours together."""
        if epoch != self._cached_epoch:
            rng = np.random.default_rng([self.seed, 0, epoch])
            parts = list(self._parts(rng))
            order = np.concatenate([parts[i] for i in rng.permutation(len(parts))])
            self._cached_epoch, self._cached_order = epoch, order
        return self._cached_order

    def _parts(self, rng: np.random.Generator) -> Iterator[Any]:
        """Divide each run of a folder's tracks into equal parts, from a random start."""
        for run in np.split(np.arange(len(self)), self._borders):
            turned = np.roll(run, rng.integers(len(run)))
            yield from np.array_split(turned, -(-len(run) // self.neighbours))

    _cached_epoch = -1
    _cached_order: np.ndarray[Any, np.dtype[np.int64]]


def number_folders(tracks: Sequence[tuple[AudioStore, Track]]) -> Any:
    """Number each track's folder, from 1 on."""
    folders = [(store.folder, os.path.dirname(track.path)) for store, track in tracks]
    numbers = {folder: number for number, folder in enumerate(dict.fromkeys(folders), 1)}
    return np.array([numbers[folder] for folder in folders])


def draw_starts(
    samples: int, crop_samples: int, max_distance: int | None, rng: np.random.Generator
) -> tuple[int, int]:
    """Draw the starts of two crops in a track, at most `max_distance` samples apart."""
    latest = max(0, samples - crop_samples)
    first = int(rng.integers(latest + 1))
    reach = latest if max_distance is None else max_distance
    lowest, highest = max(0, first - reach), min(latest, first + reach)
    return first, int(rng.integers(lowest, highest + 1))


def to_pair(crops: Sequence[Pcm], crop_samples: int) -> Tensor:
    """Stack crops as one tensor, padded with silence."""
    return torch.from_numpy(np.stack([pad_end(crop, crop_samples) for crop in crops]))


def to_float(crops: Tensor) -> Tensor:
    """Convert PCM of any shape to float32 in -1..1."""
    return crops.float() / FULL_SCALE


class PairLoader:
    """Batches of pairs that resume from a checkpoint without repeating any.

    No batch holds a track of a store twice. Tracks left over after a pass's last full batch are
    skipped in that pass; the next one has another order.

    Parameters
    ----------
    source : PairSource
        Source of pairs.
    share : Share
        This process's share of every batch.
    pairs_per_epoch : int
        Over all processes; independent of the length of a pass.

    Raises
    ------
    ValueError
        If the source is too small for the batches.
    """

    def __init__(self, source: PairSource, share: Share, pairs_per_epoch: int) -> None:
        source.check(share)
        self.source = source
        self.share = share
        self.epoch_batches = max(1, pairs_per_epoch // (share.batch_size * share.world_size))
        self.delivered = 0

    def __len__(self) -> int:
        return self.epoch_batches

    def __iter__(self) -> Iterator[Pairs]:
        """Yield the rest of the current epoch, or the next one."""
        end = (self.delivered // self.epoch_batches + 1) * self.epoch_batches
        for pairs in self.source.batches(self.share, self.delivered, end):
            self.delivered += 1
            yield pairs

    def state_dict(self) -> dict[str, int]:
        """Return the position in the run, for a checkpoint."""
        return {"delivered": self.delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume from a position."""
        self.delivered = state["delivered"]
