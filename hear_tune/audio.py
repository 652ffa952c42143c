"""Audio files and arrays as mono float32 at the encoders' sample rate.

Files are decoded by libsndfile (WAV, FLAC, Ogg, MP3, AIFF and more) block by block, channels are
averaged, and other rates are resampled with soxr's high-quality setting, so that a file of any
length needs little memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from .config import SAMPLE_RATE_HZ

Samples = npt.NDArray[np.float32]

_BLOCK_VALUES = 1 << 19  # samples x channels decoded at a time, 2 MiB of float32
_MAX_CHANNELS = 1024  # libsndfile's limit
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 1_000, 768_000  # beyond them a header is wrong
_LOUDEST = 2.0**31  # full scale of 32-bit integers that someone forgot to divide by
_RESAMPLER_QUALITY = "HQ"  # lower settings change the embeddings measurably
_RESAMPLER_DELAY = 2048  # samples of the lower rate; 1,782 were seen

# libsndfile's major formats by file name; RAW has no header to read.
SUFFIXES = frozenset(
    {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"}
    | {".aif", ".aifc", ".mp2", ".oga", ".opus", ".snd", ".wave"}
)


class AudioError(ValueError):
    """A file or array holds no usable audio; the message says why."""


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file's name before the message of an `AudioError`."""
    try:
        yield
    except AudioError as error:
        raise AudioError(f"{os.fspath(path)}: {error}") from error


def read_blocks(path: str | os.PathLike[str]) -> Iterator[Samples]:
    """Decode a file piece by piece.

    Parameters
    ----------
    path
        Any file that libsndfile reads, or the URL of one (fsspec's, as ``s3://bucket/track.flac``),
        which is fetched whole.

    Yields
    ------
    ndarray
        (samples,) mono float32 at 22,050 Hz; together the whole file.

    Raises
    ------
    AudioError
        If the file cannot be read or decoded, is empty, or has NaN or infinite samples.
    """
    try:
        with soundfile.SoundFile(_source(path)) as file:
            resample = _StreamResampler(file.samplerate)
            size = max(1, _BLOCK_VALUES // file.channels)
            length = 0
            # not file.blocks: it refuses codings without random access
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                mono = resample(_mix(block))
                length += len(mono)
                yield mono
            rest = resample.finish()
            yield rest
            if length + len(rest) == 0:
                raise AudioError(_NO_AUDIO)
    except (soundfile.SoundFileError, OSError) as error:
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise AudioError(
            f"libsndfile cannot decode it ({reason}); if it plays, convert it to WAV or FLAC"
        ) from error


def to_mono(audio: npt.ArrayLike, sample_rate: int) -> Samples:
    """Mix and resample an array as a file would be.

    Parameters
    ----------
    audio
        (samples,) or (samples, channels), no fewer samples than channels, as soundfile returns it:
        floating point in -1..1, or int16 or int32, which are scaled to that range.
    sample_rate
        In Hz.

    Returns
    -------
    ndarray
        (samples,) float32 at 22,050 Hz.

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
    """What `to_mono` does, for audio that arrives in chunks of one rate.

    Parameters
    ----------
    sample_rate
        In Hz.

    Attributes
    ----------
    delay_seconds
        At most so much of the audio that was pushed is still held back by the resampler.

    Raises
    ------
    AudioError
        If the rate is out of reach.
    """

    def __init__(self, sample_rate: int) -> None:
        self._resample = _StreamResampler(sample_rate)
        self._channels = 1  # of the newest chunk
        held = 0 if sample_rate == SAMPLE_RATE_HZ else _RESAMPLER_DELAY
        self.delay_seconds = held / min(sample_rate, SAMPLE_RATE_HZ)

    def push(self, audio: npt.ArrayLike) -> Samples:
        """A chunk as mono float32 at 22,050 Hz; types and errors are those of `to_mono`.

        So are shapes, but that a chunk of fewer samples than channels is taken if the one before it
        had as many channels.
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
        mono = _mix(array.astype(np.float32).reshape(samples, channels))
        self._channels = channels
        return self._resample(mono)

    def finish(self) -> Samples:
        """What the resampler still holds."""
        return self._resample.finish()


_NO_AUDIO = f"no audio: shorter than one sample at {SAMPLE_RATE_HZ} Hz"


class _StreamResampler:
    """Resamples successive pieces of one signal; passes them through at the encoders' rate."""

    def __init__(self, sample_rate: int) -> None:
        if not _LOWEST_RATE_HZ <= sample_rate <= _HIGHEST_RATE_HZ:
            raise AudioError(
                f"its sample rate is {sample_rate} Hz: not within {_LOWEST_RATE_HZ:,} to "
                f"{_HIGHEST_RATE_HZ:,} Hz"
            )
        self._stream: Any = None
        if sample_rate != SAMPLE_RATE_HZ:
            self._stream = soxr.ResampleStream(
                sample_rate, SAMPLE_RATE_HZ, 1, dtype="float32", quality=_RESAMPLER_QUALITY
            )

    def __call__(self, samples: Samples, last: bool = False) -> Samples:
        if self._stream is None:
            return samples
        resampled: Samples = self._stream.resample_chunk(samples, last=last)
        return resampled

    def finish(self) -> Samples:
        return self(np.empty(0, np.float32), last=True)


UNUSABLE = "NaN or infinite samples, or some far beyond any full scale"


def are_usable(samples: Samples) -> bool:
    """Whether an encoder can take all samples: louder than any full scale are damaged ones."""
    return bool((np.abs(samples) <= _LOUDEST).all())


def _mix(block: Samples) -> Samples:
    # column by column: numpy's mean over so few values takes nearly as long as decoding
    mono = sum(block.T) / block.shape[1]
    if not are_usable(mono):
        raise AudioError(f"it has {UNUSABLE}")
    return np.ascontiguousarray(mono, dtype=np.float32)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL, for fsspec to read."""
    return "://" in os.fspath(path)


def _source(path: str | os.PathLike[str]) -> bytes | str | BytesIO:
    """What soundfile opens."""
    if is_url(path):
        return _fetch(os.fspath(path))
    _check_regular(path)
    # libsndfile takes bytes on POSIX, where a name may be undecodable; elsewhere, text
    return os.fsencode(path) if os.name == "posix" else os.fspath(path)


def _fetch(url: str) -> BytesIO:
    try:
        with fsspec.open(url, "rb") as file:
            content = file.read()
    except Exception as error:  # each kind of store has errors of its own
        raise AudioError(f"cannot be fetched ({type(error).__name__}: {error})") from error
    if not content:
        raise AudioError("the file is empty (0 bytes)")
    return BytesIO(content)


def _check_regular(path: str | os.PathLike[str]) -> None:
    """Name what the decoder could not, or would wait for without end."""
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise AudioError("no such file") from error
    except OSError as error:
        raise AudioError(f"cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise AudioError("not a regular file")
    if not os.access(path, os.R_OK):
        raise AudioError("no permission to read it")
    if status.st_size == 0:
        raise AudioError("the file is empty (0 bytes)")
