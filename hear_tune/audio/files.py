"""Finding audio files and grouping the work on them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from glob import glob, has_magic
from pathlib import Path

import fsspec

from .reading import SUFFIXES, is_url

GROUP_FILES = 16
GROUP_BYTES = 64 << 20
_LEAST_GROUP_BYTES = 2 << 20
_GROUP_BYTES_PER_FILE = 64 << 10  # per listed file: short lists are cut finer, for all cores


@dataclass(frozen=True)
class FoundAudio:
    """Audio files found by a search.

    Attributes
    ----------
    paths : list of Path or str
        Audio files without duplicates, URLs as text; those of a folder sorted by name, without
        hidden ones.
    unreadable : dict of str to str
        The reason for each folder that could not be searched, by path.
    ignored : Counter of str
        Number of other files by suffix.
    """

    paths: list[Path | str]
    unreadable: dict[str, str]
    ignored: Counter[str]


def find_audio(inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> FoundAudio:
    """Search folders at all levels for files with audio suffixes; single files are taken as given.

    Links to folders are followed, each folder once. Patterns (``music/**/*.mp3``) and URLs for
    fsspec (``s3://bucket/music``) work too.

    Raises
    ------
    FileNotFoundError
        If there is no audio file.
    ValueError
        If a URL needs another package, or cannot be searched.
    """
    given = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    found = FoundAudio([], {}, Counter())
    for text in [os.fspath(path) for path in given]:
        if is_url(text):
            _search_url(text, found)
        elif os.path.isdir(text):
            _search(Path(text), found)
        elif has_magic(text) and not os.path.exists(text):
            _search_pattern(text, found)
        else:
            found.paths.append(Path(text))
    if not found.paths and not found.unreadable:
        looked = ", ".join(os.fspath(path) for path in given) or "no inputs"
        raise FileNotFoundError(
            f"no audio files in {looked} (looked for {', '.join(sorted(SUFFIXES))})"
        )
    found.paths[:] = _unique(found.paths)
    return found


def _unique(paths: Iterable[Path | str]) -> Iterable[Path | str]:
    """Keep the first spelling of each local path: M/a.wav, and not /home/me/M/a.wav again."""
    real = cache(os.path.realpath)  # of folders; links to files are files of their own
    known: dict[str, Path | str] = {}
    for path in paths:
        place = path if isinstance(path, str) else os.path.join(real(path.parent), path.name)
        known.setdefault(place, path)
    return known.values()


def _search(top: Path, found: FoundAudio) -> None:
    def note(error: OSError) -> None:
        found.unreadable[str(error.filename)] = f"folder cannot be read ({error.strerror})"

    known = {os.path.realpath(top)}
    for folder, folders, names in os.walk(top, onerror=note, followlinks=True):
        places = {name: os.path.join(folder, name) for name in folders if not name.startswith(".")}
        new = []
        for name in sorted(places, key=lambda name: (os.path.islink(places[name]), name)):
            place = os.path.realpath(places[name])
            if place not in known:
                known.add(place)
                new.append(name)
        folders[:] = sorted(new)
        visible = (name for name in sorted(names) if not name.startswith("."))
        _take((Path(folder, name) for name in visible), found)


def _search_pattern(pattern: str, found: FoundAudio) -> None:
    """Take the files that match, and what is in folders that do, as a shell's arguments."""
    matches = [Path(match) for match in sorted(glob(pattern, recursive=True))]
    folders = dict.fromkeys(filter(Path.is_dir, matches))
    _take((match for match in matches if match not in folders), found)
    if "**" not in pattern:  # which reaches into folders by itself
        for folder in folders:
            _search(folder, found)


def _search_url(url: str, found: FoundAudio) -> None:
    try:
        store, root = fsspec.core.url_to_fs(url)
        if has_magic(root):
            names = store.glob(root)
        else:
            names = store.find(root) if store.isdir(root) else [root]
    except Exception as error:  # each kind of file system has errors of its own
        raise ValueError(f"{url}: cannot be searched ({type(error).__name__}: {error})") from error
    hidden = re.compile(r"/\.")
    visible = (name for name in sorted(names) if not hidden.search(name.removeprefix(root)))
    before, _, after = _chain(url)
    _take(("::".join([*before, store.unstrip_protocol(name), *after]) for name in visible), found)


def _chain(url: str) -> tuple[list[str], str, list[str]]:
    """Split a chained URL, such as zip://a.wav::music.zip, around its first link with a scheme."""
    parts = url.split("::")
    place = next(number for number, part in enumerate(parts) if "://" in part)
    return parts[:place], parts[place], parts[place + 1 :]


def _take(paths: Iterable[Path | str], found: FoundAudio) -> None:
    """Sort paths into audio and others by suffix."""
    for path in paths:
        own = _chain(path)[1] if isinstance(path, str) and is_url(path) else path
        suffix = os.path.splitext(own)[1].lower()
        if suffix in SUFFIXES:
            found.paths.append(path)
        else:
            found.ignored[suffix or "no suffix"] += 1


def path_text(path: Path | str) -> str:
    """Return a path as valid Unicode, with undecodable bytes escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _size(path: Path | str) -> int:
    """File size in bytes; 0 if it cannot be stat'ed."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def group_files(paths: Sequence[Path | str]) -> Iterator[list[Path | str]]:
    """Cut a list into groups of bounded number and size, in order; a short list more finely."""
    most_bytes = min(GROUP_BYTES, max(_LEAST_GROUP_BYTES, len(paths) * _GROUP_BYTES_PER_FILE))
    group: list[Path | str] = []
    size = 0
    for path in paths:
        group.append(path)
        size += _size(path)
        if len(group) >= GROUP_FILES or size >= most_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group
