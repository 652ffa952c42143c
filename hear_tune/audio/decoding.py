"""Decoding audio files, whole or with a remark on what is missing.

FFmpeg's libraries (PyAV) decode compressed audio, libsndfile the rest. Lengths in headers are never
trusted, only compared with what was decoded. A file is read front to back, one block at a time, so
that its length costs no memory.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import av
import fsspec
import numpy as np
import numpy.typing as npt
import soundfile
from av.codec.context import Flags2

from ..common.errors import HearTuneError
from ..common.text import counted
from .headers import (
    HEAD_BYTES,
    TAGS,
    announced_bytes,
    counted_seconds,
    describe,
    frame_bytes,
    id3_bytes,
    is_mpeg4,
    is_protected,
    lacks_index,
    may_be_pcm,
    overlooked_bytes,
)
from .ogg import Link, is_ogg, links

Source = str | os.PathLike[str] | BinaryIO
Block = npt.NDArray[Any]

_BLOCK_VALUES = 1 << 17  # samples x channels per block; more overflow the processor's cache
_READ_BYTES = 1 << 18  # per read of FFmpeg
_LONGEST_PADDING = 8192  # samples: a block of Vorbis
_MISSING_SECONDS = 0.05  # tolerated without a remark

# FFmpeg's containers that can hold audio, without playlists, as they open other files, and images
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,iff,loas,matroska,mlp,mov,mp3,"
    "mpc,mpc8,mpeg,mpegts,ogg,oma,rm,shn,tak,truehd,tta,voc,vqf,w64,wav,wv,xwma"
)
# those whose headers count the samples, and by how much that may be wrong, as some encoders count
# their padding
_COUNTING = frozenset(
    (
        *("ape", "dsf", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mpc", "mpc8", "tak"),
        *("tta", "wv"),
    )
)
_TOLERANCE_SECONDS = {"mov,mp4,m4a,3gp,3g2,mj2": 0.2, "matroska,webm": 0.2}
# whose frames give their own length
_SIZED_CODECS = frozenset(("aac", "aac_latm", "ac3", "eac3", "mp1", "mp2", "mp3", "mp3float"))
_CHAINED = ("mlp", "truehd")  # frames follow each other directly, and FFmpeg drops a cut one
# in which zero bytes are no audio, and which do not count their frames
_NEVER_ZERO = frozenset(
    ("aac", "ac3", "asf", "avi", "dts", "eac3", "loas", "mlp", "mp3", "mpeg", "mpegts", "truehd")
)
_MOST_PADDING_BYTES = 1 << 16  # of zeros after the audio; at most a quarter of the file
_TIMED = ("flac", "ogg")  # whose time stamps reveal gaps in the decoded audio
_PCM_CODINGS = frozenset(
    ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
)
_SYNC_BYTES = 2  # common to the beginnings of a file's frames
_LONGEST_TAG_NAME = max(map(len, TAGS))
# accept tags in any encoding; PyAV needs no option for that from release 19 on
_TOLERANT: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
_PROTECTED_CODECS = ("drms", "enca")

# libsndfile's major formats, without RAW, which has no header; then FFmpeg's
SUFFIXES = frozenset(
    {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"}
    | {".aif", ".aifc", ".mp2", ".oga", ".opus", ".snd", ".wave"}
    | {".aac", ".ac3", ".alac", ".amr", ".ape", ".asf", ".dff", ".dsf", ".dts", ".eac3", ".m4a"}
    | {".m4b", ".m4p", ".mka", ".mkv", ".mlp", ".mov", ".mp4", ".mpc", ".mpga", ".ra", ".rm"}
    | {".shn", ".spx", ".tak", ".thd", ".tta", ".weba", ".webm", ".wma", ".wv"}
)


class AudioError(HearTuneError, ValueError):
    """A file or array holds no usable audio."""


@dataclass(frozen=True)
class Remark:
    """A remark on a file that can still be used.

    Attributes
    ----------
    text : str
        Such as "cut off: 12.30 s of 20.00 s could be decoded".
    incomplete : bool
        Whether some of the audio is missing.
    """

    text: str
    incomplete: bool = False

    def __str__(self) -> str:
        return self.text


Remarks = Sequence[Remark]
SILENT = Remark("silent: every sample is zero")


def missing_audio(remarks: Remarks) -> str:
    """Join the remarks on missing audio; empty if the file is whole."""
    return "; ".join(remark.text for remark in remarks if remark.incomplete)


def decode(source: Source, remarks: list[Remark]) -> Iterator[tuple[Block, int]]:
    """Decode a file block by block.

    Parameters
    ----------
    source : path-like or binary file
        A path, a URL for fsspec, or a file opened for reading bytes.
    remarks : list of Remark
        Receives remarks on missing audio.

    Yields
    ------
    block : ndarray (samples, channels)
        Floating point in -1..1, int16 or int32.
    sample_rate : int
        Of the block, in Hz; it may vary within joined files.

    Raises
    ------
    AudioError
        If the file cannot be read, or no decoder takes it.
    """
    with _opened(source) as file:
        file.seek(0)
        head = file.read(HEAD_BYTES)
        if not head:
            raise AudioError("the file is empty (0 bytes)")
        reading = _Reading(file, head)
        is_local = isinstance(source, str | os.PathLike) and not is_url(source)
        place = source if is_local else file  # libsndfile may need a second file beside it
        decoders = [_by_ffmpeg(reading), _by_libsndfile(place)]
        if is_local and may_be_pcm(head):
            decoders.insert(0, _by_libsndfile(place, _PCM_CODINGS))
        yield from _first_that_works(decoders, reading)
        remarks += reading.remarks()


class _UndecodableError(Exception):
    """A decoder does not take a file, or fails within it."""


@contextmanager
def _refusing(decoder: str) -> Iterator[None]:
    """Turn a decoder's errors, which vary, into an `_UndecodableError`."""
    try:
        yield
    except (_UndecodableError, AudioError):
        raise
    except Exception as error:
        raise _UndecodableError(f"{decoder}: {_words(error)}") from error


