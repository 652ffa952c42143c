"""Benchmark embedding against a plain program of the same run.

The plain program is what anybody would write first: the unmodified network in float32 on whole
batches; for a folder, one file after the other, each read whole and resampled. Contenders take
turns, each in a process of its own, because memory settings are per process.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import shutil
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
from ..audio.files import find_audio, group_files
from ..audio.reading import read_blocks
from ..common import text
from ..common.allocator import keep_freed_memory
from ..common.devices import best_device, core_count
from ..embedding.folder import embed_folder, identity_of
from ..embedding.groups import Group, decoding_crew, embed_groups
from ..embedding.model import EmbeddingModel
from ..embedding.output import EmbeddingOutput
from ..embedding.pooling import Pooling
from ..hear import UntrainedWarning, get_scene_embeddings, load_model
from ..networks.config import SAMPLE_RATE_HZ, WINDOW_SAMPLES, Backend, Precision
from ..networks.variants import DEFAULT_VARIANT
from .machine import in_a_process, in_turns, machine, peak_bytes
from .peers import PEERS

BATCHES = (1, 16)  # windows
MORE_BATCHES = (1, 16, 64)
GPU_BATCHES = (16, 64, 256)
REFERENCE_BATCH = 16
TRACK_SECONDS = 29
TRACK_RATE_HZ = 44_100
DIFFERENT_TRACKS = 8  # to encode many takes longer than to embed them

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
    peer : str, optional
        One of `PEERS`.
    plain : bool
        Whether to compute the network as written.
    precision : {"float32", "bfloat16", "float16"}
        Precision of weights and maps.
    device : str
        Where it computes; audio comes from the CPU, and embeddings return there.
    """

    name: str
    variant: str | None = None
    baseline: str | None = None
    peer: str | None = None
    plain: bool = False
    precision: Precision = "float32"
    device: str = "cpu"

    def model(self) -> EmbeddingModel:
        if self.baseline is not None:
            return baselines.load_model(name=self.baseline).to(self.device)
        backend: Backend = "eager" if self.plain else "auto"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UntrainedWarning)
            model = load_model(variant=self.variant, backend=backend, precision=self.precision)
        return model.to(self.device)


