"""Audio files and arrays as mono float32 at the encoders' sample rate.

Files are decoded block by block, their channels averaged, and other rates resampled with soxr's
high-quality setting, so that a file of any length needs little memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from ..common.samples import Samples
from ..networks.config import SAMPLE_RATE_HZ
from .decoding import (
    SILENT,
    SUFFIXES,
    AudioError,
    Block,
    Remark,
    Remarks,
    Source,
    decode,
    is_url,
    missing_audio,
)

__all__ = [
    "SILENT",
    "SUFFIXES",
    "UNUSABLE",
    "AudioError",
    "MonoStream",
    "Remark",
    "Remarks",
    "are_usable",
    "average",
    "is_url",
    "missing_audio",
    "naming",
    "read_blocks",
    "resampled",
    "to_mono",
]

_MAX_CHANNELS = 1024  # libsndfile's limit
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 1_000, 768_000  # otherwise the header is wrong
_LOUD = 32.0  # +30 dB over full scale: floating-point samples on an integer scale
_CANCELLED = 1e-3  # -30 dB: energy of the mix relative to a channel
_LEVEL_STRIDE = 31  # samples; levels are measured on every 31st
_LOUDEST = 2.0**31  # full scale of 32-bit integers
_RESAMPLER_QUALITY = "HQ"  # lower settings change the embeddings measurably
_RESAMPLER_DELAY = 2048  # samples at the lower rate; 1,782 measured


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file's name before the message of an `AudioError`."""
    try:
        yield
    except AudioError as error:
        raise AudioError(f"{os.fspath(path)}: {error}") from error


def read_blocks(source: Source, remarks: list[Remark] | None = None) -> Iterator[Samples]:
    """Decode a file block by block.

    Parameters
    ----------
    source : path-like or binary file
        Any file that FFmpeg or libsndfile reads: a path, a URL for fsspec
        (``s3://bucket/track.flac``), or a file opened for reading bytes.
    remarks : list of Remark, optional
        Receives remarks on the file after its last block: missing audio, channels that cancel, a
        level out of scale, or silence.

    Yields
    ------
    ndarray (samples,), float32
        Mono at 22,050 Hz; together the whole file, or as much as can be decoded.

    Raises
    ------
    AudioError
        If the file cannot be read or decoded, is empty, or has NaN or infinite samples.
    """
    found: list[Remark] = []
    levels, length = _Levels(), 0
    for samples in resampled(_mixed(decode(source, found), levels)):
        length += len(samples)
        yield samples
    if length == 0:
        raise AudioError(_NO_AUDIO)
    if remarks is not None:
        remarks += [*found, *levels.remarks()]


def _mixed(blocks: Iterator[tuple[Block, int]], levels: _Levels) -> Iterator[tuple[Samples, int]]:
    for block, rate in blocks:
        mono, peak = _mix(block)
        levels.note(block, mono, peak)
        yield mono, rate


def resampled(
    pieces: Iterable[tuple[Samples, int]], rate_hz: int = SAMPLE_RATE_HZ
) -> Iterator[Samples]:
    """Resample successive mono pieces, each paired with its rate in Hz.

    Raises
    ------
    AudioError
        If a rate is out of range.
    """
    for own_rate_hz, part in groupby(pieces, itemgetter(1)):
        resample = _StreamResampler(own_rate_hz, rate_hz)
        for mono, _ in part:
            yield resample(mono)
        yield resample.finish()


def to_mono(audio: npt.ArrayLike, sample_rate: int) -> Samples:
    """Mix and resample an array like a file.

    Parameters
    ----------
    audio : array-like (samples,) or (samples, channels)
        Floating point in -1..1, or int16 or int32, which are scaled to that range; at least as
        many samples as channels.
    sample_rate : int
        In Hz.

    Returns
    -------
    ndarray (samples,), float32
        Mono at 22,050 Hz.

    Raises
    ------
    AudioError
        If the array is empty, has another shape or type, or NaN or infinite samples.
    """
    stream = MonoStream(sample_rate)
    samples = np.concatenate([stream.push(audio), stream.finish()])
    if len(samples) == 0:
        raise AudioError(_NO_AUDIO)
    return samples


