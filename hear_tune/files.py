"""Finding audio files, and cutting the work on them into groups that are written at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .audio import SUFFIXES

GROUP_FILES = 64
GROUP_BYTES = 64 << 20


def find_audio(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Audio files among the inputs, without duplicates; in folders by name, hidden ones left out.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    found = [path for given in inputs for path in _walk(Path(given))]
    if not found:
        looked = ", ".join(os.fspath(given) for given in inputs) or "no inputs"
        raise FileNotFoundError(
            f"no audio files in {looked} (looked for {', '.join(sorted(SUFFIXES))})"
        )
    return list(dict.fromkeys(found))


def _walk(given: Path) -> Iterator[Path]:
    if not given.is_dir():
        yield given
        return
    for folder, folders, names in os.walk(given):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(folder, name)


def path_text(path: Path) -> str:
    """A path as text that any file format can hold, whatever bytes are in it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def group_files(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Cut a list into groups that depend on nothing but the list from here on.

    What is left after whole groups is cut as it would have been: an interrupted job goes on with
    the same groups.
    """
    group: list[Path] = []
    size = 0
    for path in paths:
        group.append(path)
        size += path.stat().st_size if path.is_file() else 0
        if len(group) >= GROUP_FILES or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
