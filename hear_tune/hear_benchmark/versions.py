"""Tell versions of a task apart: heareval names embeddings after the task's folder only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from ..common.files import sha256_of, write_whole
from ..common.progress import progress_bar
from .rates import audio_files
from .results import METADATA_FILE, VOCABULARY_FILE, read_json

VERSION_FILE = "task-version.json"  # in the folder of a task's embeddings


def task_version(task: Path, rate: int) -> str:
    """Identify what heareval reads of a task: metadata, labels and audio at a sample rate.

    Contents are compared, so that the same task may be copied or made again.

    Parameters
    ----------
    task : Path
        The task's folder.
    rate : int
        Sample rate in Hz, of which there is a folder of audio.

    Returns
    -------
    str
        SHA-256, in hexadecimal.

    Raises
    ------
    OSError
        If a file is missing.
    """
    digest = hashlib.sha256()
    files = list(_files(task, rate))
    for file in progress_bar(files, desc=f"reading {task.name}", unit="file", delay=2, leave=False):
        digest.update(f"{sha256_of(task / file)} {file.as_posix()}\n".encode())
    return digest.hexdigest()


def _files(task: Path, rate: int) -> Iterator[Path]:
    """Yield what heareval reads, relative to the task."""
    yield Path(METADATA_FILE)
    yield Path(VOCABULARY_FILE)
    for split in read_json(task / METADATA_FILE)["splits"]:
        yield Path(f"{split}.json")
    for file in audio_files(task):
        yield str(rate) / file


def write_version(embedded: Path, version: str) -> None:
    """Record the version of a task in the folder of its embeddings."""
    write_whole(embedded / VERSION_FILE, json.dumps({"sha256": version}) + "\n")


def read_version(embedded: Path) -> str | None:
    """Return the recorded version of a task; None in a folder without a record."""
    file = embedded / VERSION_FILE
    if not file.exists():
        return None
    version: str = read_json(file)["sha256"]
    return version
