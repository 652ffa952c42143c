"""Devices and threads for networks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .progress import say

_IMPORTED_IN = os.getpid()  # a spawned process imports this anew, a forked one does not


def core_count() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


AUTO = "auto"


def find_device(name: str) -> torch.device:
    """Return the device of a name after trying it.

    Parameters
    ----------
    name : str
        As torch names it, or "auto": a GPU if torch sees one, else the CPU, with a message.

    Raises
    ------
    ValueError
        If it does not exist or work.
    """
    device = _try_device(best_device() if name == AUTO else name)
    if name == AUTO:
        say(f"computing on {describe(device)}")
    return device


def best_device() -> str:
    """Return the name of a GPU if torch sees one, else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _try_device(name: str) -> torch.device:
    try:
        sample = torch.zeros(1, device=name)
        sample.cpu()
        return sample.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises any of them
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}") from error


def describe(device: torch.device) -> str:
    """Name a device for people."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return "the CPU: torch sees no GPU" if device.type == "cpu" else str(device)


def works_by_itself(device: torch.device) -> bool:
    """Whether a device computes while this process and others do something else."""
    return device.type != "cpu"


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread, so that results do not depend on settings.

    The number of threads decides how sums are split, and so their last bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Let float32 mean float32: CUDA GPUs may not round to TF32, as cuDNN does by default."""
    modules: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    backends = modules if device.type == "cuda" else ()
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def heed_fork() -> None:
    """In a forked process, let torch compute with one thread from now on.

    OpenMP would wait forever for the parent's threads, which were not forked.
    """
    if os.getpid() != _IMPORTED_IN and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
