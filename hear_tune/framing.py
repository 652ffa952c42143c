"""How audio is cut for an encoder, and how the pieces become embeddings of a clip.

All positions are in samples at the encoders' rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .audio import Samples
from .config import FACTOR

TIMESTAMP_STRIDE = FACTOR**6  # 729 samples, 33.06 ms

SampleType = TypeVar("SampleType", np.float32, np.int16)


@dataclass(frozen=True)
class Window:
    """A piece of a clip that becomes one embedding.

    Attributes
    ----------
    start, end
        What it covers of the clip.
    samples
        Its audio; longer than ``end - start`` where a short clip was filled up.
    """

    start: int
    end: int
    samples: Samples


def pad_end(samples: npt.NDArray[SampleType], size: int) -> npt.NDArray[SampleType]:
    """A short clip, and silence behind it up to a size."""
    return np.pad(samples, (0, size - len(samples)))


def cut_windows(
    blocks: Iterable[Samples],
    size: int,
    hop: int,
    fill: Callable[[Samples, int], Samples] = pad_end,
) -> Iterator[Window]:
    """Cut a clip into windows, without padding wherever the clip is long enough.

    Windows start every `hop` samples. If they leave an end uncovered, one more window is aligned
    with the end of the clip. A clip shorter than one window is filled up to it.

    Parameters
    ----------
    blocks
        The clip, in pieces of any length.
    size, hop
        Of the windows.
    fill
        Makes a window of a clip that is shorter.

    Yields
    ------
    Window
        In order; none from a clip without samples.
    """
    buffer = np.empty(0, np.float32)  # from the newest window's start onwards
    start, cut_any = 0, False
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while len(buffer) >= size + (hop if cut_any else 0):
            if cut_any:
                buffer, start = buffer[hop:], start + hop
            yield Window(start, start + size, buffer[:size])
            cut_any = True
    end = start + len(buffer)
    if cut_any and len(buffer) > size:
        yield Window(end - size, end, buffer[-size:])
    elif not cut_any and end:
        yield Window(0, end, fill(buffer, size))


def clip_weights(starts: npt.NDArray[np.int64], hop: int) -> npt.NDArray[np.float64]:
    """Weights of a clip's windows in its mean embedding; they sum to 1.

    All windows weigh the same, except that the one aligned with the clip's end weighs in
    proportion to what it adds: the embedding changes smoothly with the clip's length, and over
    whole windows it is the plain mean.
    """
    steps = np.diff(starts, prepend=starts[0] - hop)
    weights: npt.NDArray[np.float64] = steps / steps.sum()
    return weights


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


def cut_stretches(
    blocks: Iterable[Samples], size: int, before: int, after: int, unit: int
) -> Iterator[Stretch]:
    """Cut a clip into stretches that see as much of their surroundings as one pass over it would.

    Parameters
    ----------
    blocks
        The clip, in pieces of any length.
    size, before, after
        Of the stretches and of their context, each a multiple of `unit`.
    unit
        The encoder's coarsest stride. The clip's end is mirrored up to a multiple of it.

    Yields
    ------
    Stretch
        In order; none from a clip without samples.
    """
    buffer = np.empty(0, np.float32)  # from `before` samples ahead of the next stretch onwards
    start, skip = 0, 0
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while len(buffer) > skip + size + after:
            yield Stretch(start, start + size, skip, buffer[: skip + size + after])
            kept = min(before, skip + size)
            buffer, start, skip = buffer[skip + size - kept :], start + size, kept
    if len(buffer) > skip:
        end = start + len(buffer) - skip
        yield Stretch(start, end, skip, mirror_to_multiple(buffer, unit))


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
