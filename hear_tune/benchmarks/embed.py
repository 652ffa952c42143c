"""Benchmark embedding against a plain program of the same run.

The plain program is what anybody would write first: the unmodified network in float32 on whole
batches; for a folder, one file after the other, each read whole and resampled. Contenders take
turns, each in a process of its own, because memory settings are per process.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
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
from ..common import text
from ..common.allocator import keep_freed_memory
from ..common.devices import core_count
from ..embedding.folder import embed_folder
from ..embedding.model import EmbeddingModel
from ..hear import UntrainedWarning, get_scene_embeddings, load_model
from ..networks.config import SAMPLE_RATE_HZ, WINDOW_SAMPLES, Backend, Precision
from ..networks.variants import DEFAULT_VARIANT
from .machine import in_a_process, in_turns, machine, peak_bytes

BATCHES = (1, 16, 64)  # windows
REFERENCE_BATCH = 16
TRACK_SECONDS = 29
TRACK_RATE_HZ = 44_100

Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Contender:
    """A model and how to compute it.

    Attributes
    ----------
    name : str
        Name in the table.
    variant : str, optional
        Variant with random weights; None for a baseline.
    baseline : str, optional
        One of `hear_tune.baselines.BASELINES`.
    plain : bool
        Whether to compute the network as written.
    precision : {"float32", "bfloat16"}
        Precision of weights and maps.
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


def benchmark_embed(
    variant: str = DEFAULT_VARIANT,
    music: str | os.PathLike[str] | None = None,
    tracks: int = 128,
    repeats: int = 5,
    contenders: Sequence[Contender] | None = None,
    batches: Sequence[int] = BATCHES,
) -> dict[str, Any]:
    """Time networks on noise, and folders of music from file to Parquet.

    Parameters
    ----------
    variant : str
        Encoder to benchmark.
    music : path-like, optional
        Folder to embed; by default, MP3s of 29 s are synthesised.
    tracks : int
        Number of synthesised tracks; 0 skips folders.
    repeats : int
        Measurements of each; the median counts.
    contenders : sequence of Contender, optional
        Networks to compare, the plain one first; by default, those of this package and all
        installed peers.
    batches : sequence of int
        Batch sizes in windows, the reference size 16 among them.

    Returns
    -------
    dict
        JSON-ready: "machine", "settings", "networks" and "folders". Rows have a name, seconds of
        audio per second (of networks by batch size) and the ratio to the plain program's speed;
        those of networks also the lowest cosine similarity to the plain program's embeddings
        (None for another network) and their process's peak memory in bytes.
    """
    contenders = _contenders(variant) if contenders is None else contenders
    result: dict[str, Any] = {
        "machine": machine(),
        "settings": {"variant": variant, "tracks": tracks, "repeats": repeats},
        "networks": _networks(contenders, batches, repeats),
        "folders": [],
    }
    if music is not None or tracks:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(music) if music is not None else _make_tracks(Path(folder), tracks)
            result["folders"] = _folders(variant, place, repeats)
    return result


def table(result: dict[str, Any]) -> str:
    """Format both tables as text."""
    networks = result["networks"]
    batches = [f"batch {batch}" for batch in networks[0]["audio_per_second"]]
    rows = [["seconds of audio/s", *batches, "x plain", "cosine", "peak MB"]]
    rows += [
        [
            row["name"],
            *(f"{speed:.0f}" for speed in row["audio_per_second"].values()),
            f"{row['ratio']:.2f}",
            "" if row["cosine"] is None else f"{row['cosine']:.6f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
        ]
        for row in networks
    ]
    if not result["folders"]:
        return text.table(rows)
    folders = [["a folder", "audio/s", "x plain"]]
    folders += [
        [row["name"], f"{row['audio_per_second']:.0f}", f"{row['ratio']:.2f}"]
        for row in result["folders"]
    ]
    return f"{text.table(rows)}\n\n{text.table(folders)}"


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

_embed: Embed  # in a contender's process
_window_samples: int


def _networks(
    contenders: Sequence[Contender], batches: Sequence[int], repeats: int
) -> list[dict[str, Any]]:
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
        for batch in batches:
            stages = {c: partial(_speed_in, pool, batch) for c, pool in pools.items()}
            for contender, speed in in_turns(stages, repeats).items():
                speeds[contender][batch] = speed
        return [
            {
                "name": contender.name,
                "audio_per_second": speeds[contender],
                "ratio": speeds[contender][REFERENCE_BATCH] / speeds[plain][REFERENCE_BATCH],
                "cosine": _cosine(vectors[contender], vectors[plain])
                if contender.variant == plain.variant
                else None,
                "peak_bytes": pool.submit(peak_bytes).result(),
            }
            for contender, pool in pools.items()
        ]


def _speed_in(pool: ProcessPoolExecutor, batch: int) -> float:
    return pool.submit(_speed, batch).result()


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
    """Measure seconds of audio per second."""
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


def _folders(variant: str, music: Path, repeats: int) -> list[dict[str, Any]]:
    seconds = sum(
        sum(map(len, read_blocks(path))) / SAMPLE_RATE_HZ for path in find_audio(music).paths
    )
    programs: dict[str, Callable[[Path], None]] = {
        "plain: file by file, read whole": partial(_plain_folder, variant, music),
        "hear-tune embed": partial(_our_folder, variant, music, "float32"),
        "hear-tune embed --precision bfloat16": partial(_our_folder, variant, music, "bfloat16"),
    }
    with tempfile.TemporaryDirectory() as folder:

        def speed(program: Callable[[Path], None]) -> float:
            output = Path(folder, f"{secrets.token_hex(8)}.parquet")
            begin = time.perf_counter()
            in_a_process(program, output)
            return seconds / (time.perf_counter() - begin)

        stages = {name: partial(speed, program) for name, program in programs.items()}
        speeds = in_turns(stages, repeats, warm_up=False)
    plain = next(iter(speeds.values()))
    return [
        {"name": name, "audio_per_second": speed, "ratio": speed / plain}
        for name, speed in speeds.items()
    ]


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
    """Synthesise MP3s of chords in noise: stereo, 44.1 kHz."""
    rng = np.random.default_rng(0)
    times = np.arange(TRACK_SECONDS * TRACK_RATE_HZ) / TRACK_RATE_HZ
    for number in range(count):
        sound = 0.02 * rng.standard_normal((len(times), 2))
        for pitch in rng.uniform(80, 2_000, 6):
            sound += 0.1 * np.sin(2 * np.pi * pitch * times + rng.uniform(0, 6, 2)[:, None]).T
        soundfile.write(folder / f"{number:03d}.mp3", sound, TRACK_RATE_HZ)
    return folder