def _words(error: Exception) -> str:
    given = (getattr(error, name, None) for name in ("strerror", "error_string"))
    text = next(filter(None, given), None) or str(error) or type(error).__name__
    return text.strip().rstrip(".").replace(_MISLEADING, "unknown format")


_MISLEADING = "File does not exist or is not a regular file (possibly a pipe?)"  # of mpg123


class _Reading:
    """State of the decoding of a file."""

    def __init__(self, file: BinaryIO, head: bytes) -> None:
        self.file = file
        self.head = head
        self.seconds = 0.0  # decoded
        self.lost = 0.0  # seconds, by gaps between time stamps
        self.announced = 0.0  # seconds by its header, if that can be trusted
        self.tolerance = _MISSING_SECONDS  # of the announced length
        self.damaged = 0  # packets, or pages of Ogg
        self.ends_early = ""  # the evidence at its end

    def check(self) -> None:
        """Raise an `AudioError` if a remote file could not be read to its end."""
        if isinstance(self.file, _Remote):
            self.file.check()

    def remarks(self) -> Iterator[Remark]:
        """Yield remarks on missing audio."""
        self.check()
        reached = self.seconds + self.lost
        is_short = self.announced - reached > self.tolerance
        is_damaged = self.damaged > 0 or self.lost > 0
        how_much = ""
        if is_short or self.lost > 0:
            whole = max(self.announced, reached)
            how_much = f"{self.seconds:.2f} s of {whole:.2f} s could be decoded"
        # tags after the audio stop some decoders; headers of joined files only count the first
        is_whole = self.announced > 0 and abs(self.announced - reached) <= self.tolerance
        ends_early = self.missing_bytes() or ("" if is_whole else self.ends_early)
        if ends_early or (is_short and not is_damaged):
            yield Remark(f"cut off: {how_much or ends_early}", True)
        if overlooked := overlooked_bytes(self.file, self.head, _size(self.file) or 0):
            yield Remark(f"read in part: {overlooked:,} bytes lie beyond its header's length", True)
        if is_damaged:
            parts = counted(self.damaged, "part")
            yield Remark(f"damaged: {how_much or f'{parts} could not be decoded'}", True)

    def missing_bytes(self) -> str:
        """Say how far the file falls short of its header's length; empty if it does not."""
        there, announced = _size(self.file), announced_bytes(self.file)
        if there is None or announced is None or there >= announced:
            return ""
        return f"{there:,} of {announced:,} bytes that its header announces"


