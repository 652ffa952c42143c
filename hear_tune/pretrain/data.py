"""The data of a training run, as Lightning takes it."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule

from ..config import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from .audio_store import AudioStore
from .pairs import PairDataset, PairLoader


class PretrainData(LightningDataModule):
    """Pairs of crops from one or more audio stores.

    Parameters
    ----------
    audio
        Folders of stores, made by ``hear-tune store``.
    batch_size
        Pairs per step and device.
    crop_samples
        Length of a crop at 22,050 Hz.
    max_distance_seconds
        Farthest that the two crops of a pair start apart; by default anywhere in the track.
    shortest_seconds
        Tracks shorter than this are left out; by default half a crop. Those shorter than a crop are
        repeated to fill it.
    pairs_per_epoch
        By default the number of tracks.
    workers
        Processes that read crops; reading from a store is so quick that none is the default.
    seed
        Of everything that is random in the run.

    Raises
    ------
    AudioStoreError, ValueError
        If a store is unusable, or the batch is larger than the data.
    """

    def __init__(
        self,
        audio: list[str],
        batch_size: int = 48,
        crop_samples: int = WINDOW_SAMPLES,
        max_distance_seconds: float | None = None,
        shortest_seconds: float | None = None,
        pairs_per_epoch: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.stores = [AudioStore(folder) for folder in audio]
        self.dataset = PairDataset(
            self.stores,
            crop_samples,
            seed,
            _to_samples(max_distance_seconds),
            _to_samples(shortest_seconds),
        )
        self.batch_size = batch_size
        self.pairs_per_epoch = pairs_per_epoch or len(self.dataset)
        self.workers = workers

    @property
    def hours(self) -> float:
        """Length of all audio."""
        return sum(store.seconds for store in self.stores) / 3600

    def train_dataloader(self) -> PairLoader:
        """Batches of this process."""
        assert self.trainer is not None
        return PairLoader(
            self.dataset,
            self.batch_size,
            self.pairs_per_epoch,
            self.trainer.global_rank,
            self.trainer.world_size,
            self.workers,
        )


def _to_samples(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * SAMPLE_RATE_HZ)