class MonoStream:
    """Mixes and resamples audio that arrives in chunks, like `to_mono`.

    Parameters
    ----------
    sample_rate : int
        Of all chunks, in Hz.

    Attributes
    ----------
    delay_seconds : float
        Length of the pushed audio that the resampler holds back, at most.

    Raises
    ------
    AudioError
        If the rate is out of range.
    """

    def __init__(self, sample_rate: int) -> None:
        self._resample = _StreamResampler(sample_rate)
        self._channels = 1  # of the newest chunk
        held = 0 if sample_rate == SAMPLE_RATE_HZ else _RESAMPLER_DELAY
        self.delay_seconds = held / min(sample_rate, SAMPLE_RATE_HZ)

    def push(self, audio: npt.ArrayLike) -> Samples:
        """Return a chunk as mono float32 at 22,050 Hz; types and errors are those of `to_mono`.

        A chunk may have fewer samples than channels if the previous one had as many channels.
        """
        array = np.asarray(audio)
        if array.ndim not in (1, 2):
            raise AudioError(f"audio must be (samples,) or (samples, channels), not {array.shape}")
        if array.dtype.kind == "i" and array.dtype.itemsize in (2, 4):
            array = array / -float(np.iinfo(array.dtype).min)
        elif not np.issubdtype(array.dtype, np.floating):
            raise AudioError(f"audio must be floating point, int16 or int32, not {array.dtype}")
        if array.size == 0:
            return self._resample(np.empty(0, np.float32))
        samples, channels = array.shape if array.ndim == 2 else (len(array), 1)
        if channels > max(samples, self._channels) or channels > _MAX_CHANNELS:
            raise AudioError(
                f"audio of shape {array.shape} has more channels than samples: transpose it to "
                "(samples, channels)"
            )
        mono, _ = _mix(array.astype(np.float32).reshape(samples, channels))
        self._channels = channels
        return self._resample(mono)

    def finish(self) -> Samples:
        """Return the samples that the resampler still holds."""
        return self._resample.finish()


_NO_AUDIO = f"no audio: shorter than one sample at {SAMPLE_RATE_HZ} Hz"


class _StreamResampler:
    """Resamples successive pieces of one signal; at the wanted rate, passes them through."""

    def __init__(self, sample_rate: int, wanted_rate: int = SAMPLE_RATE_HZ) -> None:
        if not _LOWEST_RATE_HZ <= sample_rate <= _HIGHEST_RATE_HZ:
            raise AudioError(
                f"its sample rate is {sample_rate} Hz: not within {_LOWEST_RATE_HZ:,} to "
                f"{_HIGHEST_RATE_HZ:,} Hz"
            )
        self._stream: Any = None
        if sample_rate != wanted_rate:
            self._stream = soxr.ResampleStream(
                sample_rate, wanted_rate, 1, dtype="float32", quality=_RESAMPLER_QUALITY
            )

    def __call__(self, samples: Samples, last: bool = False) -> Samples:
        if self._stream is None:
            return samples
        resampled: Samples = self._stream.resample_chunk(samples, last=last)
        return resampled

    def finish(self) -> Samples:
        return self(np.empty(0, np.float32), last=True)


UNUSABLE = "NaN or infinite samples, or some far beyond full scale"


def are_usable(samples: Samples) -> bool:
    """Whether all samples are finite and not far beyond full scale, as damaged ones are."""
    return _peak(samples) <= _LOUDEST


def _peak(samples: Samples) -> float:
    """Return the largest magnitude; NaN if any sample is NaN."""
    return max(float(samples.max(initial=0)), -float(samples.min(initial=0)))


def _mix(block: Block) -> tuple[Samples, float]:
    """Average a block's channels; return the mix and its peak, or raise an `AudioError`."""
    mono = average(block)
    peak = _peak(mono)
    if not peak <= _LOUDEST:  # not NaN either
        raise AudioError(f"it has {UNUSABLE}")
    return mono, peak


def average(block: Block) -> Samples:
    """Average a block's channels, scaled to -1..1."""
    # column by column: numpy's mean over few channels takes nearly as long as decoding
    first, *others = block.T
    mono: Samples = first.astype(np.float32)
    for column in others:
        np.add(mono, column, out=mono, dtype=np.float32, casting="same_kind")
    mono /= np.float32(block.shape[1] * _full_scale(block))
    return mono


def _full_scale(block: Block) -> float:
    return -float(np.iinfo(block.dtype).min) if block.dtype.kind == "i" else 1.0


class _Levels:
    """Measures whether channels cancel in the mix, and whether it is silent or out of scale."""

    def __init__(self) -> None:
        self._channels_energy = 0.0  # mean over the channels
        self._mix_energy = 0.0
        self._peak = 0.0

    def note(self, block: Block, mono: Samples, peak: float) -> None:
        """Add a block, its mix and the peak of the mix."""
        self._peak = max(self._peak, peak)
        channels = block.shape[1]
        if channels > 1:
            some = block[::_LEVEL_STRIDE].astype(np.float64) / _full_scale(block)
            self._channels_energy += float(np.vdot(some, some)) / channels
            mix = mono[::_LEVEL_STRIDE].astype(np.float64)
            self._mix_energy += float(np.vdot(mix, mix))

    def remarks(self) -> Iterator[Remark]:
        """Yield remarks on the whole file."""
        if self._mix_energy < _CANCELLED * self._channels_energy:
            yield Remark(
                "channels cancel: they are in opposite phase, so the mono mix is nearly silent"
            )
        elif self._peak == 0:
            yield SILENT
        if self._peak > _LOUD:
            yield Remark(
                f"not at the scale of audio: it peaks at {self._peak:.4g}; full scale is 1"
            )