def _first_that_works(
    decoders: Iterable[Iterator[tuple[Block, int]]], reading: _Reading
) -> Iterator[tuple[Block, int]]:
    reasons = []
    for decoder in decoders:
        try:
            for block, rate in decoder:
                reading.seconds += len(block) / rate
                yield block, rate
        except _UndecodableError as error:
            reasons.append(str(error))
            if reading.seconds:
                reading.ends_early = reading.ends_early or f"the decoder stopped ({error})"
        if reading.seconds:
            return
        reading.check()
        if known := describe(reading.file):
            raise AudioError(f"it is {known}")
    raise AudioError(_why_not(reading, reasons))


def _why_not(reading: _Reading, reasons: list[str]) -> str:
    """Say why no decoder takes a file."""
    if is_protected(reading.head):
        return _PROTECTED
    if is_mpeg4(reading.head) and lacks_index(reading.file):
        return "it is an MPEG-4 file without its index: cut off, or not finished by its recorder"
    if missing := reading.missing_bytes():
        return f"cut off before any audio could be decoded: {missing}"
    if reading.announced:
        return f"none of the {reading.announced:.2f} s that its header announces can be decoded"
    if not reasons:
        return "no audio: it has no samples"
    said = "; ".join(dict.fromkeys(reasons))
    return f"FFmpeg and libsndfile cannot decode it ({said})"


_PROTECTED = "it is protected against copying (DRM), and cannot be decoded"


# --- libsndfile ---


