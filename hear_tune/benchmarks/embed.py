"""How fast embedding is here, against a plain program of the same run.

Plain is what anybody would write first: the network as it is written, in float32, on whole batches;
and for a folder, one file after the other, each read whole and resampled. Every contender has a
process of its own, as the way it keeps memory is a process's; they take turns.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import baselines
from ..audio.files import find_audio
from ..audio.reading import read_blocks
from ..common.allocator import keep_freed_memory
from ..common.devices import core_count
from ..embedding.folder import embed_folder
from ..embedding.model import EmbeddingModel
from ..hear import UntrainedWarning, get_scene_embeddings, load_model
from ..networks.config import SAMPLE_RATE_HZ, WINDOW_SAMPLES, Backend, Precision
from ..networks.variants import DEFAULT_VARIANT
from .machine import machine, peak_bytes

BATCHES = (1, 16, 64)  # windows
REFERENCE_BATCH = 16
TRACK_SECONDS = 29
TRACK_RATE_HZ = 44_100

Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Contender:
    """A model, and how it is computed.

    Attributes
    ----------
    name
        In the table.
    variant
        Of this package, with random weights; None for a baseline.
    baseline
        One of `hear_tune.baselines.BASELINES`.
    plain
        Whether it is computed as it is written.
    precision
        Of weights and maps.
    """

    name: str
    variant: str | None = None
    baseline: str | None = None
    plain: bool = False
    precision: Precision = "float32"

    def model(self) -> EmbeddingModel:
        if self.baseline is not None:
            return baselines.load_model(name=self.baseline)
        backend: Backend = "eager" if self.plain else "auto"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UntrainedWarning)
            return load_model(variant=self.variant, backend=backend, precision=self.precision)


@dataclass(frozen=True)
class NetworkRow:
    """One line of the table of networks.

    Attributes
    ----------
    name
        Of the contender.
    audio_per_second
        Seconds of audio per second, by the number of windows at a time.
    ratio
        Of its speed to the plain program's, at 16 windows.
    cosine
        Least cosine of its embeddings to the plain program's, if it is the same network.
    peak_bytes
        Most memory that its process had.
    """

    name: str
    audio_per_second: dict[int, float]
    ratio: float
    cosine: float | None
    peak_bytes: int


@dataclass(frozen=True)
class FolderRow:
    """One line of the table of folders: seconds of audio per second, and the ratio."""

    name: str
    audio_per_second: float
    ratio: float


def benchmark_embed(
    variant: str = DEFAULT_VARIANT,
    music: str | os.PathLike[str] | None = None,
    tracks: int = 128,
    repeats: int = 5,
) -> dict[str, Any]:
    """Time networks on noise, and whole folders from file to Parquet.

    Parameters
    ----------
    variant
        Which encoder of this package.
    music
        A folder to embed; by default MP3s of 29 s are made for it.
    tracks
        How many are made; 0 leaves folders out.
    repeats
        Measurements of each; the median counts.

    Returns
    -------
    dict
        Machine, settings, "networks" and "folders", JSON-ready.
    """
    result: dict[str, Any] = {
        "machine": machine(),
        "settings": {"variant": variant, "tracks": tracks, "repeats": repeats},
        "networks": [asdict(row) for row in _networks(_contenders(variant), repeats)],
        "folders": [],
    }
    if music is not None or tracks:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(music) if music is not None else _make_tracks(Path(folder), tracks)
            result["folders"] = [asdict(row) for row in _folders(variant, place, repeats)]
    return result


def table(result: dict[str, Any]) -> str:
    """Both tables as text."""
    batches = "".join(f"{f'batch {batch}':>11}" for batch in BATCHES)
    lines = [f"{'seconds of audio/s':<24}{batches}{'x plain':>9}{'cosine':>10}{'peak MB':>9}"]
    for row in result["networks"]:
        speeds = "".join(f"{speed:>11.0f}" for speed in row["audio_per_second"].values())
        cosine = "" if row["cosine"] is None else f"{row['cosine']:.6f}"
        megabytes = row["peak_bytes"] / 1e6
        lines.append(f"{row['name']:<24}{speeds}{row['ratio']:>9.2f}{cosine:>10}{megabytes:>9.0f}")
    if result["folders"]:
        lines += ["", f"{'a folder':<40}{'audio/s':>9}{'x plain':>9}"]
    for row in result["folders"]:
        lines.append(f"{row['name']:<40}{row['audio_per_second']:>9.0f}{row['ratio']:>9.2f}")
    return "\n".join(lines)


def _contenders(variant: str) -> list[Contender]:
    rows = [
        Contender(f"{variant}, plain", variant, plain=True),
        Contender(variant, variant),
        Contender(f"{variant}, bfloat16", variant, precision="bfloat16"),
        Contender("clmr, plain", "clmr", plain=True),
        Contender("clmr", "clmr"),
    ]
    if find_spec("librosa"):
        rows += [Contender(name, baseline=name) for name in ("musicnn", "mfcc", "log-mel")]
    return rows


# --- Networks ---

_embed: Embed  # of a contender's process
_window_samples: int


def _networks(contenders: list[Contender], repeats: int) -> list[NetworkRow]:
    plain = contenders[0]
    with ExitStack() as stack:
        pools = {
            contender: stack.enter_context(
                ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prepare, (contender,))
            )
            for contender in contenders
        }
        vectors = {c: pool.submit(_vectors).result() for c, pool in pools.items()}
        speeds: dict[Contender, dict[int, float]] = {c: {} for c in contenders}
        for batch in BATCHES:
            for contender, measured in _in_turns(pools, batch, repeats).items():
                speeds[contender][batch] = statistics.median(measured)
        return [
            NetworkRow(
                contender.name,
                speeds[contender],
                speeds[contender][REFERENCE_BATCH] / speeds[plain][REFERENCE_BATCH],
                _cosine(vectors[contender], vectors[plain])
                if contender.variant == plain.variant
                else None,
                pool.submit(peak_bytes).result(),
            )
            for contender, pool in pools.items()
        ]


def _in_turns(
    pools: dict[Contender, ProcessPoolExecutor], batch: int, repeats: int
) -> dict[Contender, list[float]]:
    speeds: dict[Contender, list[float]] = {contender: [] for contender in pools}
    for turn in range(repeats + 1):
        for contender, pool in pools.items():
            speed = pool.submit(_speed, batch).result()
            if turn:  # the first turn warms up
                speeds[contender].append(speed)
    return speeds


def _prepare(contender: Contender) -> None:
    global _embed, _window_samples
    model = contender.model()
    _window_samples = model.window_samples
    if contender.plain:
        _embed = _plain_network(model)
    else:
        keep_freed_memory()
        _embed = lambda audio: get_scene_embeddings(audio, model)  # noqa: E731


def _plain_network(model: EmbeddingModel) -> Embed:
    encoder = model.encoder.eval()

    @torch.no_grad()
    def embed(audio: Tensor) -> Tensor:
        embeddings: Tensor = encoder(audio[:, None])
        return embeddings

    return embed


def _speed(batch: int) -> float:
    """Seconds of audio per second."""
    audio = torch.zeros(batch, _window_samples).uniform_(-0.3, 0.3)
    begin = time.perf_counter()
    _embed(audio)
    return batch * _window_samples / SAMPLE_RATE_HZ / (time.perf_counter() - begin)


def _vectors() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return _embed(0.3 * torch.randn(4, _window_samples, generator=generator)).float()


def _cosine(vectors: Tensor, expected: Tensor) -> float:
    return float(F.cosine_similarity(vectors.double(), expected.double()).min())


# --- Folders ---


def _folders(variant: str, music: Path, repeats: int) -> list[FolderRow]:
    seconds = sum(
        sum(map(len, read_blocks(path))) / SAMPLE_RATE_HZ for path in find_audio(music).paths
    )
    programs: dict[str, Callable[[Path], None]] = {
        "plain: file by file, read whole": partial(_plain_folder, variant, music),
        "hear-tune embed": partial(_our_folder, variant, music, "float32"),
        "hear-tune embed --precision bfloat16": partial(_our_folder, variant, music, "bfloat16"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats):
            for number, (name, program) in enumerate(programs.items()):
                begin = time.perf_counter()
                _in_a_process(program, Path(folder, f"{turn}-{number}.parquet"))
                speeds[name].append(seconds / (time.perf_counter() - begin))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    plain = next(iter(medians.values()))
    return [FolderRow(name, speed, speed / plain) for name, speed in medians.items()]


def _in_a_process(function: Callable[..., None], *arguments: object) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(function, *arguments).result()


def _plain_folder(variant: str, music: Path, output: Path) -> None:
    embed = _plain_network(Contender("", variant, plain=True).model())
    rows = []
    for path in find_audio(music).paths:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = soxr.resample(audio.mean(axis=1), rate, SAMPLE_RATE_HZ)
        windows = mono[: len(mono) // WINDOW_SAMPLES * WINDOW_SAMPLES].reshape(-1, WINDOW_SAMPLES)
        rows.append(embed(torch.from_numpy(windows)).mean(dim=0))
    np.save(output.with_suffix(".npy"), torch.stack(rows).numpy())


def _our_folder(variant: str, music: Path, precision: Precision, output: Path) -> None:
    model = Contender("", variant, precision=precision).model()
    embed_folder(music, output, model, workers=core_count())


def _make_tracks(folder: Path, count: int) -> Path:
    """MP3s of chords in noise: stereo, 44.1 kHz."""
    rng = np.random.default_rng(0)
    times = np.arange(TRACK_SECONDS * TRACK_RATE_HZ) / TRACK_RATE_HZ
    for number in range(count):
        sound = 0.02 * rng.standard_normal((len(times), 2))
        for pitch in rng.uniform(80, 2_000, 6):
            sound += 0.1 * np.sin(2 * np.pi * pitch * times + rng.uniform(0, 6, 2)[:, None]).T
        soundfile.write(folder / f"{number:03d}.mp3", sound, TRACK_RATE_HZ)
    return folder
