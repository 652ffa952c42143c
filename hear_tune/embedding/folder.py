"""Embedding an array, a file, and folders of music.

`hear_tune.get_scene_embeddings` and `hear_tune.get_timestamp_embeddings` embed a tensor; each
function here adds one step.
"""

from __future__ import annotations

import os
import pickle
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
from tqdm import tqdm

from ..audio.files import find_audio, group_files, path_text
from ..audio.reading import Remark, Remarks, naming, read_blocks, to_mono
from ..common.devices import one_thread, works_by_itself
from ..common.progress import progress_bar
from ..common.ranges import at_least, one_of
from ..common.samples import Samples
from ..networks.config import SAMPLE_RATE_HZ
from .batching import ClipEmbeddings, concatenate, embed_clips
from .framing import PER_CHOICES, Per
from .groups import Group, GroupEmbedder, decoding_crew, embed_group, embed_groups
from .model import EmbeddingModel
from .output import EmbeddingOutput
from .workers import Crew, FileReport, Outcome


def embed_array(
    audio: npt.ArrayLike, sample_rate: int, model: EmbeddingModel, per: Per = "track"
) -> ClipEmbeddings:
    """Embed an array of samples.

    Parameters
    ----------
    audio : array-like (samples,) or (samples, channels)
        Floating point in -1..1, int16 or int32; at least as many samples as channels.
    sample_rate : int
        In Hz; the array is resampled to the model's rate.
    model : EmbeddingModel
        From `hear_tune.load_model`.
    per : {"track", "window", "timestamp"}
        What each row covers.

    Returns
    -------
    ClipEmbeddings

    Raises
    ------
    AudioError
        If the array holds no usable audio.
    """
    one_of(PER_CHOICES, per=per)
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
    path : path-like
        Any file that FFmpeg or libsndfile reads; if it is cut off, the rest is embedded.
    model : EmbeddingModel
    per : {"track", "window", "timestamp"}
        As for `embed_array`.
    remarks : list of Remark, optional
        Receives remarks on the file, such as that it is cut off.

    Returns
    -------
    ClipEmbeddings

    Raises
    ------
    AudioError
        If the file holds no usable audio.
    """
    one_of(PER_CHOICES, per=per)
    with naming(path):
        return _embed_clip(model, read_blocks(path, remarks), per)


def _embed_clip(model: EmbeddingModel, blocks: Iterable[Samples], per: Per) -> ClipEmbeddings:
    return concatenate([part for _, part in embed_clips(model, [(0, blocks)], per)])


@dataclass
class FolderReport(FileReport):
    """Outcome of embedding folders of music.

    Attributes
    ----------
    failed, silent, remarks, incomplete
        As in `hear_tune.embedding.workers.FileReport`.
    embedded : int
        Number of files embedded now.
    skipped : int
        Number of files already in the output.
    ignored : Counter of str
        Number of files whose suffix is none of audio, by suffix.
    seconds : float
        Length of the audio embedded now.
    """

    embedded: int = 0
    skipped: int = 0
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

    Finished groups of files are kept beside the output. After an interruption, the same call
    continues where it stopped and gives the same output. An existing Parquet output is extended by
    the files whose paths it lacks. A bad file never ends the job.

    Parameters
    ----------
    inputs : path-like or sequence of path-like
        Audio files, and folders to search at all levels by file name.
    output : path-like
        ``.parquet``, ``.npy`` (with a ``.csv`` of its rows) or ``.h5``.
    model : EmbeddingModel
        From `hear_tune.load_model`.
    per : {"track", "window", "timestamp"}
        What each row covers.
    overwrite : bool
        Replace an existing output; the old one stays until the new one is complete.
    workers : int
        Processes that decode and embed on a CPU, or decode for a GPU; one per core is fastest. With
        several, a script must run under ``if __name__ == "__main__":``, as multiprocessing
        requires, and a file that crashes its decoder only loses itself.

    Returns
    -------
    FolderReport

    Raises
    ------
    FileNotFoundError
        If the inputs hold no audio file.
    StoreError
        If the output belongs to another model or other options, or cannot be extended.
    InUseError
        If another process writes the output.
    ValueError
        If an option is wrong, or the model's precision is not for its device.
    WorkerError
        If one of several workers died, and not because of a file.
    """
    one_of(PER_CHOICES, per=per)
    at_least(1, workers=workers)
    model.inference.check(model.device)
    found = find_audio(inputs)
    report = FolderReport(failed=dict(found.unreadable), ignored=found.ignored)
    with (
        EmbeddingOutput(output, identity_of(model, per), overwrite) as writer,
        progress_bar(total=len(found.paths), unit="file", smoothing=0.1) as bar,
    ):
        progress = Progress(report, bar)
        groups = _groups(found.paths, writer, per, progress)
        if works_by_itself(model.device):
            crew = decoding_crew(model, per, workers) if workers > 1 else None
            with crew or nullcontext():
                embed_groups(groups, model, per, progress.note, crew)
        elif workers > 1:
            with Crew(pickle.dumps(GroupEmbedder(model)), workers) as crew:
                crew.run(groups, progress.note)
        else:
            with one_thread():
                for group in groups:
                    embed_group(group, model, progress.note)
        writer.finish()
    return report


def _groups(
    paths: list[Path | str], writer: EmbeddingOutput, per: Per, progress: Progress
) -> Iterator[Group]:
    """Yield the groups still to embed, each with its place in the output."""
    for number, todo in groups_to_do(paths, writer.done, progress):
        yield Group(todo, writer.new_part(number), per)


def groups_to_do(
    paths: list[Path | str], done: Mapping[str, Remarks], progress: Progress
) -> Iterator[tuple[int, tuple[Path | str, ...]]]:
    """Yield the number of each unfinished group of files, and its files still to do."""
    for number, group in enumerate(group_files(paths)):
        todo = tuple(path for path in group if path_text(path) not in done)
        progress.skip({path: done[path_text(path)] for path in group if path not in todo})
        if todo:
            yield number, todo


def identity_of(model: EmbeddingModel, per: Per) -> dict[str, object]:
    """Return what the rows of an output depend on, ready for JSON."""
    return {
        "model": model.identity,
        "layers": model.timestamp_layers if per == "timestamp" else model.layers,
        "window_samples": model.window_samples,
        "hop_samples": model.hop_samples,
        "per": per,
        "sample_rate": SAMPLE_RATE_HZ,
    }


class Progress:
    """Updates the report and the progress bar."""

    def __init__(self, report: FolderReport, bar: tqdm[Any]) -> None:
        self.report = report
        self._bar = bar
        self._begin = time.monotonic()

    def skip(self, files: Mapping[Path | str, Remarks]) -> None:
        """Count files that the output has already, and repeat the remarks on them."""
        for path, remarks in files.items():
            self.report.keep(path, remarks)
        self.report.skipped += len(files)
        self._bar.initial = self.report.skipped  # the time left is for the files still to do
        self._bar.update(len(files))

    def note(self, outcome: Outcome) -> None:
        """Count a file that was worked on."""
        report = self.report
        report.note(outcome)
        if outcome.error is None:
            report.embedded += 1
            report.seconds += outcome.seconds
            rate = report.seconds / max(time.monotonic() - self._begin, 1e-9)
            self._bar.set_postfix_str(f"{rate:.0f} s of audio/s", refresh=False)
        self._bar.update()
