"""Pages of HTML from the templates beside this module."""

from __future__ import annotations

from importlib.resources import files


def fill(template: str, **parts: str) -> str:
    """A template with its parts, whose names are between @@ and @@ in it; nothing is escaped."""
    pieces = read_part(template).split("@@")
    return "".join(parts[piece] if n % 2 else piece for n, piece in enumerate(pieces))


def read_part(name: str) -> str:
    """Text of a file beside this module."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
