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
    if sys.stderr is None:
        options["disable"] = True
    elif not sys.stderr.isatty():
        options.setdefault("mininterval", _LOG_INTERVAL_SECONDS)
    return kind(items, **options)


def say(text: str) -> None:
    """Print a line on standard error, if there is one, without breaking a bar."""
    if sys.stderr is not None:
        tqdm.write(text, file=sys.stderr)
