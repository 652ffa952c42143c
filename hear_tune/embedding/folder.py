"""Embeddings of an array, of a file, and of folders of music.

A tensor's embeddings come from `hear_tune.get_scene_embeddings` and
`hear_tune.get_timestamp_embeddings`; each function here adds one thing to them.
"""

from __future__ import annotations

import os
import pickle
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
from tqdm import tqdm

from ..audio.files import find_audio, group_files, path_text
from ..audio.reading import SILENT, Remark, Remarks, missing_audio, naming, read_blocks, to_mono
from ..common.devices import one_thread
from ..common.progress import progress_bar
from ..common.samples import Samples
from ..networks.config import SAMPLE_RATE_HZ
from .batching import ClipEmbeddings, concatenate, embed_clips
from .framing import PER_CHOICES, Per
from .groups import Group, GroupEmbedder, embed_group
from .model import EmbeddingModel
from .output import EmbeddingOutput
from .workers import Crew, Outcome


def embed_array(
    audio: npt.ArrayLike, sample_rate: int, model: EmbeddingModel, per: Per = "track"
) -> ClipEmbeddings:
    """Embed an array of samples.

    Parameters
    ----------
    audio
        (samples,) or (samples, channels), no fewer samples than channels: floating point in -1..1,
        int16 or int32.
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
    check_per(per)
    return _embed_clip(model, [to_mono(audio, sample_rate)], per)


def embed_file(
    path: str | os.PathLike[str],
    model: EmbeddingModel,
    per: Per = "track",
    remarks: list[Remark] | None = None,
) -> ClipEmbeddings:
    """Embed an audio file of any rate, channel count and length.

    Parameters
    ----------
    path
        Any file that FFmpeg or libsndfile reads; of one that is cut off, what is there.
    model, per
        As of `embed_array`.
    remarks
        To which is added what there is to say of the file, as that it was cut off.

    Returns
    -------
    ClipEmbeddings
        One row per track, window or timestamp.

    Raises
    ------
    AudioError
        If the file holds no usable audio.
    """
    check_per(per)
    with naming(path):
        return _embed_clip(model, read_blocks(path, remarks), per)


def _embed_clip(model: EmbeddingModel, blocks: Iterable[Samples], per: Per) -> ClipEmbeddings:
    return concatenate([part for _, part in embed_clips(model, [(0, blocks)], per)])


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
        Paths of files whose every sample is zero.
    remarks
        By path, what there is to say of files in the output, as "channels cancel: ...".
    incomplete
        Paths of files in the output of which audio is missing; remarks say how much.
    ignored
        How many files were no audio by their names, by suffix.
    seconds
        Length of the audio embedded now.
    """

    embedded: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    incomplete: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def embed_folder(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    model: EmbeddingModel,
    per: Per = "track",
    overwrite: bool = False,
    workers: int = 1,
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
    workers
        Processes that decode and embed; one per core is quickest on CPUs. With more than one, a
        script must keep its own work under ``if __name__ == "__main__":``, as multiprocessing asks,
        and a file that crashes its decoder costs no more than itself.

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
    WorkerError
        If one of several workers died, but not because of a file.
    """
    check_per(per)
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    found = find_audio(inputs)
    report = FolderReport(failed=dict(found.unreadable), ignored=found.ignored)
    with (
        EmbeddingOutput(output, identity_of(model, per), overwrite) as store,
        progress_bar(total=len(found.paths), unit="file", smoothing=0.1) as bar,
    ):
        progress = Progress(report, bar)
        groups = _groups(found.paths, store, per, progress)
        if workers > 1:
            device = str(model.device)
            with Crew(pickle.dumps(GroupEmbedder(model, device)), workers, device=device) as crew:
                crew.run(groups, progress.note)
        else:
            with one_thread():
                for group in groups:
                    embed_group(group, model, progress.note)
        store.finish()
    return report


def _groups(
    paths: list[Path | str], store: EmbeddingOutput, per: Per, progress: Progress
) -> Iterator[Group]:
    """What is still to do, each group in its place of the output."""
    for number, todo in groups_to_do(paths, store.done, progress):
        yield Group(todo, store.new_part(number), per)


def groups_to_do(
    paths: list[Path | str], done: Mapping[str, Remarks], progress: Progress
) -> Iterator[tuple[int, tuple[Path | str, ...]]]:
    """Number of each group of files that is not wholly done, and what is left of it."""
    for number, group in enumerate(group_files(paths)):
        todo = tuple(path for path in group if path_text(path) not in done)
        progress.skip({path: done[path_text(path)] for path in group if path not in todo})
        if todo:
            yield number, todo


def check_per(per: str) -> None:
    """Raise a ValueError if there are no such rows."""
    if per not in PER_CHOICES:
        raise ValueError(f"per must be one of {', '.join(PER_CHOICES)}, not {per!r}")


def identity_of(model: EmbeddingModel, per: Per) -> dict[str, object]:
    """What the rows of an output depend on."""
    return {
        "model": model.identity,
        "layers": model.timestamp_layers if per == "timestamp" else model.layers,
        "window_samples": model.window_samples,
        "hop_samples": model.hop_samples,
        "per": per,
        "sample_rate": SAMPLE_RATE_HZ,
    }


class Progress:
    """Keeps the report and the bar up to date."""

    def __init__(self, report: FolderReport, bar: tqdm[Any]) -> None:
        self.report = report
        self._bar = bar
        self._begin = time.monotonic()

    def skip(self, files: Mapping[Path | str, Remarks]) -> None:
        """Count files that the output has, and repeat what there was to say of them."""
        for path, remarks in files.items():
            self._keep(os.fspath(path), remarks)
        self.report.skipped += len(files)
        self._bar.initial = self.report.skipped  # time left is of the files that are still to do
        self._bar.update(len(files))

    def _keep(self, name: str, remarks: Remarks) -> None:
        report = self.report
        if remarks:
            report.remarks[name] = [remark.text for remark in remarks]
        if SILENT in remarks:
            report.silent.append(name)
        if missing_audio(remarks):
            report.incomplete.append(name)

    def note(self, outcome: Outcome) -> None:
        report, name = self.report, os.fspath(outcome.path)
        if outcome.error is not None:
            report.failed[name] = outcome.error
        else:
            report.embedded += 1
            report.seconds += outcome.seconds
            self._keep(name, outcome.remarks)
            rate = report.seconds / max(time.monotonic() - self._begin, 1e-9)
            self._bar.set_postfix_str(f"{rate:.0f} s of audio/s", refresh=False)
        self._bar.update()
