"""Embedding clips: pieces of many clips go through the encoder in common batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ..common.samples import Samples
from ..networks.config import SAMPLE_RATE_HZ, TIMESTAMP_STRIDE
from .compute import BATCH_SAMPLES, Computer, Vectors
from .framing import Per, Segment, Window, timestamp_bounds
from .model import EmbeddingModel
from .pooling import Pooling

__all__ = ["BATCH_SAMPLES", "ClipEmbeddings", "Vectors", "embed_clips"]

Key = TypeVar("Key", bound=Hashable)
Piece = Window | Segment


@dataclass(frozen=True)
class ClipEmbeddings:
    """Embeddings of a clip, or of a part of it.

    Attributes
    ----------
    vectors : ndarray (n, size), float32
    start, end : ndarray (n,), float64
        The time that each embedding covers, in seconds. A timestamp's centre is halfway between.
    """

    vectors: Vectors
    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]


def concatenate(parts: Sequence[ClipEmbeddings]) -> ClipEmbeddings:
    """Join the rows of one or more parts in order."""
    return ClipEmbeddings(
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.end for part in parts]),
    )


def embed_clips(
    model: EmbeddingModel, clips: Iterable[tuple[Key, Iterable[Samples]]], per: Per
) -> Iterator[tuple[Key, ClipEmbeddings]]:
    """Embed clips one after the other, in batches that may span several of them.

    Parameters
    ----------
    model : EmbeddingModel
    clips : iterable of (key, blocks)
        A unique key and the audio of each clip, in blocks of mono float32 at the model's rate.
    per : {"track", "window", "timestamp"}
        What each embedding covers.

    Yields
    ------
    key, embeddings : ClipEmbeddings
        In the order of the clips; none for an empty clip. The timestamps of a long clip come in
        several parts.
    """
    pieces = (
        (key, piece)
        for key, blocks in clips
        for piece in chain(pieces_of(model, blocks, per), [None])  # at its end
    )
    pooling = model.pooling().cpu()
    rows = ClipRows(per, pooling)
    for key, piece, vectors in in_batches(computer_for(model, per), pieces):
        if vectors is None:
            parts, rows = rows.finish(), ClipRows(per, pooling)
        else:
            parts = rows.add(piece, vectors)
        for part in parts:
            yield key, part


def pieces_of(model: EmbeddingModel, blocks: Iterable[Samples], per: Per) -> Iterator[Piece]:
    """Cut a clip into the pieces that a model embeds: segments for timestamps, else windows."""
    return model.segments(blocks) if per == "timestamp" else model.windows(blocks)


def computer_for(model: EmbeddingModel, per: Per) -> Computer:
    """Return what embeds a model's pieces on its device."""
    embed = {
        "timestamp": model.embed_timestamps,
        "window": model.embed_windows,
        "track": model.pool_windows,  # ClipRows projects their mean
    }[per]
    return Computer(embed, model.device)


def embed_pieces(
    model: EmbeddingModel, pieces: Iterable[Piece], per: Per
) -> Iterator[ClipEmbeddings]:
    """Embed some pieces of a clip, in order."""
    rows = ClipRows(per, model.pooling().cpu())
    batches = in_batches(computer_for(model, per), ((None, piece) for piece in pieces))
    for _, piece, vectors in batches:
        assert vectors is not None
        yield from rows.add(piece, vectors)
    yield from rows.finish()


class ClipRows:
    """Turns the embedded pieces of one clip, in order, into its rows.

    Windows are kept until the clip ends, so that its rows come together; for a track only their
    mean, by weight, before the projection. Timestamps are passed on.

    Parameters
    ----------
    per : {"track", "window", "timestamp"}
    pooling : Pooling
        Of the model, on the CPU: not behind the batches that wait for a GPU.
    """

    def __init__(self, per: Per, pooling: Pooling) -> None:
        self._per, self._pooling = per, pooling
        self._windows: list[tuple[int, int, Vectors]] = []  # start, end, embedding
        self._total, self._weight, self._end = np.zeros(pooling.size), 0, 0

    def add(self, piece: Piece, vectors: Vectors) -> Iterable[ClipEmbeddings]:
        """Add a piece with its embeddings, and return the rows that it completes."""
        if isinstance(piece, Segment):
            start, end = timestamp_bounds(piece)
            first = piece.skip // TIMESTAMP_STRIDE
            return [_in_seconds(vectors[first : first + len(start)], start, end)]
        if self._per == "window":
            self._windows.append((piece.start, piece.end, vectors))
        else:
            self._total += piece.weight * vectors
            self._weight, self._end = self._weight + piece.weight, piece.end
        return []

    @torch.no_grad()
    def finish(self) -> Iterable[ClipEmbeddings]:
        """Return the rows that remain at the clip's end."""
        if self._windows:
            start, end, matrix = (np.array(column) for column in zip(*self._windows, strict=True))
            return [_in_seconds(matrix, start, end)]
        if self._weight:
            mean = torch.from_numpy(self._total[None] / self._weight).float()
            row = self._pooling.project(mean).numpy()
            return [_in_seconds(row, np.zeros(1, np.int64), np.array([self._end]))]
        return []


def in_batches(
    computer: Computer, items: Iterable[tuple[Key, Any]]
) -> Iterator[tuple[Key, Any, Vectors | None]]:
    """Embed the pieces among items in batches.

    Parameters
    ----------
    computer : Computer
    items : iterable of (key, item)
        Windows or segments, and anything else, which is passed through.

    Yields
    ------
    key, item, vectors
        Each item, in order; with its embeddings if it is a piece, else with None.
    """
    waiting: list[tuple[Key, Any]] = []
    begun: deque[Iterator[tuple[Key, Any, Vectors | None]]] = deque()
    size = 0
    for key, item in items:
        waiting.append((key, item))
        size += len(item.samples) if isinstance(item, Piece) else 0
        if size >= computer.batch_samples:
            begun.append(_begin(computer, waiting))
            waiting, size = [], 0
            while len(begun) > computer.ahead:
                yield from begun.popleft()
    begun.append(_begin(computer, waiting))
    yield from chain.from_iterable(begun)


def _begin(
    computer: Computer, items: list[tuple[Key, Any]]
) -> Iterator[tuple[Key, Any, Vectors | None]]:
    """Begin a batch now, and return the iterator that reads its embeddings."""
    read = computer.begin([item.samples for _, item in items if isinstance(item, Piece)])

    def finished() -> Iterator[tuple[Key, Any, Vectors | None]]:
        vectors = iter(read())
        for key, item in items:
            yield key, item, next(vectors) if isinstance(item, Piece) else None

    return finished()


def _in_seconds(
    vectors: npt.NDArray[np.floating], start: npt.NDArray[np.int64], end: npt.NDArray[np.int64]
) -> ClipEmbeddings:
    return ClipEmbeddings(vectors.astype(np.float32), start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ)
