"""What a file's bytes reveal: where its audio should end, and what it is if not audio."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

HEAD_BYTES = 4096
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS")  # beginnings of tags after the audio

_FEW_BYTES = 0.01  # relative to a file's size
_LONGEST_BYTES = 1 << 62  # no file is longer
_MAX_CHUNKS = 100_000  # looked at in a file; recorders write thousands
# placeholders for sizes in files written to pipes, give or take a header or a frame
_PLACEHOLDER_BYTES = (
    range(0x7EFF_F000, 0x7F00_1000),  # SoX, in AIFF
    range(0x7FFF_F000, 0x8000_0001),
    range(0xFFFF_F000, 0x1_0000_0000),
)
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_ENCRYPTION = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def announced_bytes(file: BinaryIO) -> int | None:
    """Return the least length of a file by its container's header; None if that gives none.

    Headers of WAV, AIFF, AU, CAF, Windows Media, MPEG-4 and Matroska do, unless they were written
    to a pipe.
    """
    head = _read_at(file, 0, HEAD_BYTES)
    measure = _MEASURES.get(head[:4], _mpeg4_bytes if is_mpeg4(head) else None)
    return measure(file, head) if measure else None


def _riff_bytes(file: BinaryIO, head: bytes) -> int | None:
    if head[8:12] == b"AVI ":  # its audio lies among the pictures
        return _placed(8, int.from_bytes(head[4:8], "little"))
    long_bytes = None
    for name, start, size in _chunks(file, 12, _IFF if head[:4] == b"RIFX" else _RIFF, 2):
        if name == b"ds64":
            long_bytes = int.from_bytes(_read_at(file, start, 16)[8:], "little")
        elif name == b"data":
            return start + long_bytes if long_bytes else _placed(start, size)
    return None


def _aiff_bytes(file: BinaryIO, _head: bytes) -> int | None:
    chunks = _chunks(file, 12, _IFF, 2)
    return next((_placed(start, size) for name, start, size in chunks if name == b"SSND"), None)


def overlooked_bytes(file: BinaryIO, head: bytes, size: int) -> int:
    """Count the bytes of a WAV or AIFF file after its audio that are no chunk.

    They are audio too if a recorder crashed before it wrote the length, or the length exceeds
    4 GiB.
    """
    is_wav = head[:4] in (b"RIFF", b"RIFX") and head[8:12] == b"WAVE"
    end = announced_bytes(file) if is_wav or head[:4] == b"FORM" else None
    if end is None or size - end < _FEW_BYTES * size:
        return 0
    rest = _read_at(file, end, HEAD_BYTES)
    # some writers omit the byte that pads a chunk to an even length
    is_chunk = any(_is_text(rest[start : start + 4]) for start in (0, 1))
    return 0 if is_chunk or not rest.strip(b"\0") else size - end


def _au_bytes(_file: BinaryIO, head: bytes) -> int | None:
    return _placed(*struct.unpack(">II", head[4:12])) if len(head) >= 12 else None


def _caf_bytes(file: BinaryIO, _head: bytes) -> int | None:
    chunks = _chunks(file, 8, _CAF)
    return next((start + size for name, start, size in chunks if name == b"data"), None)


def _wave64_bytes(file: BinaryIO, _head: bytes) -> int | None:
    chunks = _chunks(file, 40, _WAVE64, 8, counts_header=True)
    ends = (start + size for name, start, size in chunks if name == b"data")
    return next((end if end < _LONGEST_BYTES else None for end in ends), None)


def _placed(start: int, size: int) -> int | None:
    is_known = size > 0 and not any(size in sizes for sizes in _PLACEHOLDER_BYTES)
    return start + size if is_known else None


_RIFF, _IFF = struct.Struct("<4sI"), struct.Struct(">4sI")  # chunk headers: name, size
_CAF, _WAVE64 = struct.Struct(">4sq"), struct.Struct("<4s12xQ")


def _chunks(
    file: BinaryIO, start: int, layout: struct.Struct, unit: int = 1, counts_header: bool = False
) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, first byte and size of the content of each chunk, padded to a multiple of unit.

    An unfinished recording may have a size of -1, which ends the search.
    """
    for _ in range(_MAX_CHUNKS):
        header = _read_at(file, start, layout.size)
        if len(header) < layout.size:
            return
        name, size = layout.unpack(header)
        size -= layout.size if counts_header else 0
        if size < 0:
            return
        start += layout.size
        yield name, start, size
        start += -(-size // unit) * unit


def _asf_bytes(_file: BinaryIO, head: bytes) -> int | None:
    start = head.find(_ASF_FILE_PROPERTIES)
    if start < 0 or len(head) < start + 92:
        return None
    size, flags = struct.unpack_from("<Q", head, start + 40)[0], head[start + 88]
    return None if flags & 1 else size  # a broadcast has no known size


def _mpeg4_bytes(file: BinaryIO, _head: bytes) -> int | None:
    return max((end for _, end in _boxes(file)), default=None)


def lacks_index(file: BinaryIO) -> bool:
    """Whether an MPEG-4 file lacks its moov box, which recorders write last."""
    return all(name != b"moov" for name, _ in _boxes(file))


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield name and end of each box of an MPEG-4 file."""
    start = 0
    for _ in range(_MAX_CHUNKS):
        header = _read_at(file, start, 16)
        size, length = int.from_bytes(header[:4], "big"), 8
        if size == 1:
            size, length = int.from_bytes(header[8:], "big"), 16
        is_box = len(header) >= length and size >= length and not header.startswith(TAGS)
        if not is_box:  # or it extends to the end of the file
            return
        start += size
        yield header[4:8], start


def _read_at(file: BinaryIO, start: int, size: int) -> bytes:
    if start >= _LONGEST_BYTES:
        return b""
    file.seek(start)
    return file.read(size)


def _matroska_bytes(_file: BinaryIO, head: bytes) -> int | None:
    start = head.find(_SEGMENT)
    if start < 0 or len(head) < start + 12:
        return None
    first = head[start + 4]
    width = 9 - first.bit_length()
    size = int.from_bytes(head[start + 4 : start + 4 + width], "big") - (1 << 7 * width)
    unknown = size == (1 << 7 * width) - 1
    return None if unknown or not first else start + 4 + width + size


_Measure = Callable[[BinaryIO, bytes], int | None]
_PCM_MEASURES: dict[bytes, _Measure] = {
    **dict.fromkeys((b"RIFF", b"RIFX", b"RF64", b"BW64"), _riff_bytes),
    b"FORM": _aiff_bytes,
    b".snd": _au_bytes,
    b"caff": _caf_bytes,
    b"riff": _wave64_bytes,
}
_MEASURES = {**_PCM_MEASURES, _ASF_HEADER[:4]: _asf_bytes, _EBML: _matroska_bytes}


def may_be_pcm(head: bytes) -> bool:
    """Whether a file is in a container that usually holds uncompressed audio."""
    return head[:4] in _PCM_MEASURES


def is_mpeg4(head: bytes) -> bool:
    """Whether a file begins like MPEG-4."""
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def is_protected(head: bytes) -> bool:
    """Whether a file's beginning declares its audio encrypted."""
    return head.startswith(_ASF_HEADER) and _ASF_ENCRYPTION in head


def id3_bytes(head: bytes) -> int:
    """Return the length of the ID3v2 tag at a file's beginning; 0 without one."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    a, b, c, d = (byte & 0x7F for byte in head[6:10])
    return 10 + (a << 21 | b << 14 | c << 7 | d)


_MPEG1_KBITS = (
    (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),  # layer I
    (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_MPEG2_KBITS = (
    (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_MPEG1_RATES_HZ = (44_100, 48_000, 32_000)


@dataclass(frozen=True)
class _FrameHeader:
    """Header of an MPEG audio or ADTS frame."""

    size: int  # bytes
    samples: int = 0  # 0 for ADTS
    rate: int = 0  # Hz; 0 for ADTS


def _frame_header(frame: bytes) -> _FrameHeader | None:
    if len(frame) < 6 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return None
    version, layer = frame[1] >> 3 & 3, 4 - (frame[1] >> 1 & 3)  # 3: MPEG-1, 2: 2, 0: 2.5
    if layer == 4:  # ADTS
        return _FrameHeader((frame[3] & 3) << 11 | frame[4] << 3 | frame[5] >> 5)
    kbits, rate, padding = frame[2] >> 4, frame[2] >> 2 & 3, frame[2] >> 1 & 1
    if version == 1 or kbits in (0, 15) or rate == 3:
        return None
    is_first = version == 3
    bits_per_second = 1000 * (_MPEG1_KBITS if is_first else _MPEG2_KBITS)[layer - 1][kbits]
    hertz = _MPEG1_RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return _FrameHeader((12 * bits_per_second // hertz + padding) * 4, 384, hertz)
    samples = 576 if layer == 3 and not is_first else 1152
    return _FrameHeader(samples // 8 * bits_per_second // hertz + padding, samples, hertz)


_AC3_SYNC = b"\x0b\x77"
_AC3_KBITS = (
    *(32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640),
)


def _ac3_bytes(frame: bytes) -> int:
    if len(frame) < 6:
        return 0
    if frame[5] >> 3 > 10:  # E-AC-3
        return 2 * ((frame[2] & 7) << 8 | frame[3]) + 2
    rate, code = frame[4] >> 6, frame[4] & 63
    if rate == 3 or code // 2 >= len(_AC3_KBITS):
        return 0
    kbits = _AC3_KBITS[code // 2]
    words = (2 * kbits, 320 * kbits // 147 + code % 2, 3 * kbits)  # at 48, 44.1 and 32 kHz
    return 2 * words[rate]


def frame_bytes(frame: bytes) -> int:
    """Return the length in the header of an MPEG audio, ADTS, LOAS or AC-3 frame; 0 without one."""
    if frame.startswith(_AC3_SYNC):
        return _ac3_bytes(frame)
    if len(frame) >= 3 and frame[0] == 0x56 and frame[1] & 0xE0 == 0xE0:  # LOAS
        return 3 + ((frame[1] & 0x1F) << 8 | frame[2])
    header = _frame_header(frame)
    return header.size if header else 0


def counted_seconds(first_frame: bytes) -> float:
    """Return an MPEG audio file's length by the count in its first frame (Xing, VBRI), or 0."""
    header = _frame_header(first_frame)
    xing = max(first_frame.find(mark, 4, 64) for mark in (b"Xing", b"Info"))
    vbri = first_frame.find(b"VBRI", 4, 64)
    if xing >= 0 and first_frame[xing + 7] & 1:
        start = xing + 8
    elif vbri >= 0:
        start = vbri + 14
    else:
        return 0.0
    count = int.from_bytes(first_frame[start : start + 4], "big")
    return count * header.samples / header.rate if header and header.rate else 0.0


_ID3V1_BYTES = 128
_PROLOGUE = re.compile(rb"\A(?:\s|<!--.*?-->|<\?.*?\?>)*", re.DOTALL)
_MARKUP = (b"<!doctype html", b"<html", b"<head", b"<body")
_SIGNATURES = [
    (b"version https://git-lfs", "a Git LFS pointer: git lfs pull fetches the audio itself"),
    (b"#EXTM3U", "a playlist"),
    (b"[playlist]", "a playlist"),
    (b"ffconcat version", "a playlist"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"MThd", "a MIDI file: notes without their sound"),
    (b"\0\x05\x16\x07", "a resource fork of macOS without the file that it belongs to"),
]


def describe(file: BinaryIO) -> str | None:
    """Say what a file is that no decoder takes; None if unknown."""
    head = _read_at(file, 0, HEAD_BYTES)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    markup = _PROLOGUE.sub(b"", text)
    if markup.lower().startswith(_MARKUP):
        return "an HTML page"
    if text.startswith(b"<?xml"):
        return "an XML document, perhaps the answer of a server"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if _is_all_tags(file):
        return "tags without audio"
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    if text[:1] in (b"{", b"[") and _is_json(text):
        return "a JSON file"
    return "a text file" if _is_text(head) else None


def _is_all_tags(file: BinaryIO) -> bool:
    """Whether a file is a tag followed by nothing but tags and zeros."""
    start = 0
    while head := _read_at(file, start, HEAD_BYTES):
        if padding := len(head) - len(head.lstrip(b"\0")):
            length = padding if start else 0
        elif head.startswith(b"APETAGEX"):
            length = 32 + int.from_bytes(head[12:16], "little")
        else:
            length = _ID3V1_BYTES if head.startswith(b"TAG") else id3_bytes(head)
        if not length:
            return False
        start += length
    return start > 0


def _is_json(text: bytes) -> bool:
    if len(text) >= HEAD_BYTES - 64:
        return _is_text(text)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else the end of the read cuts a letter
            return False
        text = head[: error.start].decode()
    return all(letter.isprintable() or letter.isspace() for letter in text)
