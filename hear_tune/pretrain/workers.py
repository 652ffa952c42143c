"""Processes that share the work of a command."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from ..workers import end_with_parent


def worker_pool(workers: int | None) -> ProcessPoolExecutor:
    """So many processes, by default one per core, that end with this one even if it is killed."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers or os.cpu_count(), context, end_with_parent)
