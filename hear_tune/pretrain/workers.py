"""Processes that share the work of a command."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from ..devices import core_count
from ..workers import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int | None
) -> Iterator[tuple[Job, Result]]:
    """Do jobs in so many processes, by default one per core; yields each and its result.

    The processes end with this one, even if it is killed. When a job fails no other is begun.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or core_count(), context, end_with_parent) as pool:
        try:
            futures = {pool.submit(function, job): job for job in jobs}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
