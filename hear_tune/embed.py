"""Embeddings of an array, of a file, and of folders of music.

A tensor's embeddings come from `hear_tune.get_scene_embeddings` and
`hear_tune.get_timestamp_embeddings`; each function here adds one thing to them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from .audio import AudioError, Samples, naming, read_blocks, to_mono
from .clips import PER_CHOICES, ClipEmbeddings, Per, embed_clips
from .config import SAMPLE_RATE_HZ
from .files import find_audio, group_files, path_text
from .model import EmbeddingModel
from .stores import EmbeddingStore


def embed_array(
    audio: npt.ArrayLike, sample_rate: int, model: EmbeddingModel, per: Per = "track"
) -> ClipEmbeddings:
    """Embed an array of samples.

    Parameters
    ----------
    audio
        (samples,) or (samples, channels): floating point in -1..1, int16 or int32.
    sample_rate
        In Hz; the array is resampled to the model's rate.
    model
        From `hear_tune.load_model`.
    per
        "track", "window" or "timestamp".

    Returns
    -------
    ClipEmbeddings
        One row per track, window or timestamp.

    Raises
    ------
    AudioError
        If the array holds no usable audio.
    """
    _check_per(per)
    return _embed_clip(model, [to_mono(audio, sample_rate)], per)


def embed_file(
    path: str | os.PathLike[str], model: EmbeddingModel, per: Per = "track"
) -> ClipEmbeddings:
    """Embed an audio file of any rate, channel count and length.

    Parameters
    ----------
    path
        Any file that libsndfile reads.
    model, per
        As of `embed_array`.

    Returns
    -------
    ClipEmbeddings
        One row per track, window or timestamp.

    Raises
    ------
    AudioError
        If the file holds no usable audio.
    """
    _check_per(per)
    with naming(path):
        return _embed_clip(model, read_blocks(path), per)


def _embed_clip(model: EmbeddingModel, blocks: Iterable[Samples], per: Per) -> ClipEmbeddings:
    parts = [part for _, part in embed_clips(model, [(0, blocks)], per)]
    return ClipEmbeddings(
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.end for part in parts]),
    )


@dataclass
class FolderReport:
    """What became of the files of a folder.

    Attributes
    ----------
    embedded
        Number of files embedded now.
    skipped
        Number of files that the output held already.
    failed
        Reason by path of each file, or folder, that could not be read.
    silent
        Paths of the embedded files whose every sample is zero.
    ignored
        How many files were no audio by their names, by suffix.
    seconds
        Length of the audio embedded now.
    """

    embedded: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def embed_folder(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    model: EmbeddingModel,
    per: Per = "track",
    overwrite: bool = False,
) -> FolderReport:
    """Embed folders and files of music into one file, with a progress bar.

    Work is kept in groups of files beside the output; after an interruption, the same call goes on
    where it stopped and gives the same output. Parquet output that exists is extended by the files
    that it lacks, known by their paths. A bad file never ends the work.

    Parameters
    ----------
    inputs
        Folders, searched through all levels for names of audio files, and single files.
    output
        ``.parquet``, ``.npy`` (with a ``.csv`` of its rows) or ``.h5``.
    model
        From `hear_tune.load_model`.
    per
        "track", "window" or "timestamp": rows per file.
    overwrite
        Make the output anew; the old one is replaced when the new one is complete.

    Returns
    -------
    FolderReport
        Also of the files that could not be embedded.

    Raises
    ------
    FileNotFoundError
        If the inputs hold no audio file at all.
    StoreError
        If the output belongs to another model or other options, is in use, or cannot be extended.
    """
    _check_per(per)
    found = find_audio(inputs)
    report = FolderReport(failed=dict(found.unreadable), ignored=found.ignored)
    with (
        EmbeddingStore(output, _identity(model, per), overwrite) as store,
        tqdm(total=len(found.paths), unit="file", smoothing=0.1) as bar,
    ):
        progress = _Progress(report, bar)
        for group in group_files(found.paths):
            todo = [path for path in group if path_text(path) not in store.done]
            progress.skip(len(group) - len(todo))
            if todo:
                _embed_group(todo, model, per, store, progress)
        store.finish()
    return report


def _check_per(per: str) -> None:
    if per not in PER_CHOICES:
        raise ValueError(f"per must be one of {', '.join(PER_CHOICES)}, not {per!r}")


def _identity(model: EmbeddingModel, per: Per) -> dict[str, object]:
    return {
        "model": model.identity,
        "layers": model.timestamp_layers if per == "timestamp" else model.layers,
        "window_samples": model.window_samples,
        "hop_samples": model.hop_samples,
        "per": per,
        "sample_rate": SAMPLE_RATE_HZ,
    }


def _embed_group(
    group: list[Path],
    model: EmbeddingModel,
    per: Per,
    store: EmbeddingStore,
    progress: _Progress,
) -> None:
    clips = ((path, progress.read(path)) for path in group)
    failed = progress.report.failed
    with store.new_part() as part:
        for path, embeddings in embed_clips(model, clips, per):
            part.add(path_text(path), embeddings)
        part.drop(path_text(path) for path in group if os.fspath(path) in failed)


class _Progress:
    """Reads files and keeps the report and the bar up to date."""

    def __init__(self, report: FolderReport, bar: tqdm[NoReturn]) -> None:
        self.report = report
        self._bar = bar
        self._begin = time.monotonic()

    def skip(self, count: int) -> None:
        self.report.skipped += count
        self._bar.initial += count  # time left is of the files that are still to do
        self._bar.update(count)

    def read(self, path: Path) -> Iterator[Samples]:
        """Blocks of a file, up to where it goes wrong, and an entry in the report."""
        report, length, silent = self.report, 0, True
        try:
            for block in read_blocks(path):
                length += len(block)
                silent = silent and not block.any()
                yield block
        except AudioError as error:
            report.failed[os.fspath(path)] = str(error)
        else:
            report.embedded += 1
            report.seconds += length / SAMPLE_RATE_HZ
            if silent:
                report.silent.append(os.fspath(path))
            rate = report.seconds / max(time.monotonic() - self._begin, 1e-9)
            self._bar.set_postfix_str(f"{rate:.0f} s of audio/s", refresh=False)
        self._bar.update()
