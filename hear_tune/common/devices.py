"""Where a network runs, and with how many threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_IMPORTED_IN = os.getpid()  # a spawned process imports this anew, a forked one does not


def core_count() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_device(name: str) -> torch.device:
    """The device of that name, tried out.

    Raises
    ------
    ValueError
        If there is none, or it does not work.
    """
    try:
        device = torch.zeros(1, device=name)
        device.cpu()
        return device.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises any
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}") from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread: its results then depend on no setting, and none starts.

    The number of threads decides how sums are split, and so their last bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def heed_fork() -> None:
    """In a forked process, let torch compute with one thread from now on.

    OpenMP would wait without end for the threads of the parent, which were not forked.
    """
    if os.getpid() != _IMPORTED_IN and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
