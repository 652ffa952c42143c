"""Embedding clips: pieces of many clips go through the encoder in common batches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..common.samples import Samples
from ..networks.config import SAMPLE_RATE_HZ, TIMESTAMP_STRIDE, WINDOW_SAMPLES
from .framing import Per, Segment, Window, timestamp_bounds
from .model import EmbeddingModel

BATCH_SAMPLES = 8 * WINDOW_SAMPLES  # bounds the memory of a batch

Vectors = npt.NDArray[np.float32]
Key = TypeVar("Key", bound=Hashable)
Piece = TypeVar("Piece", Window, Segment)


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
    if per == "timestamp":
        yield from embed_segments(model, _pieces(model.segments, clips))
        return
    windows = _pieces(model.windows, clips)
    yield from embed_windows(model, windows) if per == "window" else _embed_tracks(model, windows)


def embed_segments(
    model: EmbeddingModel, segments: Iterable[tuple[Key, Segment]]
) -> Iterator[tuple[Key, ClipEmbeddings]]:
    """Embed the timestamps of segments, in order."""
    for key, segment, vectors in _in_batches(model.embed_timestamps, segments, model.device):
        start, end = timestamp_bounds(segment)
        first = segment.skip // TIMESTAMP_STRIDE
        yield key, _in_seconds(vectors[first : first + len(start)], start, end)


def embed_windows(
    model: EmbeddingModel, windows: Iterable[tuple[Key, Window]]
) -> Iterator[tuple[Key, ClipEmbeddings]]:
    """Embed windows; those of one clip come together."""
    for key, group in _by_clip(model, windows):
        rows = [(window.start, window.end, vector) for _, window, vector in group]
        start, end, matrix = (np.array(column) for column in zip(*rows, strict=True))
        yield key, _in_seconds(matrix, start, end)


def _embed_tracks(
    model: EmbeddingModel, windows: Iterable[tuple[Key, Window]]
) -> Iterator[tuple[Key, ClipEmbeddings]]:
    """Average each clip's windows by weight, without keeping them."""
    for key, group in _by_clip(model, windows):
        total, weight, end = np.zeros(model.scene_embedding_size), 0, 0
        for _, window, vector in group:
            total += window.weight * vector
            weight, end = weight + window.weight, window.end
        yield key, _in_seconds(total[None] / weight, np.zeros(1, np.int64), np.array([end]))


def _by_clip(
    model: EmbeddingModel, windows: Iterable[tuple[Key, Window]]
) -> Iterator[tuple[Key, Iterator[tuple[Key, Window, Vectors]]]]:
    """Group windows and their embeddings by clip; consume each group before the next."""
    embedded = _in_batches(model.embed_windows, windows, model.device)
    return groupby(embedded, key=itemgetter(0))


def _pieces(
    cut: Callable[[Iterable[Samples]], Iterator[Piece]],
    clips: Iterable[tuple[Key, Iterable[Samples]]],
) -> Iterator[tuple[Key, Piece]]:
    for key, blocks in clips:
        for piece in cut(blocks):
            yield key, piece


def _in_batches(
    embed: Callable[[Tensor], Tensor], pieces: Iterable[tuple[Key, Piece]], device: torch.device
) -> Iterator[tuple[Key, Piece, Vectors]]:
    """Embed pieces in batches and yield them in order."""
    waiting: list[tuple[Key, Piece]] = []
    size = 0
    for key, piece in pieces:
        waiting.append((key, piece))
        size += len(piece.samples)
        if size >= BATCH_SAMPLES:
            yield from _embed_waiting(embed, waiting, device)
            waiting, size = [], 0
    yield from _embed_waiting(embed, waiting, device)


def _embed_waiting(
    embed: Callable[[Tensor], Tensor], waiting: list[tuple[Key, Piece]], device: torch.device
) -> Iterator[tuple[Key, Piece, Vectors]]:
    """Embed pieces of any lengths; those of equal length form one batch."""
    lengths = [len(piece.samples) for _, piece in waiting]
    vectors: dict[int, Vectors] = {}
    for length in dict.fromkeys(lengths):
        rows = [row for row, other in enumerate(lengths) if other == length]
        audio = torch.from_numpy(np.stack([waiting[row][1].samples for row in rows])).to(device)
        vectors.update(zip(rows, embed(audio).float().cpu().numpy(), strict=True))
    for row, (key, piece) in enumerate(waiting):
        yield key, piece, vectors[row]


def _in_seconds(
    vectors: npt.NDArray[np.floating], start: npt.NDArray[np.int64], end: npt.NDArray[np.int64]
) -> ClipEmbeddings:
    return ClipEmbeddings(vectors.astype(np.float32), start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ)
