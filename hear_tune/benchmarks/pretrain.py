"""How fast training is here, stage by stage, against a plain float32 step of the same run.

Plain is what anybody would write first: eager float32, torch's own pooling and default memory.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import soundfile
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.allocator import keep_freed_memory
from ..networks import encoders as network
from ..networks.config import FACTOR, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from ..networks.encoders import build_encoder
from ..networks.pooling import max_pool
from ..networks.variants import DEFAULT_VARIANT, get_variant
from ..pretrain.augment import clmr_chain
from ..pretrain.loss import NTXent
from ..pretrain.pairs import PairDataset, to_float
from ..pretrain.pcm_store import AudioStore, build_store
from ..pretrain.projector import projection_head
from .machine import machine, peak_bytes

_TRACKS, _TRACK_SECONDS = 64, 10


@dataclass(frozen=True)
class Stage:
    """One line of the table.

    Attributes
    ----------
    name
        What was timed.
    seconds
        Median for one batch of pairs.
    windows_per_second
        Crops by that time.
    ratio
        Of a step's speed to the plain step's.
    loss
        After the last repeat: the steps start alike, and see the same audio.
    peak_bytes
        Most memory that a process needs for such steps.
    """

    name: str
    seconds: float
    windows_per_second: float
    ratio: float | None = None
    loss: float | None = None
    peak_bytes: int | None = None


def benchmark_pretrain(
    variant: str = DEFAULT_VARIANT,
    batch_size: int = 16,
    crop_samples: int = WINDOW_SAMPLES,
    repeats: int = 5,
    device: str = "cpu",
) -> dict[str, Any]:
    """Time reading, augmenting, and training steps, interleaved, on noise.

    Parameters
    ----------
    variant
        Which encoder.
    batch_size
        Pairs per step.
    crop_samples
        Length of a crop.
    repeats
        Measurements of each stage; the median counts.
    device
        Where augmentation and steps run.

    Returns
    -------
    dict
        Machine, settings and stages, JSON-ready.
    """
    crops = torch.randint(-9_000, 9_000, (batch_size, 2, crop_samples), dtype=torch.int16)
    audio = to_float(crops).to(device)
    chain, generator = clmr_chain(), torch.Generator().manual_seed(0)

    def augment() -> None:
        for view in audio.unbind(1):
            chain(view, generator)

    steps = {name: _Step(variant, audio, plain) for name, plain in _STEPS.items()}
    with tempfile.TemporaryDirectory() as folder:
        read = _reader(Path(folder), batch_size, crop_samples)
        medians = _time({"read": read, "augment": augment, **steps}, repeats, device)
    rows = [Stage(name, median, 2 * batch_size / median) for name, median in medians.items()]
    reference = medians[_PLAIN]
    rows = [
        replace(
            row,
            ratio=reference / row.seconds,
            loss=steps[row.name].last_loss,
            peak_bytes=_peak_bytes(variant, audio, _STEPS[row.name]),
        )
        if row.name in steps
        else row
        for row in rows
    ]
    return {
        "machine": machine(),
        "settings": {
            "variant": variant,
            "batch_size": batch_size,
            "crop_samples": crop_samples,
            "repeats": repeats,
            "device": device,
        },
        "stages": [asdict(row) for row in rows],
    }


def table(result: dict[str, Any]) -> str:
    """The stages as text."""
    lines = [
        f"{'stage':<16}{'s per batch':>12}{'windows/s':>11}{'x plain':>9}{'loss':>9}{'peak MB':>9}"
    ]
    for row in result["stages"]:
        line = f"{row['name']:<16}{row['seconds']:>12.4f}{row['windows_per_second']:>11.1f}"
        if row["ratio"] is not None:
            line += f"{row['ratio']:>9.2f}{row['loss']:>9.4f}{row['peak_bytes'] / 1e6:>9.0f}"
        lines.append(line)
    return "\n".join(lines)


_PLAIN = "step, plain"
_STEPS = {_PLAIN: True, "step, bfloat16": False}


class _Step:
    """One step of training on audio that is there already: (batch, 2, samples)."""

    def __init__(self, variant: str, audio: Tensor, plain: bool) -> None:
        config = get_variant(variant).config
        torch.manual_seed(0)
        encoder = build_encoder(config)
        self.model = nn.Sequential(encoder, projection_head(config.embedding_size))
        self.model.to(audio.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-4)
        self.loss = NTXent()
        self.audio = audio
        self.plain = plain
        self.last_loss = math.nan

    def __call__(self) -> None:
        pooling = partial(F.max_pool1d, kernel_size=FACTOR) if self.plain else max_pool
        autocast = torch.autocast(self.audio.device.type, torch.bfloat16, enabled=not self.plain)
        with patch.object(network, "max_pool", pooling), autocast:
            first, second = (self.model(view[:, None]) for view in self.audio.unbind(1))
        self.optimizer.zero_grad()
        loss = self.loss(first, second).loss
        loss.backward()
        self.optimizer.step()
        self.last_loss = loss.item()


def _time(
    stages: Mapping[str, Callable[[], object]], repeats: int, device: str
) -> dict[str, float]:
    """Median seconds of each stage, all of them in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for turn in range(repeats + 1):
        for name, stage in stages.items():
            begin = time.perf_counter()
            stage()
            _wait(device)
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _peak_bytes(variant: str, audio: Tensor, plain: bool) -> int:
    """Of two steps: on a GPU as torch counts it, else of a process of their own."""
    if audio.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        _take_steps(variant, audio, plain)
        return torch.cuda.max_memory_allocated()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_peak_bytes_here, variant, tuple(audio.shape), plain).result()


def _peak_bytes_here(variant: str, shape: tuple[int, ...], plain: bool) -> int:
    if not plain:
        keep_freed_memory()
    _take_steps(variant, torch.zeros(shape).uniform_(-0.3, 0.3), plain)
    return peak_bytes()


def _take_steps(variant: str, audio: Tensor, plain: bool) -> None:
    step = _Step(variant, audio, plain)
    step()
    step()


def _reader(folder: Path, batch_size: int, crop_samples: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    length = max(_TRACK_SECONDS * SAMPLE_RATE_HZ, crop_samples)
    for number in range(max(_TRACKS, batch_size)):
        noise = rng.integers(-9_000, 9_000, length, dtype=np.int16)
        soundfile.write(folder / f"{number:03d}.wav", noise, SAMPLE_RATE_HZ)
    build_store([folder], folder / "store", workers=1)
    dataset = PairDataset([AudioStore(folder / "store")], crop_samples, seed=0)
    return lambda: torch.stack([dataset[number].crops for number in range(batch_size)])


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
