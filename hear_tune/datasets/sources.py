"""Files of data sets on the web, and those that mirdata lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from .task import TaskError


@dataclass(frozen=True)
class Download:
    """One file on the web.

    Attributes
    ----------
    url : str
        Its URL.
    digest : str
        Full hexadecimal md5, sha1 or sha256; empty if unknown.
    name : str
        Local file name; by default the last part of the URL.
    archive : bool
        Whether to unpack it.
    folder : str
        Target folder, relative to the data set's.
    parts : tuple of (str, str)
        URLs and digests of the further parts of a split archive, in order.
    """

    url: str
    digest: str = ""
    name: str = ""
    archive: bool = False
    folder: str = "."
    parts: tuple[tuple[str, str], ...] = ()

    @property
    def files(self) -> tuple[tuple[str, str, str], ...]:
        """URL, digest and name of each part."""
        first = (self.url, self.digest, self.name or _last(self.url))
        return (first, *((url, digest, _last(url)) for url, digest in self.parts))


def mirdata_downloads(name: str, remotes: Sequence[str]) -> tuple[Download, ...]:
    """Return the index of a mirdata data set and some of its remote files, by mirdata's names."""
    module = _module(name)
    index = _index(module)
    files = [module.REMOTES[remote] for remote in remotes]
    return (
        Download(index.remote.url, index.remote.checksum, index.filename),
        *(
            Download(
                file.url,
                file.checksum,
                file.filename,
                archive=file.filename.endswith((".zip", ".tar.gz")),
                folder=file.destination_dir or ".",
            )
            for file in files
        ),
    )


def mirdata_tracks(name: str, root: Path) -> dict[str, Any]:
    """Load the tracks of a mirdata data set, whose index is in the data set's own folder.

    Raises
    ------
    FileNotFoundError
        If there is no index.
    TaskError
        If mirdata is not installed.
    """
    module = _module(name)
    index = root / _index(module).filename
    if not index.is_file():
        raise FileNotFoundError(f"{index}: no such file; get it with `hear-tune data download`")
    dataset = module.Dataset(data_home=str(root))
    dataset.index_path = str(index)  # by default inside mirdata's package
    tracks: dict[str, Any] = dataset.load_tracks()
    return tracks


def _module(name: str) -> Any:
    try:
        return import_module(f"mirdata.datasets.{name}")
    except ModuleNotFoundError as error:
        raise TaskError(f'{name} needs mirdata: pip install "hear-tune[data]"') from error


def _index(module: Any) -> Any:
    return module.INDEXES[module.INDEXES["default"]]


def _last(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]
