"""How audio is cut for an encoder, and how the pieces become embeddings of a clip.

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

SampleType = TypeVar("SampleType", np.float32, np.int16)
Per = Literal["track", "window", "timestamp"]
PER_CHOICES: tuple[Per, ...] = get_args(Per)

Piece = TypeVar("Piece", covariant=True)


@dataclass(frozen=True)
class Window:
    """A piece of a clip that becomes one embedding.

    Attributes
    ----------
    start, end
        What it covers of the clip.
    samples
        Its audio; longer than ``end - start`` where a short clip was filled up.
    weight
        In the mean embedding of the clip. All windows weigh the same, except that the one aligned
        with the clip's end weighs in proportion to what it adds: the embedding changes smoothly
        with the clip's length, and over whole windows it is the plain mean.
    """

    start: int
    end: int
    samples: Samples
    weight: int


class Cutter(Protocol[Piece]):
    """Cuts a clip that arrives bit by bit into pieces."""

    def push(self, block: Samples) -> Iterator[Piece]:
        """Pieces that a further block of the clip completes, in order."""

    def finish(self) -> Iterator[Piece]:
        """What the clip's end makes."""


def cut(blocks: Iterable[Samples], cutter: Cutter[Piece]) -> Iterator[Piece]:
    """Cut a clip that comes in blocks of any length; a clip without samples gives no piece."""
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


class WindowCutter:
    """Cuts a clip into windows, without padding wherever the clip is long enough.

    Windows start every `hop` samples. If they leave an end uncovered, one more window is aligned
    with the end of the clip. A clip shorter than one window is filled up to it.

    Parameters
    ----------
    size, hop
        Of the windows.
    fill
        Makes a window of a clip that is shorter.
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
    """The clip continued by its own reflections until its length is a multiple of `unit`."""
    return np.pad(samples, (0, -len(samples) % unit), mode="symmetric")


@dataclass(frozen=True)
class Stretch:
    """A stretch of a clip with context around it, for embeddings of timestamps.

    Attributes
    ----------
    start, end
        What its timestamps cover of the clip.
    skip
        Samples of context in front of `start`.
    samples
        Context, stretch, context; a multiple of the encoder's coarsest stride.
    """

    start: int
    end: int
    skip: int
    samples: Samples


class StretchCutter:
    """Cuts a clip into stretches that see as much of their surroundings as one pass over it would.

    Parameters
    ----------
    size, before, after
        Of the stretches and of their context, each a multiple of `unit`.
    unit
        The encoder's coarsest stride. The clip's end is mirrored up to a multiple of it.
    """

    def __init__(self, size: int, before: int, after: int, unit: int) -> None:
        self.size, self.before, self.after, self.unit = size, before, after, unit
        self._buffer = np.empty(0, np.float32)  # from `before` samples ahead of the next stretch on
        self._start, self._skip = 0, 0

    def push(self, block: Samples) -> Iterator[Stretch]:
        self._buffer = np.concatenate([self._buffer, block])
        while len(self._buffer) > self._skip + self.size + self.after:
            end = self._skip + self.size
            samples = self._buffer[: end + self.after]
            yield Stretch(self._start, self._start + self.size, self._skip, samples)
            kept = min(self.before, end)
            self._buffer = self._buffer[end - kept :]
            self._start, self._skip = self._start + self.size, kept

    def finish(self) -> Iterator[Stretch]:
        if len(self._buffer) > self._skip:
            end = self._start + len(self._buffer) - self._skip
            samples = mirror_to_multiple(self._buffer, self.unit)
            yield Stretch(self._start, end, self._skip, samples)


def timestamp_bounds(stretch: Stretch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and last sample, exclusive, of a stretch's timestamps.

    Every timestamp's centre lies within the clip; a clip shorter than half a timestamp has one all
    the same, as long as the clip.
    """
    length = stretch.end - stretch.start
    count = (length + TIMESTAMP_STRIDE // 2) // TIMESTAMP_STRIDE
    if stretch.start == 0 and count == 0:
        return np.array([0]), np.array([length])
    start = stretch.start + TIMESTAMP_STRIDE * np.arange(count)
    return start, start + TIMESTAMP_STRIDE
