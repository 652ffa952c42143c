"""Lock folders, hash files and write them atomically."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import HearTuneError

FileState = list[int]  # size in bytes, mtime and ctime in ns; empty for a missing file


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file that cannot be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{os.fspath(path)}: cannot be written ({reason})") from error


class InUseError(HearTuneError, ValueError):
    """Another process works on the same folder or file."""


@contextmanager
def sole_use(
    folder: str | os.PathLike[str],
    doing: str,
    of: str | os.PathLike[str] | None = None,
    timeout_seconds: float = 0,
) -> Iterator[None]:
    """Keep other processes of this machine out of a folder.

    Parameters
    ----------
    folder : path-like
        Holds the lock; created if needed.
    doing : str
        What this process does, for the others' error: "writing it".
    of : path-like, optional
        What is locked, for that error; by default the folder.
    timeout_seconds : float
        How long to wait for another process.

    Raises
    ------
    InUseError
        If another process holds the lock.
    OSError
        If the folder cannot be written.
    """
    place = os.fspath(of or folder)
    lock = FileLock(Path(folder) / "lock", timeout=timeout_seconds)
    with writing(place):
        Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise InUseError(f"{place}: another process is {doing}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a scratch path; its file replaces `path` atomically, or is removed on an error."""
    target = Path(path)
    partial = target.with_name(f".{secrets.token_hex(8)}.partial")  # no two writers share it
    try:
        yield partial
        partial.replace(target)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file atomically, replacing an existing one; text as UTF-8."""
    with writing(path), replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def file_state(path: str | os.PathLike[str]) -> FileState:
    """Tell whether a file has changed, without reading it."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    # ctime: swapped files may have the same size and mtime
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    for chunk in chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def chunks(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the content of a file in chunks of a megabyte."""
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
