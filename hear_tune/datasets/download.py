"""Download the files of a data set: resume, verify, unpack.

A file arrives as ``NAME.part``. ``NAME.part.version`` keeps the server's ETag or date, so that two
versions are never joined. Archives stay in ``downloads``, where files from elsewhere can be put as
well; ``NAME.unpacked`` marks an archive that is no longer needed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import requests
import urllib3

from ..common.files import sole_use
from ..common.progress import progress_bar
from . import DownloadError
from .archives import check_space, unpack
from .content import file_digest
from .sources import Download

ARCHIVES = "downloads"  # in the data set's folder

_ATTEMPTS = 5  # in a row without progress
_FIRST_PAUSE_SECONDS = 1.0  # doubled after each attempt
_CONNECT_SECONDS, _SILENCE_SECONDS = 20.0, 60.0
_CHUNK_BYTES = 1 << 20
_ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}  # by hexadecimal digits
_AS_IT_IS = {"Accept-Encoding": "identity"}  # so that lengths and ranges are those of the file
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class _BrokenOffError(Exception):
    """The transfer ended early and can be resumed."""


def download_all(downloads: Sequence[Download], root: Path) -> list[Path]:
    """Download files into a folder, except those that it holds.

    Parameters
    ----------
    downloads : sequence of Download
        The files.
    root : Path
        The data set's folder.

    Returns
    -------
    list of Path
        Archives that were unpacked and are no longer needed.

    Raises
    ------
    DownloadError
        If a file cannot be downloaded or has a wrong digest, an archive is damaged or would write
        elsewhere, or the disk is too small.
    InUseError
        If another process is downloading into the folder.
    """
    archives = root / ARCHIVES
    with sole_use(archives, "downloading into it", of=root), requests.Session() as session:
        return _download_all(session, downloads, root, archives)


def _download_all(
    session: requests.Session, downloads: Sequence[Download], root: Path, archives: Path
) -> list[Path]:
    wanted = [download for download in downloads if not _mark(archives, download).exists()]
    check_space(root, sum(_bytes_needed(session, download, root) for download in wanted))
    for download in wanted:
        paths = _paths(root, download)
        for (url, digest, _), path in zip(download.files, paths, strict=True):
            fetch(session, url, path, digest)
        if download.archive:
            unpack(paths, root / download.folder)
            _mark(archives, download).touch()
    unpacked = (path for d in downloads if d.archive for path in _paths(root, d))
    return [path for path in unpacked if path.exists()]


def _mark(archives: Path, download: Download) -> Path:
    return archives / f"{download.files[0][2]}.unpacked"


def _paths(root: Path, download: Download) -> list[Path]:
    folder = root / ARCHIVES if download.archive else root / download.folder
    return [folder / name for _, _, name in download.files]


def _bytes_needed(session: requests.Session, download: Download, root: Path) -> int:
    """Size of what is missing, plus the content of archives, as audio hardly compresses."""
    needed = 0
    for (url, _, _), path in zip(download.files, _paths(root, download), strict=True):
        if not path.exists():
            size = _remote_bytes(session, url)
            needed += max(size - _held(_part(path)), 0) + (size if download.archive else 0)
    return needed


def _remote_bytes(session: requests.Session, url: str) -> int:
    """Size of a remote file; 0 if unknown."""
    try:
        response = session.head(
            url, headers=_AS_IT_IS, allow_redirects=True, timeout=_CONNECT_SECONDS
        )
    except requests.RequestException:
        return 0  # the transfer itself will report the error
    return int(response.headers.get("Content-Length", 0)) if response.ok else 0


def fetch(session: requests.Session, url: str, path: Path, digest: str = "") -> None:
    """Download one file, resuming an earlier attempt.

    Parameters
    ----------
    session : requests.Session
        Session to use.
    url : str
        URL of the file.
    path : Path
        Target. An existing file is only verified.
    digest : str
        Full hexadecimal md5, sha1 or sha256; empty if unknown.

    Raises
    ------
    DownloadError
        If it cannot be downloaded, or has a wrong digest.
    """
    if path.exists():
        _check_digest(path, digest, f"it is not the file of {url}; move it away")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    most, in_vain = _held(part), 0
    while True:
        try:
            _receive(session, url, part)
            break
        except (_BrokenOffError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            in_vain = 1 if _held(part) > most else in_vain + 1
            most = max(most, _held(part))
            if in_vain == _ATTEMPTS:
                raise DownloadError(f"{url}: {_reason(error)}; {_remedy(path)}") from error
        except DownloadError as error:
            raise DownloadError(f"{url}: {error}; {_remedy(path)}") from error
        time.sleep(_FIRST_PAUSE_SECONDS * 2 ** (in_vain - 1))
    _version_file(part).unlink(missing_ok=True)
    try:
        _check_digest(part, digest, f"{url} has sent another file, or a damaged one")
    except DownloadError:
        part.unlink()
        raise
    part.replace(path)


def _receive(session: requests.Session, url: str, part: Path) -> None:
    """Append what is missing, or write the whole file if the server does not support ranges."""
    held = _held(part)
    headers = dict(_AS_IT_IS)
    if held:
        headers["Range"] = f"bytes={held}-"
        if _version_file(part).exists():
            headers["If-Range"] = _version_file(part).read_text(encoding="utf-8")
    timeout = (_CONNECT_SECONDS, _SILENCE_SECONDS)
    with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            if _total_bytes(response) != held:
                part.unlink()
                raise _BrokenOffError("the part that was there belongs to another file")
            return
        if response.status_code in _TRANSIENT_STATUS:
            raise _BrokenOffError(f"the server answers {response.status_code} {response.reason}")
        if not response.ok:
            raise DownloadError(f"the server answers {response.status_code} {response.reason}")
        resumed = response.status_code == requests.codes.partial_content
        start = held if resumed else 0
        if resumed and _first_byte(response) != held:
            raise DownloadError("the server sends another part than requested")
        total = _total_bytes(response)
        if not resumed:
            _version_file(part).unlink(missing_ok=True)
            if version := _version(response):
                _version_file(part).write_text(version, encoding="utf-8")
        with (
            part.open("ab" if resumed else "wb") as file,
            progress_bar(
                total=total,
                initial=start,
                desc=part.name.removesuffix(".part"),
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _held(part) != total:
        raise _BrokenOffError(f"only {_held(part):,} of {total:,} bytes came")


def _total_bytes(response: requests.Response) -> int | None:
    """Size of the whole file, if the server gives it."""
    whole = response.headers.get("Content-Range", "").rpartition("/")[2]
    text = whole or response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _first_byte(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(text) if text.isdecimal() else None


def _version(response: requests.Response) -> str:
    """Value for If-Range: a strong ETag, or the date of the last change."""
    tag: str = response.headers.get("ETag", "")
    changed: str = response.headers.get("Last-Modified", "")
    return tag if tag.startswith('"') else changed


def _check_digest(path: Path, digest: str, otherwise: str) -> None:
    if not digest:
        return
    algorithm = _ALGORITHMS[len(digest)]
    found = file_digest(path, algorithm, progress=True)
    if found != digest:
        raise DownloadError(f"{path}: its {algorithm} is {found}, not {digest}: {otherwise}")


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "the host's certificate is not accepted"
    if isinstance(error, requests.ConnectionError):
        return "the host is not known, or does not answer"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return f"nothing came for {_SILENCE_SECONDS:.0f} s"
    if isinstance(error, _BrokenOffError):
        return str(error)
    return f"the transfer breaks off ({type(error).__name__})"


def _remedy(path: Path) -> str:
    return f"give the same command later, or put the file at {path} by other means first"


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _held(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
