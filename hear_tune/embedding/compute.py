"""Batches on the device of a model.

A CUDA GPU works by itself: to begin a batch only queues it, its audio is copied while earlier
batches are computed, and this process goes on until it reads the embeddings. Elsewhere a batch is
computed when it is begun.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..common.errors import lacks_memory
from ..common.progress import say
from ..common.samples import Samples
from ..networks.config import WINDOW_SAMPLES

BATCH_SAMPLES = 8 * WINDOW_SAMPLES  # bounds the memory of a batch
GPU_BATCH_SAMPLES = 64 * WINDOW_SAMPLES  # enough to fill a GPU; 2 GB of feature maps for TUNE+

Vectors = npt.NDArray[np.float32]
Read = Callable[[], Vectors]


class Computer:
    """Embeds batches of pieces of audio on a device.

    If the device runs out of memory, the batch is halved, now and for all that follow.

    Parameters
    ----------
    embed : callable
        Embeds audio on the device: (batch, samples) to (batch, ...).
    device : torch.device

    Attributes
    ----------
    batch_samples : int
        Samples that a batch should have.
    ahead : int
        Number of batches to begin before the embeddings of the first one are read.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._embed, self._device = embed, device
        self.batch_samples = BATCH_SAMPLES if device.type == "cpu" else GPU_BATCH_SAMPLES
        self._most_samples = sys.maxsize  # that the device's memory takes, as far as known
        self._copying = _stream(device) if device.type == "cuda" else None
        self.ahead = 0 if self._copying is None else 1

    def begin(self, pieces: Sequence[Samples]) -> Callable[[], list[Vectors]]:
        """Begin to embed pieces of any lengths; those of equal length form one batch.

        Parameters
        ----------
        pieces : sequence of ndarray (samples,), float32

        Returns
        -------
        callable
            Waits for the embeddings and returns them in order.
        """
        lengths = [len(piece) for piece in pieces]
        rows_by_length = {
            length: [row for row, other in enumerate(lengths) if other == length]
            for length in dict.fromkeys(lengths)
        }
        begun = [
            (part, read)
            for rows in rows_by_length.values()
            for part, read in self._begin_equal(pieces, rows)
        ]

        def read_all() -> list[Vectors]:
            vectors: dict[int, Vectors] = {}
            for rows, read in begun:
                vectors.update(zip(rows, read(), strict=True))
            return [vectors[row] for row in range(len(pieces))]

        return read_all

    def _begin_equal(
        self, pieces: Sequence[Samples], rows: Sequence[int]
    ) -> Iterator[tuple[Sequence[int], Read]]:
        """Begin pieces of equal length, in as many batches as the device's memory takes."""
        length = len(pieces[rows[0]])
        while rows:
            part = rows[: max(1, self._most_samples // length)]
            read = self._launch_if_it_fits([pieces[row] for row in part])
            if read is None:
                self._most_samples = len(part) // 2 * length
                say(
                    f"{self._device} has too little memory for batches of {len(part)}: going on "
                    f"with {len(part) // 2}"
                )
            else:
                yield part, read
                rows = rows[len(part) :]

    def _launch_if_it_fits(self, pieces: Sequence[Samples]) -> Read | None:
        """Launch a batch; return None if there is too little memory and it can be halved."""
        try:
            return self._launch(pieces)
        except RuntimeError as error:
            if len(pieces) == 1 or not lacks_memory(error):
                raise
            return None

    def _launch(self, pieces: Sequence[Samples]) -> Read:
        if self._copying is None:
            audio = torch.from_numpy(np.stack(pieces)).to(self._device)
            vectors = self._embed(audio).float()
            return lambda: vectors.cpu().numpy()
        return self._queue(pieces, self._copying)

    def _queue(self, pieces: Sequence[Samples], copying: torch.cuda.Stream) -> Read:
        """Queue copies and computation on a CUDA GPU, from and to pinned memory."""
        batch = torch.empty(len(pieces), len(pieces[0]), pin_memory=True)
        np.stack(pieces, out=batch.numpy())
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(copying):
            audio = batch.to(self._device, non_blocking=True)
        computing.wait_stream(copying)
        audio.record_stream(computing)
        vectors = self._embed(audio).float()
        result = torch.empty(vectors.shape, pin_memory=True)
        result.copy_(vectors, non_blocking=True)
        done = computing.record_event()

        def read() -> Vectors:
            done.synchronize()
            return result.numpy()

        return read


def _stream(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream
