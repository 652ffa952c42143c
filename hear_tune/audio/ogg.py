"""Links of an Ogg file: chained streams, one after the other, as in recordings of radio."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

_CAPTURE = b"OggS"
_HEADER_BYTES = 27
_VORBIS = b"\x01vorbis"
_BEGINS, _ENDS = 0x02, 0x04  # flags of a page of a stream
_READ_BYTES = 1 << 18
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def is_ogg(head: bytes) -> bool:
    """Whether a file begins with an Ogg page."""
    return head.startswith(_CAPTURE)


def links(file: BinaryIO) -> Iterator[Link]:
    """Yield each link of a file; read it before taking the next."""
    pages = _pages(file)
    page = next(pages, None)
    while page is not None:
        link = Link(chain([page], pages))
        yield link
        page = link.skip()


class Link:
    """One link, as a file to be read front to back.

    Attributes
    ----------
    damaged : int
        Number of pages with a wrong checksum, which decoders skip.
    is_finished : bool
        Whether a page that ends a stream was read.
    lead_in : int
        Samples that a Vorbis decoder outputs before the audio; 0 unless the link is a single
        Vorbis stream.
    position : int
        Granule position of the last page read: for Vorbis, in samples.
    """

    def __init__(self, pages: Iterator[_Page]) -> None:
        self._pages = pages
        self._rest = b""
        self._is_new, self._has_begun = True, False
        self._next_link: _Page | None = None
        self.damaged = 0
        self.is_finished = False
        self.lead_in = 0
        self.position = 0

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; none at the link's end."""
        parts, count = [self._rest], len(self._rest)
        while count < size and (page := self._next()) is not None:
            parts.append(page.content)
            count += len(page.content)
        content = b"".join(parts)
        self._rest = content[size:]
        return content[:size]

    def skip(self) -> _Page | None:
        """Skip to the end of the link, and return the first page of the next one."""
        while self._next() is not None:
            pass
        return self._next_link

    def _next(self) -> _Page | None:
        page = next(self._pages, None) if self._next_link is None else None
        if page is None:
            return None
        if self._has_begun and page.flags & _BEGINS:
            self._next_link = page
            return None
        if page.flags & _BEGINS:
            self.lead_in = _lead_in(page.content) if self._is_new else 0
            self._is_new = False
        position = int.from_bytes(page.content[6:14], "little", signed=True)
        if page.content.startswith(_CAPTURE) and position >= 0:
            self.position = position
        self.damaged += not page.is_intact
        self._has_begun = self._has_begun or not page.flags & _BEGINS
        self.is_finished = self.is_finished or bool(page.flags & _ENDS)
        return page


def _lead_in(page: bytes) -> int:
    header = page.find(_VORBIS)
    sizes = page[header + 28 : header + 29]  # of short and long blocks, as powers of two
    return (1 << (sizes[0] & 15)) // 2 if header >= 0 and sizes else 0


@dataclass(frozen=True)
class _Page:
    """A page, or the bytes between two pages, which have no flags."""

    flags: int
    content: bytes

    @property
    def is_intact(self) -> bool:
        """Whether its checksum is right: a CRC-32 with zlib's bits reversed."""
        page = self.content
        if not page.startswith(_CAPTURE) or len(page) < _page_bytes(page, 0):
            return True
        reversed_bits = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED_BITS)
        checksum = zlib.crc32(reversed_bits, 0xFFFFFFFF) ^ 0xFFFFFFFF
        return checksum == int.from_bytes(page[22:26].translate(_REVERSED_BITS), "big")


def _pages(file: BinaryIO) -> Iterator[_Page]:
    data, more = b"", True
    while True:
        place, needed = 0, 1
        while len(data) - place >= needed:
            if not data.startswith(_CAPTURE, place):
                end = data.find(_CAPTURE, place + 1)
                # a capture pattern may straddle two reads
                end = end if end >= 0 else len(data) - (len(_CAPTURE) - 1 if more else 0)
                if end <= place:
                    break
                yield _Page(0, data[place:end])
                place = end
                continue
            needed = _page_bytes(data, place)
            if len(data) - place >= needed:
                yield _Page(data[place + 5], data[place : place + needed])
                place, needed = place + needed, 1
        data = data[place:]
        if not more:
            if data:
                yield _Page(0, data)  # a page that was cut off
            return
        new = file.read(_READ_BYTES)
        more = bool(new)
        data += new


def _page_bytes(data: bytes, place: int) -> int:
    """Return the length of a page, or of its header if that is incomplete."""
    header = _HEADER_BYTES
    if len(data) - place >= header:
        header += data[place + _HEADER_BYTES - 1]
    if len(data) - place < header or header == _HEADER_BYTES:
        return header
    return header + sum(data[place + _HEADER_BYTES : place + header])
