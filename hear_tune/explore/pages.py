"""Fill the HTML templates beside this module."""

from __future__ import annotations

from importlib.resources import files


def fill(template: str, **parts: str) -> str:
    """Insert parts into a template, where their names stand between @@; nothing is escaped."""
    pieces = read_part(template).split("@@")
    return "".join(parts[piece] if n % 2 else piece for n, piece in enumerate(pieces))


def read_part(name: str) -> str:
    """Read a text file beside this module."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
