"""Pairs of crops of one track, in an order that a seed and a position alone decide.

Sample number n of a run is made by rules that know nothing of workers, processes or what was drawn
before: any run can go on from any place, and no two workers or ranks ever share a sample.
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
    """Which part of every batch a process makes, and how.

    Attributes
    ----------
    batch_size
        Pairs per batch and process.
    rank, world_size
        Which of how many processes this is; each gets samples of its own.
    workers
        Processes that read for this one.
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1
    workers: int = 0

    @property
    def readers(self) -> int:
        """Workers of all processes; a process without any reads itself."""
        return self.world_size * max(1, self.workers)


class Pairs(NamedTuple):
    """Pairs of crops.

    `crops` have the shape (pairs, 2, crop_samples), int16. `groups`, (pairs,), integers, say which
    pairs may be each other's negatives: those of one group.
    """

    crops: Tensor
    groups: Tensor


class PairSource(Protocol):
    """Where pairs come from: tracks on disk, or clips that stream past."""

    crop_samples: int
    left_out: int

    @property
    def seconds(self) -> float:
        """Length of all audio."""

    def __len__(self) -> int:
        """Number of tracks or clips that are long enough."""

    def check(self, share: Share) -> None:
        """Raise a ValueError if there is not enough for such batches."""

    def batches(self, share: Share, first: int, last: int) -> Iterable[Pairs]:
        """Batches number `first` to `last` of a process."""


