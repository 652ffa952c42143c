"""Resample the audio of a task: heareval reads a folder per sample rate, but makes none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from ..audio.decoding import decode
from ..audio.reading import AudioError, Remark, average, missing_audio, naming, resampled
from ..common.files import replacing
from ..common.progress import progress_bar
from .results import METADATA_FILE, read_json

_SUBTYPE = "PCM_16"  # as in the public tasks


def resample_task(task: Path, rate: int) -> None:
    """Make the folder of a task's audio at a sample rate, from the folder of the highest rate.

    The folder appears when complete. Until then, files are in a hidden folder, from which an
    interrupted job resumes.

    Parameters
    ----------
    task : Path
        The task's folder.
    rate : int
        Sample rate in Hz. An existing folder is kept.

    Raises
    ------
    OSError
        If the task has no audio, or a file is missing.
    ValueError
        If a file cannot be decoded.
    """
    target = task / str(rate)
    if target.is_dir():
        return
    rates = [int(folder.name) for folder in task.iterdir() if folder.name.isdecimal()]
    if not rates:
        raise FileNotFoundError(f"{task}: no folder of audio named by its sample rate, as 48000")
    source, partial = task / str(max(rates)), task / f".{rate}.partial"
    files = list(audio_files(task))
    for name in progress_bar(files, desc=f"{task.name} at {rate} Hz", unit="file"):
        if not (partial / name).exists():
            write_audio(partial / name, read_audio(source / name, rate), rate)
    partial.rename(target)


def read_audio(path: Path, rate: int) -> npt.NDArray[np.float32]:
    """Read a file as mono.

    Parameters
    ----------
    path : Path
        The file.
    rate : int
        Sample rate in Hz to which it is resampled.

    Returns
    -------
    array of float32
        (samples,).

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    AudioError
        If it is damaged, incomplete or empty.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    remarks: list[Remark] = []
    with naming(path):
        pieces = ((average(block), own_rate) for block, own_rate in decode(path, remarks))
        samples = np.concatenate(list(resampled(pieces, rate)))
        if missing := missing_audio(remarks):
            raise AudioError(missing)
    return samples


def write_audio(path: Path, samples: npt.NDArray[np.float32], rate: int) -> None:
    """Write samples, (samples,) float32, to a 16-bit WAV file atomically; `rate` is in Hz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        soundfile.write(partial, samples, rate, _SUBTYPE, format="WAV")


def audio_files(task: Path) -> Iterator[Path]:
    """Yield the files of all splits of a task, relative to the folder of a rate."""
    for split in read_json(task / METADATA_FILE)["splits"]:
        for file in read_json(task / f"{split}.json"):
            yield Path(split, file)
