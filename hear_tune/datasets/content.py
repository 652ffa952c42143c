"""Find files with the same content."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ..common.files import chunks
from ..common.progress import progress_bar


def file_digest(path: Path, algorithm: str = "sha256", progress: bool = False) -> str:
    """Return the hexadecimal digest of a file by an algorithm of hashlib."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with progress_bar(
        total=path.stat().st_size,
        desc=f"checking {path.name}",
        unit="B",
        unit_scale=True,
        delay=2,
        leave=False,
        disable=not progress,
    ) as bar:
        for chunk in chunks(path):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def content_groups(paths: Iterable[Path]) -> dict[Path, str]:
    """Map files to groups of equal content.

    Only files of equal size are read. A missing file is a group of its own.
    """
    group_of = {}
    by_size = defaultdict(list)
    for path in dict.fromkeys(paths):
        group_of[path] = str(path)
        if path.is_file():
            by_size[path.stat().st_size].append(path)
    alike = [path for same in by_size.values() if len(same) > 1 for path in same]
    first_of: dict[str, str] = {}
    for path in progress_bar(alike, desc="comparing files", unit="file", delay=2, leave=False):
        group_of[path] = first_of.setdefault(file_digest(path), group_of[path])
    return group_of
