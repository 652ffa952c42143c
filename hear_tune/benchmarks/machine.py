"""The machine that a benchmark ran on, and files of results."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from ..common.devices import core_count
from ..common.files import write_whole


def machine() -> dict[str, Any]:
    """What it runs on."""
    return {
        "processor": _processor(),
        "cores": core_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def peak_bytes() -> int:
    """Most memory that this process has had."""
    import resource  # POSIX alone has it

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def save(result: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a result as JSON."""
    write_whole(path, json.dumps(result, indent=1) + "\n")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
