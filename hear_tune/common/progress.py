"""Progress bars and messages on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_LOG_INTERVAL_SECONDS = 1.0  # between updates in a log file, which keeps them all


def progress_bar(
    items: Iterable[Any] | None = None, kind: type[tqdm[Any]] = tqdm, **options: Any
) -> tqdm[Any]:
    """Return a tqdm bar on standard error, if there is one.

    A log file gets at most one update per second.

    Parameters
    ----------
    items : iterable, optional
        Items to iterate over; without them, update the bar by hand.
    kind : type
        Class of the bar.
    **options : Any
        Options of tqdm.
    """
    if not _can_print():
        options["disable"] = True
    elif not getattr(sys.stderr, "isatty", lambda: False)():
        options.setdefault("mininterval", _LOG_INTERVAL_SECONDS)
    return kind(items, **options)


def say(text: str) -> None:
    """Print a line on standard error, if there is one, without breaking a bar."""
    if _can_print():
        tqdm.write(text, file=sys.stderr)


def one_line(text: str) -> str:
    """Escape newlines and control characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _can_print() -> bool:
    """Whether there is a standard error; windowed programs may have none."""
    return sys.stderr is not None and not getattr(sys.stderr, "closed", False)
