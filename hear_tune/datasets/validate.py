"""Check that the files of a task exist, are complete, and have the expected length."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..audio.reading import AudioError, Remark, missing_audio, read_blocks
from ..common.devices import core_count
from ..common.progress import progress_bar
from ..networks.config import SAMPLE_RATE_HZ
from .task import SecondsRange, Task


@dataclass
class Validation:
    """Result of a validation.

    Attributes
    ----------
    good : int
        Number of usable files.
    missing : list of Path
        Files that do not exist.
    undecodable : dict of Path to str
        Reason by file.
    incomplete : dict of Path to str
        How much of each file is missing.
    wrong_length : dict of Path to float
        Length of each file in seconds.
    contradictory : list of list of Path
        Files with sample-identical audio and different labels. The files are usable, but no probe
        can classify all of them correctly.
    """

    good: int = 0
    missing: list[Path] = field(default_factory=list)
    undecodable: dict[Path, str] = field(default_factory=dict)
    incomplete: dict[Path, str] = field(default_factory=dict)
    wrong_length: dict[Path, float] = field(default_factory=dict)
    contradictory: list[list[Path]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every file is usable."""
        return not (self.missing or self.undecodable or self.incomplete or self.wrong_length)


def validate(task: Task, seconds: SecondsRange | None = None) -> Validation:
    """Decode every file of a task, on all cores.

    Parameters
    ----------
    task : Task
        The task.
    seconds : (float, float), optional
        Shortest and longest valid length; by default any.

    Returns
    -------
    Validation
        Number of usable files, and the others by fault.
    """
    found = Validation()
    digests: dict[Path, bytes] = {}
    there = []
    for path in dict.fromkeys(clip.path for clip in task.clips):
        if path.is_file():
            there.append(path)
        else:
            found.missing.append(path)
    with ThreadPoolExecutor(core_count()) as pool:  # decoders and soxr release the GIL
        lengths = progress_bar(
            pool.map(_decode, there), desc="decoding", total=len(there), unit="file", delay=2
        )
        for path, (length, digest, missing, error) in zip(there, lengths, strict=True):
            digests[path] = digest
            if error:
                found.undecodable[path] = error
            elif missing:
                found.incomplete[path] = missing
            elif seconds and not seconds[0] <= length <= seconds[1]:
                found.wrong_length[path] = length
            else:
                found.good += 1
    found.contradictory = _contradictory(task, digests)
    return found


def _decode(path: Path) -> tuple[float, bytes, str, str]:
    """Seconds and digest of a file's audio, what it lacks, and why it cannot be decoded."""
    remarks: list[Remark] = []
    digest, length = hashlib.sha256(), 0
    try:
        for block in read_blocks(path, remarks):
            digest.update(block.tobytes())
            length += len(block)
    except AudioError as error:
        return 0.0, b"", "", str(error)
    return length / SAMPLE_RATE_HZ, digest.digest(), missing_audio(remarks), ""


def _contradictory(task: Task, digests: Mapping[Path, bytes]) -> list[list[Path]]:
    alike = defaultdict(list)
    for clip in task.clips:
        if digest := digests.get(clip.path):
            alike[digest].append(clip)
    return [
        [clip.path for clip in clips]
        for clips in alike.values()
        if len({(clip.labels, clip.values) for clip in clips}) > 1
    ]
