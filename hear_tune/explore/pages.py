"""Fill the HTML templates beside this module, and check where pages go."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from . import ExploreError

_SUFFIXES = (".html", ".htm")


def fill(template: str, **parts: str) -> str:
    """Insert parts into a template, where their names stand between @@; nothing is escaped."""
    pieces = read_part(template).split("@@")
    return "".join(parts[piece] if n % 2 else piece for n, piece in enumerate(pieces))


def check_page(output: str | os.PathLike[str]) -> None:
    """Raise an `ExploreError` if a page cannot be written there, or a browser would not show it."""
    path = Path(output)
    if path.is_dir():
        raise ExploreError(f"{path}: is a folder; name a page in it, such as {path / 'page.html'}")
    if not path.parent.is_dir():
        raise ExploreError(f"{path}: there is no such folder")
    if path.suffix.lower() not in _SUFFIXES:
        raise ExploreError(f"{path}: a page is written; name it {path.with_suffix('.html')}")


def read_part(name: str) -> str:
    """Read a text file beside this module."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
