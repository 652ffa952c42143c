"""Cutting clips into the windows and segments that an encoder takes.

All positions are in samples at the encoders' rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from ..common.samples import Samples, pad_end
from ..networks.config import TIMESTAMP_STRIDE

Per = Literal["track", "window", "timestamp"]
PER_CHOICES: tuple[Per, ...] = get_args(Per)

Piece = TypeVar("Piece", covariant=True)


@dataclass(frozen=True)
class Window:
    """A piece of a clip that becomes one embedding.

    Attributes
    ----------
    start, end : int
        The part of the clip that it covers.
    samples : ndarray
        Its audio; longer than ``end - start`` if a short clip was padded.
    weight : int
        Its weight in the clip's mean embedding: equal for all windows, but proportional to the
        audio it adds for one aligned with the clip's end. So the embedding changes smoothly with
        the clip's length, and over whole windows it is the plain mean.
    """

    start: int
    end: int
    samples: Samples
    weight: int


class Cutter(Protocol[Piece]):
    """Cuts a clip that arrives in blocks into pieces."""

    def push(self, block: Samples) -> Iterator[Piece]:
        """Yield the pieces that the clip's next block completes, in order."""

    def finish(self) -> Iterator[Piece]:
        """Yield the pieces that remain at the clip's end."""


def cut(blocks: Iterable[Samples], cutter: Cutter[Piece]) -> Iterator[Piece]:
    """Cut a clip given in blocks of any length; an empty clip yields nothing."""
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


class WindowCutter:
    """Cuts a clip into windows, without padding wherever the clip is long enough.

    Windows start every `hop` samples; if they leave the end uncovered, one more is aligned with
    it. A clip shorter than a window is padded.

    Parameters
    ----------
    size, hop : int
        Length of a window and distance between their starts.
    fill : callable
        Pads a short clip to the given length.
    """

    def __init__(
        self, size: int, hop: int, fill: Callable[[Samples, int], Samples] = pad_end
    ) -> None:
        self._size, self._hop, self._fill = size, hop, fill
        self._buffer = np.empty(0, np.float32)  # from the newest window's start onwards
        self._start, self._cut_any = 0, False

    def push(self, block: Samples) -> Iterator[Window]:
        self._buffer = np.concatenate([self._buffer, block])
        while len(self._buffer) >= self._size + (self._hop if self._cut_any else 0):
            if self._cut_any:
                self._buffer, self._start = self._buffer[self._hop :], self._start + self._hop
            yield self._window(self._start, self._buffer[: self._size], self._hop)
            self._cut_any = True

    def finish(self) -> Iterator[Window]:
        end = self._start + len(self._buffer)
        if self._cut_any and len(self._buffer) > self._size:
            start = end - self._size
            yield self._window(start, self._buffer[-self._size :], start - self._start)
        elif not self._cut_any and end:
            yield Window(0, end, self._fill(self._buffer, self._size), self._hop)

    def _window(self, start: int, samples: Samples, weight: int) -> Window:
        return Window(start, start + self._size, samples, weight)


def mirror_to_multiple(samples: Samples, unit: int) -> Samples:
    """Extend a clip by its own reflections to a multiple of `unit`."""
    return np.pad(samples, (0, -len(samples) % unit), mode="symmetric")


@dataclass(frozen=True)
class Segment:
    """A piece of a clip with context around it, for embeddings of timestamps.

    Attributes
    ----------
    start, end : int
        The part of the clip that its timestamps cover.
    skip : int
        Samples of context before `start`.
    samples : ndarray
        Context, segment, context; a multiple of the encoder's coarsest stride.
    """

    start: int
    end: int
    skip: int
    samples: Samples


class SegmentCutter:
    """Cuts a clip into segments with as much context as one pass over the clip would give them.

    Parameters
    ----------
    size, before, after : int
        Length of a segment and of its context, each a multiple of `unit`.
    unit : int
        The encoder's coarsest stride; the clip's end is mirrored up to a multiple of it.
    """

    def __init__(self, size: int, before: int, after: int, unit: int) -> None:
        self.size, self.before, self.after, self.unit = size, before, after, unit
        self._buffer = np.empty(0, np.float32)  # from `before` samples ahead of the next segment on
        self._start, self._skip = 0, 0

    def push(self, block: Samples) -> Iterator[Segment]:
        self._buffer = np.concatenate([self._buffer, block])
        while len(self._buffer) > self._skip + self.size + self.after:
            end = self._skip + self.size
            samples = self._buffer[: end + self.after]
            yield Segment(self._start, self._start + self.size, self._skip, samples)
            kept = min(self.before, end)
            self._buffer = self._buffer[end - kept :]
            self._start, self._skip = self._start + self.size, kept

    def finish(self) -> Iterator[Segment]:
        if len(self._buffer) > self._skip:
            end = self._start + len(self._buffer) - self._skip
            samples = mirror_to_multiple(self._buffer, self.unit)
            yield Segment(self._start, end, self._skip, samples)


def timestamp_bounds(segment: Segment) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first sample of each of a segment's timestamps, and the one after its last.

    Every timestamp's centre lies within the clip. A clip shorter than half a timestamp has one as
    long as itself.
    """
    length = segment.end - segment.start
    count = (length + TIMESTAMP_STRIDE // 2) // TIMESTAMP_STRIDE
    if segment.start == 0 and count == 0:
        return np.array([0]), np.array([length])
    start = segment.start + TIMESTAMP_STRIDE * np.arange(count)
    return start, start + TIMESTAMP_STRIDE