def _by_libsndfile(
    source: str | os.PathLike[str] | BinaryIO, codings: frozenset[str] | None = None
) -> Iterator[tuple[Block, int]]:
    """Decode a file of the given codings, or of any."""
    with _refusing("libsndfile"), soundfile.SoundFile(_for_libsndfile(source)) as file:
        if codings and file.subtype not in codings:
            raise _UndecodableError(f"libsndfile: {file.subtype}")
        size = max(1, _BLOCK_VALUES // file.channels)
        # file.blocks would refuse codings without random access
        while len(block := file.read(size, dtype="float32", always_2d=True)):
            yield block, file.samplerate


def _for_libsndfile(source: str | os.PathLike[str] | BinaryIO) -> Any:
    if not isinstance(source, str | os.PathLike):
        source.seek(0)
        return source
    # a name may be undecodable on POSIX, where libsndfile takes bytes
    return os.fsencode(source) if os.name == "posix" else os.fspath(source)


# --- FFmpeg ---


def _by_ffmpeg(reading: _Reading) -> Iterator[tuple[Block, int]]:
    reading.file.seek(0)
    if not is_ogg(reading.head):
        yield from _demuxed(reading, reading.file)
        return
    link = None
    for link in links(reading.file):  # FFmpeg stops at a link of another rate
        try:
            yield from _trimmed(_demuxed(reading, link), link)
        except (_UndecodableError, AudioError):
            if not reading.seconds:
                raise
            reading.damaged += 1
        reading.damaged += link.damaged
    if link is not None and not link.is_finished:
        reading.ends_early = "its last Ogg page is missing"


def _trimmed(blocks: Iterator[tuple[Block, int]], link: Link) -> Iterator[tuple[Block, int]]:
    """Trim a Vorbis link to its own positions, as FFmpeg trims short ones wrongly."""
    decoded, held = 0, list[tuple[Block, int]]()
    for block, rate in blocks:
        audio = block[max(0, link.lead_in - decoded) :]
        decoded += len(block)
        held.append((audio, rate))
        while sum(len(block) for block, _ in held[1:]) >= _LONGEST_PADDING:
            yield held.pop(0)
    excess = decoded - link.lead_in - link.position
    if not link.lead_in or excess >= _LONGEST_PADDING:  # the stream did not begin at 0
        excess = 0
    while excess > 0 and held:
        block, rate = held.pop()
        kept = block[: max(0, len(block) - excess)]
        excess -= len(block) - len(kept)
        held += [(kept, rate)] if len(kept) else []
    yield from held


def _demuxed(reading: _Reading, file: BinaryIO | Link) -> Iterator[tuple[Block, int]]:
    with (
        _refusing("FFmpeg"),
        av.open(
            cast(BinaryIO, file),
            **_TOLERANT,
            buffer_size=_READ_BYTES,
            container_options={"format_whitelist": _CONTAINERS},
            io_open=_refuse,
        ) as container,
    ):
        stream = cast("av.AudioStream | None", container.streams.best("audio"))
        if stream is None:
            kinds = {stream.type for stream in container.streams if stream.type != "data"}
            if "audio" in kinds:
                raise _UndecodableError("FFmpeg: its audio has neither a rate nor channels")
            only = " and ".join(sorted(kinds)) or "data"
            raise AudioError(f"it has no audio stream, only {only}")
        if stream.codec_context is None:
            raise _UndecodableError("FFmpeg: unknown coding")
        if stream.codec_context.codec_tag in _PROTECTED_CODECS:
            raise AudioError(_PROTECTED)
        stream.codec_context.thread_count = 1
        if isinstance(file, Link) and file.lead_in:
            stream.codec_context.flags2 |= Flags2.skip_manual
        yield from _joined(_frames(container, stream, reading))
        reading.announced += _announced(container, stream, reading)
        reading.tolerance += _TOLERANCE_SECONDS.get(container.format.name, 0.0)


def _refuse(url: str, *_: object) -> NoReturn:
    raise PermissionError(f"it refers to another file ({url})")


def _frames(container: Any, stream: av.AudioStream, reading: _Reading) -> Iterator[av.AudioFrame]:
    """Decode packets, skipping those that cannot be, and record what is missing."""
    frame = last_packet = None
    failed, is_cut = 0, False  # undecodable packets since the last frame; whether one is cut short
    sync, read = b"", 0  # first bytes of a good packet; bytes of all packets
    is_sized = stream.codec_context.name in _SIZED_CODECS
    first = last = None  # time stamps
    decoded = 0.0  # seconds
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except Exception as error:
            if frame is None:
                raise
            reading.ends_early = f"FFmpeg stopped early ({_words(error)})"
            break
        read += packet.size
        try:
            frames = packet.decode()
        except Exception:
            content = bytes(packet)
            failed += not content.startswith(TAGS)
            # tags and padding after the last frame begin differently
            if content.startswith(sync):
                is_cut = is_cut or not is_sized or packet.size < frame_bytes(content)
            continue
        if packet.size:
            last_packet = packet
        if frames and packet.size:
            # packets that fail before the first frame are no audio
            reading.damaged += failed if frame is not None else 0
            failed, is_cut, sync = 0, False, bytes(packet)[:_SYNC_BYTES]
        for frame in frames:
            last = frame.pts
            first = last if first is None else first
            decoded += frame.samples / frame.sample_rate
            yield frame
    if frame is None or last_packet is None:
        return
    if container.format.name in _TIMED and first is not None and last is not None:
        span = float((last - first) * stream.time_base) + frame.samples / frame.sample_rate
        lost = span - decoded
        reading.lost += lost if lost > _MISSING_SECONDS else 0.0
    if is_sized:
        is_cut = is_cut or last_packet.size < frame_bytes(bytes(last_packet))
    if container.format.name in _CHAINED:
        reading.file.seek(read)
        rest = reading.file.read(_LONGEST_TAG_NAME)
        is_cut = bool(rest.strip(b"\0")) and not rest.startswith(TAGS)
    if is_cut:
        reading.ends_early = reading.ends_early or "in the middle of its last frame"
    if container.format.name in _NEVER_ZERO and _ends_in_zeros(reading.file):
        reading.ends_early = "it ends in zero bytes, as a download that was not finished does"


def _ends_in_zeros(file: BinaryIO) -> bool:
    """Whether a file ends in more zero bytes than padding has."""
    if not (size := _size(file)):
        return False
    count = min(_MOST_PADDING_BYTES, size // 4)
    file.seek(size - count)
    return not file.read(count).strip(b"\0")


def _announced(container: Any, stream: av.AudioStream, reading: _Reading) -> float:
    """Return the length in seconds by the header, if that can be trusted; else 0."""
    seconds = 0.0
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None and len(container.streams) == 1:
        seconds = container.duration / av.time_base
    if container.format.name == "mp3":  # FFmpeg guesses from the size of joined files
        reading.file.seek(id3_bytes(reading.head))
        return min(seconds, counted_seconds(reading.file.read(256)))
    return max(0.0, seconds) if container.format.name in _COUNTING else 0.0


def _joined(frames: Iterator[av.AudioFrame]) -> Iterator[tuple[Block, int]]:
    """Join frames of equal format into blocks."""
    kind, waiting = None, av.AudioFifo()
    for frame in frames:
        channels = frame.layout.nb_channels
        # the FIFO does not check the channels, and would read out of bounds
        if kind != (new := (channels, frame.sample_rate, frame.format.name)):
            yield from _take(waiting)
            kind, waiting = new, av.AudioFifo()
        frame.pts = None  # else the FIFO refuses frames after a gap
        waiting.write(frame)
        if waiting.samples * channels >= _BLOCK_VALUES:
            yield from _take(waiting)
    yield from _take(waiting)


def _take(waiting: av.AudioFifo) -> Iterator[tuple[Block, int]]:
    frame = waiting.read(partial=True) if waiting.samples else None
    if frame is None:
        return
    if frame.format.is_planar:
        block = frame.to_ndarray().T
    else:  # to_ndarray would copy
        values = np.frombuffer(cast(Any, frame.planes[0]), _SAMPLE_TYPES[frame.format.name])
        block = values[: frame.samples * frame.layout.nb_channels].reshape(frame.samples, -1)
    if block.dtype == np.uint8:
        block = (block.astype(np.int16) - 128) << 8
    yield block, frame.sample_rate


_SAMPLE_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


# --- Opening ---


def is_url(path: Source) -> bool:
    """Whether a path is a URL for fsspec."""
    return isinstance(path, str | os.PathLike) and "://" in os.fspath(path)


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    if not isinstance(source, str | os.PathLike):
        yield source
    elif is_url(source):
        with _fetched(os.fspath(source)) as remote:
            yield cast(BinaryIO, remote)
    else:
        _check_regular(source)
        try:
            with Path(source).open("rb") as file:
                yield file
        except OSError as error:
            raise AudioError(f"cannot be read ({error.strerror})") from error


class _Remote:
    """An fsspec file that keeps its first error, which decoders take for the end of the file."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._error: Exception | None = None
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        try:
            content: bytes = self._file.read(size)
        except Exception as error:
            self._error = self._error or error
            raise _unfetched(error) from error
        return content

    def check(self) -> None:
        """Raise an `AudioError` if a read failed."""
        if self._error is not None:
            raise _unfetched(self._error) from self._error


@contextmanager
def _fetched(url: str) -> Iterator[_Remote]:
    stack = ExitStack()
    try:
        try:
            file = stack.enter_context(fsspec.open(url, "rb"))
            if not _can_seek(file):
                copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
                shutil.copyfileobj(file, copy)
                file = copy
        except Exception as error:  # each kind of file system has errors of its own
            raise _unfetched(error) from error
        yield _Remote(file)
    finally:
        with suppress(Exception):
            stack.close()


def _unfetched(error: Exception) -> AudioError:
    return AudioError(f"cannot be fetched ({type(error).__name__}: {error})")


def _can_seek(file: Any) -> bool:
    try:
        file.seek(0, os.SEEK_END)
        file.seek(0)
    except (OSError, ValueError, NotImplementedError):
        return False
    return True


def _size(file: BinaryIO) -> int | None:
    with suppress(Exception):
        return file.seek(0, os.SEEK_END)
    return None


def _check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse paths that are no readable file, such as a pipe, which would block the decoder."""
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
