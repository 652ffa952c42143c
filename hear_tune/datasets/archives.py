"""Unpack zip and tar archives, also split ones, without trusting their content."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from ..common.progress import progress_bar
from . import DownloadError


def unpack(parts: Sequence[Path], folder: Path) -> int:
    """Unpack an archive; existing files of the right size are kept.

    Parameters
    ----------
    parts : sequence of Path
        Parts of one zip or tar, compressed or not, in order.
    folder : Path
        Target folder.

    Returns
    -------
    int
        Number of files in the archive.

    Raises
    ------
    DownloadError
        If the archive is damaged, holds a link or would write outside `folder`, or the disk is too
        small.
    """
    name = parts[0]
    count = 0
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with io.BufferedReader(_JoinedFiles(parts)) as file:
            members = _members(file, folder)
            for member in progress_bar(members, desc=f"unpacking {name.name}", unit="file"):
                count += 1
                _write(member, _target(folder, member.name))
    except DownloadError as error:
        raise DownloadError(f"{name}: {error}") from error
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        gzip.BadGzipFile,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,  # unknown compression
        RuntimeError,  # encryption
    ) as error:
        raise DownloadError(f"{name}: no archive, or damaged ({error})") from error
    return count


def check_space(folder: Path, needed: int) -> None:
    """Raise a `DownloadError` if fewer than `needed` bytes are free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{folder}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; "
            "make room, or choose another folder with --root"
        )


@dataclass(frozen=True)
class _Member:
    name: str
    size: int  # bytes
    open: Callable[[], IO[bytes]]


def _members(file: IO[bytes], folder: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(file):
        yield from _zip_members(file, folder)
    else:
        file.seek(0)
        yield from _tar_members(file)


def _zip_members(file: IO[bytes], folder: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        for info in infos:
            if stat.S_ISLNK(info.external_attr >> 16):
                raise DownloadError(f"{info.filename!r} is a link")
        new = (i.file_size for i in infos if not _is_there(folder / i.filename, i.file_size))
        check_space(folder, sum(new))
        for info in infos:
            yield _Member(info.filename, info.file_size, partial(archive.open, info))


def _tar_members(file: IO[bytes]) -> Iterator[_Member]:
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for info in archive:
            if info.isfile():
                yield _Member(info.name, info.size, partial(_tar_file, archive, info))
            elif not info.isdir():
                raise DownloadError(f"{info.name!r} is a link or a device")


def _tar_file(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    assert file is not None  # it is a regular file
    return file


def _target(folder: Path, name: str) -> Path:
    target = folder / name
    if Path(os.path.realpath(folder)) not in Path(os.path.realpath(target)).parents:
        raise DownloadError(f"{name!r} would be written outside the folder")
    return target


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write(member: _Member, target: Path) -> None:
    if _is_there(target, member.size):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with member.open() as source, part.open("wb") as file:
        shutil.copyfileobj(source, file)
    part.replace(target)


class _JoinedFiles(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._ends = list(accumulate(path.stat().st_size for path in paths))
        self._files = [path.open("rb") for path in paths]
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}
        position = origins[whence] + offset
        if position < 0:
            raise OSError("a position before the file")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        index = bisect_right(self._ends, self._position)
        if index == len(self._files):
            return 0
        file = self._files[index]
        file.seek(self._position - (self._ends[index - 1] if index else 0))
        count = file.readinto(buffer)
        self._position += count
        return count

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
