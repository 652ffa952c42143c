"""Pairs of crops of one track, in an order that a seed and a position alone decide.

Sample number n of a run is made by rules that know nothing of workers, processes or what was drawn
before: any run can go on from any place, and no two workers or ranks ever share a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .audio_store import FULL_SCALE, AudioStore, Track


class PairDataset(Dataset[Tensor]):
    """Two random crops of one track.

    Tracks shorter than `shortest_samples` are left out; those between it and a crop's length are
    repeated to fill it. No track ever takes another's place.

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

    Raises
    ------
    ValueError
        If no track is long enough.
    """

    def __init__(
        self,
        stores: Sequence[AudioStore],
        crop_samples: int,
        seed: int,
        max_distance_samples: int | None = None,
        shortest_samples: int | None = None,
    ) -> None:
        shortest = crop_samples // 2 if shortest_samples is None else shortest_samples
        self.tracks = [(s, t) for s in stores for t in s.tracks if t.samples >= max(1, shortest)]
        self.left_out = sum(len(store.tracks) for store in stores) - len(self.tracks)
        if not self.tracks:
            raise ValueError(f"none of {self.left_out} tracks has {shortest} samples or more")
        self.crop_samples = crop_samples
        self.seed = seed
        self.max_distance_samples = max_distance_samples

    def __len__(self) -> int:
        return len(self.tracks)

    def __getitem__(self, number: int) -> Tensor:
        """Sample number `number` of the run: (2, crop_samples) int16."""
        epoch, place = divmod(number, len(self))
        store, track = self.tracks[self._order(epoch)[place]]
        starts = self._draw_starts(track, np.random.default_rng([self.seed, 1, number]))
        crops = [store.crop(track, start, self.crop_samples) for start in starts]
        return torch.from_numpy(np.stack([np.resize(crop, self.crop_samples) for crop in crops]))

    def _draw_starts(self, track: Track, rng: np.random.Generator) -> tuple[int, int]:
        latest = max(0, track.samples - self.crop_samples)
        first = int(rng.integers(latest + 1))
        reach = latest if self.max_distance_samples is None else self.max_distance_samples
        lowest, highest = max(0, first - reach), min(latest, first + reach)
        return first, int(rng.integers(lowest, highest + 1))

    def _order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """All tracks, shuffled anew for each epoch."""
        if epoch != self._cached_epoch:
            rng = np.random.default_rng([self.seed, 0, epoch])
            self._cached_epoch, self._cached_order = epoch, rng.permutation(len(self))
        return self._cached_order

    _cached_epoch = -1
    _cached_order: np.ndarray[Any, np.dtype[np.int64]]


def to_float(crops: Tensor) -> Tensor:
    """PCM of any shape as float32 in -1..1."""
    return crops.float() / FULL_SCALE


class PairLoader:
    """Batches of pairs that a checkpoint can stop and go on with, without repeating any.

    Within one pass over the tracks no batch holds a track twice; the few tracks that fill no whole
    batch wait for the next pass, which has another order.

    Parameters
    ----------
    dataset
        Of pairs.
    batch_size
        Pairs per batch and process.
    pairs_per_epoch
        Of all processes; an epoch may be a part of a pass, or several.
    rank, world_size
        Which of how many processes this is; each gets samples of its own.
    workers
        Processes that read.

    Raises
    ------
    ValueError
        If a batch of all processes takes more pairs than there are tracks.
    """

    def __init__(
        self,
        dataset: PairDataset,
        batch_size: int,
        pairs_per_epoch: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ) -> None:
        together = batch_size * world_size
        if together > len(dataset):
            raise ValueError(
                f"a batch of {together} pairs needs as many tracks, and there are {len(dataset)} "
                f"({dataset.left_out} too short): a track would be its own negative"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.batches = max(1, pairs_per_epoch // together)
        self.rank = rank
        self.world_size = world_size
        self.workers = workers
        self.delivered = 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Tensor]:
        """The rest of the epoch under way, or the next one."""
        end = (self.delivered // self.batches + 1) * self.batches
        numbers = [self._numbers(batch) for batch in range(self.delivered, end)]
        for crops in DataLoader(self.dataset, batch_sampler=numbers, num_workers=self.workers):
            self.delivered += 1
            yield crops

    def _numbers(self, batch: int) -> list[int]:
        """Sample numbers of this process's share of a batch, counted from the start of the run."""
        together = self.batch_size * self.world_size
        turn, place = divmod(batch, len(self.dataset) // together)
        first = turn * len(self.dataset) + place * together + self.rank * self.batch_size
        return list(range(first, first + self.batch_size))

    def state_dict(self) -> dict[str, int]:
        """Where the run is, for a checkpoint."""
        return {"delivered": self.delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.delivered = state["delivered"]
