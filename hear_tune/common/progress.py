"""Progress bars of long work."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_LOG_INTERVAL_SECONDS = 1.0  # in a file, each update stays


def progress_bar(
    items: Iterable[Any] | None = None, kind: type[tqdm[Any]] = tqdm, **options: Any
) -> tqdm[Any]:
    """Return a tqdm bar on standard error.

    Windowed programs have no standard error and get no bar. A log file gets at most one update per
    second.

    Parameters
    ----------
    items
        To iterate over; without them, the bar is updated by hand.
    kind
        Class of the bar.
    options
        Of tqdm.
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
    """Escape what a terminal would act on: no newline or control character passes as it is."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _can_print() -> bool:
    """Whether there is a standard error; windowed programs have none, or one of their own."""
    return sys.stderr is not None and not getattr(sys.stderr, "closed", False)