def benchmark_embed(
    variant: str = DEFAULT_VARIANT,
    music: str | os.PathLike[str] | None = None,
    tracks: int = 24,
    repeats: int = 3,
    contenders: Sequence[Contender] | None = None,
    batches: Sequence[int] = BATCHES,
    folder_repeats: int = 1,
    peers: bool = False,
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
        Measurements of each network; the median counts.
    contenders : sequence of Contender, optional
        Networks to compare, the plain one first; by default, those of this package.
    batches : sequence of int
        Batch sizes in windows, the reference size 16 among them.
    folder_repeats : int
        Likewise of each folder.
    peers : bool
        Whether to add `PEERS` that are installed, which are slow.

    Returns
    -------
    dict
        JSON-ready: "machine", "settings", "networks", "gpu_networks" and "folders". Rows have a
        name, seconds of audio per second (of networks by batch size) and the ratio to the speed of
        the first row, the plain program; those of networks also the lowest cosine similarity to
        the first row's embeddings (None for another network) and their peak memory in bytes, of
        the process or on the GPU. Without a GPU, "gpu_networks" is empty.
    """
    contenders = _contenders(variant) if contenders is None else list(contenders)
    if peers:
        contenders += [
            Contender(name, peer=name) for name, peer in PEERS.items() if find_spec(peer.package)
        ]
    device = best_device()
    on_gpu = [] if device == "cpu" else _gpu_contenders(variant, device)
    result: dict[str, Any] = {
        "machine": machine(),
        "settings": {"variant": variant, "tracks": tracks, "repeats": repeats},
        "networks": _networks(contenders, batches, repeats),
        "gpu_networks": _networks(on_gpu, GPU_BATCHES, repeats) if on_gpu else [],
        "folders": [],
    }
    if music is not None or tracks:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(music) if music is not None else _make_tracks(Path(folder), tracks)
            result["folders"] = _folders(variant, place, folder_repeats, device)
    return result


def table(result: dict[str, Any]) -> str:
    """Format all tables as text."""
    tables = (
        networks_table(result["networks"]),
        networks_table(result["gpu_networks"]),
        folders_table(result["folders"]),
    )
    return "\n\n".join(text.table(rows) for rows in tables if rows)


def networks_table(networks: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the cells of a table of networks, without rows if there are none."""
    if not networks:
        return []
    batches = [f"batch {batch}" for batch in networks[0]["audio_per_second"]]
    return [
        ["seconds of audio/s", *batches, "windows/s", "ratio", "cosine", "peak MB"],
        *(
            [
                row["name"],
                *(f"{speed:,.0f}" for speed in row["audio_per_second"].values()),
                f"{max(row['audio_per_second'].values()) * SAMPLE_RATE_HZ / WINDOW_SAMPLES:,.0f}",
                f"{row['ratio']:.2f}",
                "" if row["cosine"] is None else f"{row['cosine']:.6f}",
                f"{row['peak_bytes'] / 1e6:,.0f}",
            ]
            for row in networks
        ),
    ]


def folders_table(folders: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the cells of a table of folders, without rows if there are none."""
    if not folders:
        return []
    return [
        ["a folder of MP3s", "audio/s", "ratio"],
        *([r["name"], f"{r['audio_per_second']:,.0f}", f"{r['ratio']:.2f}"] for r in folders),
    ]


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


def _gpu_contenders(variant: str, device: str) -> list[Contender]:
    rows = [
        Contender(variant, variant, device=device),
        Contender(f"{variant}, bfloat16", variant, precision="bfloat16", device=device),
        Contender(f"{variant}, float16", variant, precision="float16", device=device),
        Contender("clmr", "clmr", device=device),
    ]
    if find_spec("librosa"):
        rows.append(Contender("musicnn", baseline="musicnn", device=device))
    return rows


# --- Networks ---

_embed: Embed  # in a contender's process
_window_samples: int
_sample_rate: int


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
        started = {c: pool.submit(_vectors) for c, pool in pools.items()}  # all at once
        vectors = {c: future.result() for c, future in started.items()}
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
                "peak_bytes": pool.submit(_peak_bytes, contender.device).result(),
            }
            for contender, pool in pools.items()
        ]


def _speed_in(pool: ProcessPoolExecutor, batch: int) -> float:
    return pool.submit(_speed, batch).result()


def _prepare(contender: Contender) -> None:
    global _embed, _window_samples, _sample_rate
    if contender.peer is not None:
        peer = PEERS[contender.peer]
        _embed, _sample_rate = peer.build(), peer.sample_rate
        _window_samples = WINDOW_SAMPLES * _sample_rate // SAMPLE_RATE_HZ
        return
    model = contender.model()
    _window_samples, _sample_rate = model.window_samples, model.sample_rate
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
    return batch * _window_samples / _sample_rate / (time.perf_counter() - begin)


def _peak_bytes(device: str) -> int:
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()


def _vectors() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return _embed(0.3 * torch.randn(4, _window_samples, generator=generator)).float().cpu()


def _cosine(vectors: Tensor, expected: Tensor) -> float:
    return float(F.cosine_similarity(vectors.double(), expected.double()).min())


# --- Folders ---


Program = Callable[[Path], None]  # writes an output


def _folders(variant: str, music: Path, repeats: int, device: str) -> list[dict[str, Any]]:
    seconds = sum(
        sum(map(len, read_blocks(path))) / SAMPLE_RATE_HZ for path in find_audio(music).paths
    )
    programs: dict[str, Program] = {
        "plain: file by file, read whole": partial(_plain_folder, variant, music),
        "decoding alone": partial(_decode_folder, variant, music),
        **{
            f"hear-tune embed{options}": partial(_our_folder, contender, music)
            for options, contender in _programs(variant, device).items()
        },
    }
    with tempfile.TemporaryDirectory() as folder:

        def speed(program: Program) -> float:
            output = Path(folder, f"{secrets.token_hex(8)}.parquet")
            return seconds / in_a_process(_seconds_of, program, output)

        stages = {name: partial(speed, program) for name, program in programs.items()}
        speeds = in_turns(stages, repeats, warm_up=False)
    plain = next(iter(speeds.values()))
    return [
        {"name": name, "audio_per_second": speed, "ratio": speed / plain}
        for name, speed in speeds.items()
    ]


def _programs(variant: str, device: str) -> dict[str, Contender]:
    """Return what `hear-tune embed` computes with, by its options."""
    precisions: list[Precision] = ["float32", "bfloat16"]
    programs = {_options("cpu", p): Contender("", variant, precision=p) for p in precisions}
    if device != "cpu":
        for precision in (*precisions, "float16"):
            programs[_options(device, precision)] = Contender(
                "", variant, precision=precision, device=device
            )
    return programs


def _options(device: str, precision: Precision) -> str:
    chosen = f" --device {device}" if device != "cpu" else ""
    return chosen + (f" --precision {precision}" if precision != "float32" else "")


def _seconds_of(program: Program, output: Path) -> float:
    """Time a program in its process, which has imported everything."""
    begin = time.perf_counter()
    program(output)
    return time.perf_counter() - begin


def _plain_folder(variant: str, music: Path, output: Path) -> None:
    embed = _plain_network(Contender("", variant, plain=True).model())
    rows = []
    for path in find_audio(music).paths:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = soxr.resample(audio.mean(axis=1), rate, SAMPLE_RATE_HZ)
        windows = mono[: len(mono) // WINDOW_SAMPLES * WINDOW_SAMPLES].reshape(-1, WINDOW_SAMPLES)
        rows.append(embed(torch.from_numpy(windows)).mean(dim=0))
    np.save(output.with_suffix(".npy"), torch.stack(rows).numpy())


class _NoNetwork(EmbeddingModel):
    """Embeds nothing, as fast as possible."""

    def pool_windows(self, audio: Tensor) -> Tensor:
        return torch.zeros(len(audio), Pooling(self.encoder, self.layers).size)


def _decode_folder(variant: str, music: Path, output: Path) -> None:
    """Do what a GPU waits for: decode in workers, hand pieces over, write rows."""
    model = _NoNetwork(Contender("", variant).model().encoder)
    with (
        EmbeddingOutput(output, identity_of(model, "track")) as writer,
        decoding_crew(model, "track", core_count()) as crew,
    ):
        groups = (
            Group(tuple(paths), writer.new_part(), "track")
            for paths in group_files(find_audio(music).paths)
        )
        embed_groups(groups, model, "track", lambda _: None, crew)
        writer.finish()


def _our_folder(contender: Contender, music: Path, output: Path) -> None:
    embed_folder(music, output, contender.model(), workers=core_count())


def _make_tracks(folder: Path, count: int) -> Path:
    """Synthesise some MP3s of chords in noise, stereo, 44.1 kHz, and copy them to have enough."""
    rng = np.random.default_rng(0)
    times = np.arange(TRACK_SECONDS * TRACK_RATE_HZ) / TRACK_RATE_HZ
    for number in range(min(count, DIFFERENT_TRACKS)):
        sound = 0.02 * rng.standard_normal((len(times), 2))
        for pitch in rng.uniform(80, 2_000, 6):
            sound += 0.1 * np.sin(2 * np.pi * pitch * times + rng.uniform(0, 6, 2)[:, None]).T
        soundfile.write(folder / f"{number:03d}.mp3", sound, TRACK_RATE_HZ)
    for number in range(DIFFERENT_TRACKS, count):
        shutil.copy(folder / f"{number % DIFFERENT_TRACKS:03d}.mp3", folder / f"{number:03d}.mp3")
    return folder