class PairDataset(Dataset[Pairs]):
    """Two random crops of one track.

    Tracks shorter than `shortest_samples` are left out; those between it and a crop's length are
    followed by silence. No track ever takes another's place. Where tracks differ much in length,
    segments let each count by its length, and make parts of one track tell apart.

    Parameters
    ----------
    stores
        Where the audio lies.
    crop_samples
        Length of a crop.
    seed
        Of everything that is drawn.
    max_distance_samples
        Farthest that the starts of the two crops lie apart; None for anywhere in the track.
    shortest_samples
        Length of the shortest track to use; by default half a crop.
    segment_samples
        Cut tracks into equal segments of about this length, and take each for a track of its own;
        None for whole tracks.
    neighbours
        At most so many tracks that lie together in one folder stay together in the order. They are
        each other's hard negatives. Segments of one track are not: nothing but chance would tell
        them apart.
    by_folder
        More stores, where each folder is a group of its own; all tracks of `stores` are one.

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
        # first all tracks' first segments: neighbours are of several tracks
        self.tracks = [segment for _, segment in sorted(segments, key=lambda item: item[0])]
        self.crop_samples = crop_samples
        self.seed = seed
        self.max_distance_samples = max_distance_samples
        self.neighbours = neighbours
        self._folders = number_folders(self.tracks)
        apart = np.array([store in by_folder for store, _ in self.tracks])
        self._groups = np.where(apart, self._folders, 0)
        together = apart[1:] & (np.diff(self._groups) == 0)
        if by_folder and (neighbours < 2 or not together.any()):
            raise ValueError(
                "by folder there is nothing to compare: no folder has two tracks, "
                f"or neighbours ({neighbours}) is less than 2"
            )

    def __len__(self) -> int:
        return len(self.tracks)

    @property
    def seconds(self) -> float:
        """Length of all tracks that are used."""
        return sum(track.samples for _, track in self.tracks) / SAMPLE_RATE_HZ

    def __getitem__(self, number: int) -> Pairs:
        """Sample number `number` of the run: one pair, without the first dimension."""
        epoch, place = divmod(number, len(self))
        row = self._order(epoch)[place]
        store, track = self.tracks[row]
        rng = np.random.default_rng([self.seed, 1, number])
        starts = draw_starts(track.samples, self.crop_samples, self.max_distance_samples, rng)
        crops = [store.crop(track, start, self.crop_samples) for start in starts]
        return Pairs(to_pair(crops, self.crop_samples), torch.tensor(self._groups[row]))

    def check(self, share: Share) -> None:
        """Raise a ValueError if a batch of all processes takes more pairs than there are tracks."""
        together = share.batch_size * share.world_size
        if together > len(self):
            raise ValueError(
                f"a batch of {together} pairs needs as many tracks, and there are {len(self)} "
                f"({self.left_out} too short): a track would be its own negative"
            )

    def batches(self, share: Share, first: int, last: int) -> Iterable[Pairs]:
        """Batches number `first` to `last` of a process."""
        numbers = [self._numbers(share, batch) for batch in range(first, last)]
        return DataLoader(self, batch_sampler=numbers, num_workers=share.workers)

    def _numbers(self, share: Share, batch: int) -> list[int]:
        """Sample numbers of a process's share of a batch, counted from the start of the run."""
        together = share.batch_size * share.world_size
        turn, place = divmod(batch, len(self) // together)
        first = turn * len(self) + place * together + share.rank * share.batch_size
        return list(range(first, first + share.batch_size))

    def _order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """All tracks, shuffled anew for each epoch, neighbours together."""
        if epoch != self._cached_epoch:
            rng = np.random.default_rng([self.seed, 0, epoch])
            parts = list(self._parts(rng))
            order = np.concatenate([parts[i] for i in rng.permutation(len(parts))])
            self._cached_epoch, self._cached_order = epoch, order
        return self._cached_order

    def _parts(self, rng: np.random.Generator) -> Iterator[Any]:
        """Neighbours: equal parts of the tracks of each folder, which begin anywhere in it."""
        borders = np.flatnonzero(np.diff(self._folders)) + 1
        for folder in np.split(np.arange(len(self)), borders):
            turned = np.roll(folder, rng.integers(len(folder)))
            yield from np.array_split(turned, -(-len(folder) // self.neighbours))

    _cached_epoch = -1
    _cached_order: np.ndarray[Any, np.dtype[np.int64]]


def number_folders(tracks: Sequence[tuple[AudioStore, Track]]) -> Any:
    """Number of each track's folder, from 1 on."""
    folders = [(store.folder, os.path.dirname(track.path)) for store, track in tracks]
    numbers = {folder: number for number, folder in enumerate(dict.fromkeys(folders), 1)}
    return np.array([numbers[folder] for folder in folders])


def draw_starts(
    samples: int, crop_samples: int, max_distance: int | None, rng: np.random.Generator
) -> tuple[int, int]:
    """Places of two crops in a track of so many samples, at most `max_distance` apart."""
    latest = max(0, samples - crop_samples)
    first = int(rng.integers(latest + 1))
    reach = latest if max_distance is None else max_distance
    lowest, highest = max(0, first - reach), min(latest, first + reach)
    return first, int(rng.integers(lowest, highest + 1))


def to_pair(crops: Sequence[Pcm], crop_samples: int) -> Tensor:
    """Crops as one tensor; silence follows those of a short track."""
    return torch.from_numpy(np.stack([pad_end(crop, crop_samples) for crop in crops]))


def to_float(crops: Tensor) -> Tensor:
    """PCM of any shape as float32 in -1..1."""
    return crops.float() / FULL_SCALE


class PairLoader:
    """Batches of pairs that a checkpoint can stop and go on with, without repeating any.

    Within one pass over the tracks of stores no batch holds a track twice; the few tracks that fill
    no whole batch wait for the next pass, which has another order.

    Parameters
    ----------
    source
        Of pairs.
    share
        This process's part of every batch.
    pairs_per_epoch
        Of all processes; an epoch may be a part of a pass, or several.

    Raises
    ------
    ValueError
        If the source has not enough for such batches.
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
        """The rest of the epoch under way, or the next one."""
        end = (self.delivered // self.epoch_batches + 1) * self.epoch_batches
        for pairs in self.source.batches(self.share, self.delivered, end):
            self.delivered += 1
            yield pairs

    def state_dict(self) -> dict[str, int]:
        """Where the run is, for a checkpoint."""
        return {"delivered": self.delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.delivered = state["delivered"]
