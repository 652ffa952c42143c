"""What the bytes of a file say of it: where its audio should end, and what it is if not audio."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

HEAD_BYTES = 4096
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS")  # what those begin with that follow the audio

_FEW_BYTES = 0.01  # of a file
_MAX_BOXES = 100_000  # of a file that is looked through; recorders write thousands
# sizes that writers into pipes leave as placeholders, a header or a frame more or less
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
    """How long a file is at least if its container's header is right; None if that says nothing.

    Headers of WAV, AIFF, AU, CAF, Windows Media, MPEG-4 and Matroska say so, unless they were
    written into a pipe.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    for is_its_head, measure in _MEASURES:
        if is_its_head(head):
            return measure(file, head)
    return None


def _riff_bytes(file: BinaryIO, head: bytes) -> int | None:
    if head[8:12] == b"AVI ":  # its audio lies among the pictures
        return _placed(8, int.from_bytes(head[4:8], "little"))
    order = "big" if head[:4] == b"RIFX" else "little"
    long_bytes = None
    for name, start, size in _chunks(file, order == "big"):
        if name == b"ds64":
            long_bytes = int.from_bytes(_read_at(file, start, 16)[8:], "little")
        elif name == b"data":
            return start + long_bytes if long_bytes else _placed(start, size)
    return None


def _aiff_bytes(file: BinaryIO, _head: bytes) -> int | None:
    sizes = (_placed(start, size) for name, start, size in _chunks(file, True) if name == b"SSND")
    return next(sizes, None)


def overlooked_bytes(file: BinaryIO, head: bytes, size: int) -> int:
    """How many bytes of a WAV or AIFF file follow its audio without being a chunk.

    They are audio as well if a recorder crashed before it could write the length, or if the length
    is beyond 4 GiB.
    """
    is_wav = head[:4] in (b"RIFF", b"RIFX") and head[8:12] == b"WAVE"
    end = announced_bytes(file) if is_wav or head[:4] == b"FORM" else None
    if end is None or size - end < _FEW_BYTES * size:
        return 0
    rest = _read_at(file, end, HEAD_BYTES)
    # some writers leave out the byte that makes the length of a chunk even
    is_chunk = any(_is_text(rest[start : start + 4]) for start in (0, 1))
    return 0 if is_chunk or not rest.strip(b"\0") else size - end


def _au_bytes(_file: BinaryIO, head: bytes) -> int | None:
    return _placed(*struct.unpack(">II", head[4:12])) if len(head) >= 12 else None


def _caf_bytes(file: BinaryIO, _head: bytes) -> int | None:
    start = 8
    for _ in range(_MAX_BOXES):
        header = _read_at(file, start, 12)
        size = int.from_bytes(header[4:], "big", signed=True)
        if len(header) < 12 or size < 0:  # a recorder that did not finish leaves -1
            return None
        start += 12 + size
        if header[:4] == b"data":
            return start
    return None


def _wave64_bytes(file: BinaryIO, _head: bytes) -> int | None:
    start = 40
    for _ in range(_MAX_BOXES):
        header = _read_at(file, start, 24)
        size = int.from_bytes(header[16:], "little")  # with this header
        if len(header) < 24 or size < 24:
            return None
        if header[:4] == b"data":
            return start + size if size < 1 << 62 else None
        start += -(-size // 8) * 8
    return None


def _placed(start: int, size: int) -> int | None:
    is_known = size > 0 and not any(size in sizes for sizes in _PLACEHOLDER_BYTES)
    return start + size if is_known else None


def _chunks(file: BinaryIO, big_endian: bool) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and size of each chunk of a RIFF or an IFF file."""
    start = 12
    for _ in range(_MAX_BOXES):
        header = _read_at(file, start, 8)
        if len(header) < 8:
            return
        name, size = struct.unpack(">4sI" if big_endian else "<4sI", header)
        yield name, start + 8, size
        start += 8 + size + size % 2


def _asf_bytes(_file: BinaryIO, head: bytes) -> int | None:
    start = head.find(_ASF_FILE_PROPERTIES)
    if start < 0 or len(head) < start + 92:
        return None
    size, flags = struct.unpack_from("<Q", head, start + 40)[0], head[start + 88]
    return None if flags & 1 else size  # of a broadcast the size is not known


def _mpeg4_bytes(file: BinaryIO, _head: bytes) -> int | None:
    return max((end for _, end in _boxes(file)), default=None)


def lacks_index(file: BinaryIO) -> bool:
    """Whether an MPEG-4 file has no moov, which recorders write last."""
    return all(name != b"moov" for name, _ in _boxes(file))


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and end of each box of an MPEG-4 file."""
    start = 0
    for _ in range(_MAX_BOXES):
        header = _read_at(file, start, 16)
        size, length = int.from_bytes(header[:4], "big"), 8
        if size == 1:
            size, length = int.from_bytes(header[8:], "big"), 16
        is_box = len(header) >= length and size >= length and not header.startswith(TAGS)
        if not is_box:  # or to the end of the file
            return
        start += size
        yield header[4:8], start


def _read_at(file: BinaryIO, start: int, size: int) -> bytes:
    """Nothing beyond the longest file that there can be."""
    if start >= 1 << 62:
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


_MEASURES: list[tuple[Callable[[bytes], bool], Callable[[BinaryIO, bytes], int | None]]] = [
    (lambda head: head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"), _riff_bytes),
    (lambda head: head[:4] == b"FORM", _aiff_bytes),
    (lambda head: head[:4] == b".snd", _au_bytes),
    (lambda head: head[:4] == b"caff", _caf_bytes),
    (lambda head: head[:4] == b"riff", _wave64_bytes),
    (lambda head: head.startswith(_ASF_HEADER), _asf_bytes),
    (lambda head: is_mpeg4(head), _mpeg4_bytes),
    (lambda head: head.startswith(_EBML), _matroska_bytes),
]

_PCM_HEADS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b".snd", b"caff", b"riff")


def may_be_pcm(head: bytes) -> bool:
    """Whether a file is in a container whose audio is not compressed as a rule."""
    return head.startswith(_PCM_HEADS)


def is_mpeg4(head: bytes) -> bool:
    """Whether it is the beginning of an MPEG-4 file."""
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def is_protected(head: bytes) -> bool:
    """Whether the beginning of a file says that the audio is encrypted."""
    return head.startswith(_ASF_HEADER) and _ASF_ENCRYPTION in head


def id3_bytes(head: bytes) -> int:
    """Length of the ID3v2 tag that a file begins with; 0 without one."""
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
    """Of an MPEG audio or ADTS frame: its length, and for the former what it decodes to."""

    size: int
    samples: int = 0
    rate: int = 0


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
    """Length that an MPEG audio, ADTS, LOAS or AC-3 frame's own header gives; 0 without one."""
    if frame.startswith(_AC3_SYNC):
        return _ac3_bytes(frame)
    if len(frame) >= 3 and frame[0] == 0x56 and frame[1] & 0xE0 == 0xE0:  # LOAS
        return 3 + ((frame[1] & 0x1F) << 8 | frame[2])
    header = _frame_header(frame)
    return header.size if header else 0


def counted_seconds(first_frame: bytes) -> float:
    """Length of an MPEG audio file by the count in its first frame (Xing, VBRI); 0 without one."""
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
    """What a file that no decoder takes is by its bytes, in words; None if unknown."""
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
    """Whether a file begins with a tag, and nothing but tags and zeros follows."""
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
        if error.start < len(head) - 3:  # else a letter is cut by the end of what was read
            return False
        text = head[: error.start].decode()
    return all(letter.isprintable() or letter.isspace() for letter in text)
