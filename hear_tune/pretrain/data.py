"""The training data as a Lightning data module."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule

from ..common.ranges import at_least
from ..networks.config import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from .pairs import PairDataset, PairLoader, PairSource, Share, number_folders
from .pcm_store import AudioStore
from .tar_shards import Shard, StreamedPairs, read_index

_DIGEST_DIGITS = 12  # hexadecimal; unambiguous, and short enough for an error


class PretrainData(LightningDataModule):
    """Pairs of crops from audio stores, or from streamed tar shards.

    Parameters
    ----------
    audio : str or list of str
        Folders of stores, made by ``hear-tune store``; or indices of shards (paths or URLs that end
        in ``.json``), made by ``hear-tune shards``.
    batch_size : int
        Pairs per step and device, at least 2: a pair's negatives are the others.
    crop_samples : int
        Length of a crop at 22,050 Hz.
    max_distance_seconds : float, optional
        Largest distance between the starts of the two crops; by default anywhere in the track.
    shortest_seconds : float, optional
        Exclude tracks or clips shorter than this; by default half a crop. Those shorter than a crop
        are padded with silence.
    segment_seconds : float, optional
        Cut tracks of stores into segments of about this length, each used as a track of its own; by
        default they stay whole. Not for shards.
    neighbours : int
        Keep up to this many tracks of a store's folder together, as hard negatives of each other.
    audio_by_folder : str or list of str, optional
        More stores, in which tracks are contrasted only with those of the same folder: what these
        have in common does not help to distinguish them.
    pairs_per_epoch : int, optional
        By default the number of tracks, segments or clips.
    workers : int
        Processes that read crops; 0 is fast enough for stores.
    seed : int
        Seed of all that is random in the run.

    Attributes
    ----------
    content : dict
        What batches depend on, wherever the data lies: a summary of the "audio", and for shards the
        number of "workers", which determines the order.

    Raises
    ------
    AudioStoreError, ShardError, ValueError
        If a store or index is unusable, the two are mixed, a number is out of range, or the batch
        is larger than the data.
    """

    def __init__(
        self,
        audio: list[str] | str,
        batch_size: int = 48,
        crop_samples: int = WINDOW_SAMPLES,
        max_distance_seconds: float | None = None,
        shortest_seconds: float | None = None,
        segment_seconds: float | None = None,
        neighbours: int = 1,
        audio_by_folder: list[str] | str | None = None,
        pairs_per_epoch: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        at_least(2, batch_size=batch_size)
        at_least(1, crop_samples=crop_samples, neighbours=neighbours)
        at_least(1, pairs_per_epoch=pairs_per_epoch)
        at_least(0, workers=workers, seed=seed, max_distance_seconds=max_distance_seconds)
        at_least(0, shortest_seconds=shortest_seconds, segment_seconds=segment_seconds)
        common = (
            crop_samples,
            seed,
            _to_samples(max_distance_seconds),
            _to_samples(shortest_seconds),
        )
        self.source: PairSource
        self.content: dict[str, Any]
        places = _listed(audio)
        if _are_indices(places):
            if segment_seconds is not None or neighbours > 1 or audio_by_folder:
                raise ValueError(
                    "segment_seconds, neighbours and audio_by_folder are for stores, not for shards"
                )
            shards = [shard for index in places for shard in read_index(index)]
            self.source = StreamedPairs(shards, *common)
            self.content = {"audio": _of_shards(shards), "workers": max(1, workers)}
        else:
            stores = [AudioStore(folder) for folder in places]
            by_folder = [AudioStore(folder) for folder in _listed(audio_by_folder or [])]
            self.source = PairDataset(
                stores, *common, _to_samples(segment_seconds), neighbours, by_folder
            )
            self.content = {"audio": _of_stores(stores, by_folder)}
        self.batch_size = batch_size
        self.pairs_per_epoch = pairs_per_epoch or len(self.source)
        self.workers = workers

    def train_dataloader(self) -> PairLoader:
        """Return the batches of this process."""
        assert self.trainer is not None
        share = Share(
            self.batch_size, self.trainer.global_rank, self.trainer.world_size, self.workers
        )
        return PairLoader(self.source, share, self.pairs_per_epoch)


def _listed(places: list[str] | str) -> list[str]:
    return [places] if isinstance(places, str) else places


def _are_indices(audio: list[str]) -> bool:
    """Whether `audio` names indices of shards, rather than stores."""
    indices = [place for place in audio if place.endswith(".json")]
    if 0 < len(indices) < len(audio):
        raise ValueError(f"either stores or indices of shards, not both: {', '.join(audio)}")
    return bool(indices)


def _of_stores(stores: Sequence[AudioStore], by_folder: Sequence[AudioStore]) -> str:
    """Summarise the tracks, wherever the stores lie."""
    tracks = [(store, track) for store in (*stores, *by_folder) for track in store.tracks]
    folders = number_folders(tracks).tolist()
    entries = [
        (store in by_folder, folder, track.samples, track.crc32)
        for folder, (store, track) in zip(folders, tracks, strict=True)
    ]
    return _summary("tracks", [track.samples for _, track in tracks], entries)


def _of_shards(shards: Sequence[Shard]) -> str:
    """Summarise the clips, wherever the shards lie."""
    entries = [
        (shard.url.rpartition("/")[2], shard.lengths)
        + (() if shard.crc32 is None else (shard.crc32,))  # as in runs with older indices
        for shard in shards
    ]
    lengths = [samples for shard in shards for samples in shard.lengths]
    return _summary("clips", lengths, entries)


def _summary(unit: str, lengths: Sequence[int], entries: object) -> str:
    digest = hashlib.sha256(repr(entries).encode()).hexdigest()[:_DIGEST_DIGITS]
    return f"{len(lengths)} {unit}, {sum(lengths) / SAMPLE_RATE_HZ:.1f} s, sha256 {digest}"


def _to_samples(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * SAMPLE_RATE_HZ)
