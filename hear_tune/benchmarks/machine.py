"""What benchmarks share: describe the machine, measure in turns, save results."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..common.devices import core_count
from ..common.files import write_whole

Key = TypeVar("Key")
Result = TypeVar("Result")

_SECONDS_BETWEEN_SAMPLES = 0.1


def machine() -> dict[str, Any]:
    """Describe processor, threads and versions."""
    return {
        "processor": _processor(),
        "cores": core_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def peak_bytes() -> int:
    """Peak memory of this process."""
    import resource  # POSIX only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class PeakMemory:
    """Peak memory of this process, since it began, and of its children while a context lasts.

    That of this process alone is exact. On Linux, the sum over it and its children is sampled
    ten times a second, with memory that they share counted once; elsewhere, children do not count.

    Attributes
    ----------
    bytes : int
        After the context, the higher of the two.
    """

    def __enter__(self) -> PeakMemory:
        self.bytes = 0
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()
        self.bytes = max(self.bytes, peak_bytes())

    def _sample(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_SAMPLES):
            family = list(_family(os.getpid()))
            if len(family) > 1:
                self.bytes = max(self.bytes, sum(map(_proportional_bytes, family)))


def _family(process: int) -> Iterator[int]:
    """Yield a process and its descendants, as far as Linux tells."""
    yield process
    with suppress(OSError):  # it has ended, or a thread of it
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                yield from _family(child)


def _proportional_bytes(process: int) -> int:
    """Memory of a process, with its share of what it shares with others; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


def in_turns(
    measurements: Mapping[Key, Callable[[], float]], repeats: int, warm_up: bool = True
) -> dict[Key, float]:
    """Take the median of each measurement, all of them in turn.

    Parameters
    ----------
    measurements : mapping to callable
        Each returns a number.
    repeats : int
        Turns that count.
    warm_up : bool
        Whether to take one more turn before, which does not count.

    Returns
    -------
    dict
        Medians.
    """
    values: dict[Key, list[float]] = {key: [] for key in measurements}
    for turn in range(repeats + warm_up):
        for key, measure in measurements.items():
            value = measure()
            if turn >= warm_up:
                values[key].append(value)
    return {key: statistics.median(numbers) for key, numbers in values.items()}


def in_a_process(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function in a new process, with memory settings of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def save(result: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a result as JSON."""
    write_whole(path, json.dumps(result, indent=1) + "\n")


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a result that was saved."""
    result: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return result


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
