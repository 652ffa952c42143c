"""Where a network runs."""

from __future__ import annotations

import os

import torch


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
