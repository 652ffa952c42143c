"""Processes that share the work of a command."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor


def worker_pool(workers: int | None) -> ProcessPoolExecutor:
    """So many processes, by default one per core, that end with this one even if it is killed."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers or os.cpu_count(), context, _end_with_parent)


def _end_with_parent() -> None:
    """Else a worker would go on writing files that the same command, given again, writes too."""
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
