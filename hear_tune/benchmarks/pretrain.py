"""Benchmark training stage by stage against a plain float32 step of the same run.

The plain step is what anybody would write first: eager float32, torch's own pooling and default
memory settings.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common import text
from ..common.allocator import keep_freed_memory
from ..networks.config import FACTOR, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from ..networks.encoders import build_encoder
from ..networks.variants import DEFAULT_VARIANT, get_variant
from ..pretrain.augment import clmr_chain
from ..pretrain.loss import NTXent
from ..pretrain.pairs import PairDataset, to_float
from ..pretrain.pcm_store import AudioStore, build_store
from ..pretrain.projector import projection_head
from .machine import in_a_process, in_turns, machine, peak_bytes

_TRACKS, _TRACK_SECONDS = 64, 10


def benchmark_pretrain(
    variant: str = DEFAULT_VARIANT,
    batch_size: int = 16,
    crop_samples: int = WINDOW_SAMPLES,
    repeats: int = 5,
    device: str = "cpu",
) -> dict[str, Any]:
    """Time reading, augmentation and training steps in turns, on noise.

    Parameters
    ----------
    variant : str
        Encoder to train.
    batch_size : int
        Pairs per step.
    crop_samples : int
        Length of a crop.
    repeats : int
        Measurements of each stage; the median counts.
    device : str
        Device of augmentation and steps.

    Returns
    -------
    dict
        JSON-ready: "machine", "settings" and "stages". A stage has a name, median seconds per batch
        and crops per second; steps of training also the ratio to the plain step's speed, the loss
        after the last repeat (all start with the same weights and see the same audio), and the peak
        memory in bytes of a process that takes them.
    """
    crops = torch.randint(-9_000, 9_000, (batch_size, 2, crop_samples), dtype=torch.int16)
    audio = to_float(crops).to(device)
    chain, generator = clmr_chain(), torch.Generator().manual_seed(0)

    def augment() -> None:
        for view in audio.unbind(1):
            chain(view, generator)

    steps = {name: _Step(variant, audio, plain) for name, plain in _STEPS.items()}
    another_step = _Step(variant, audio, _STEPS[_OURS])

    def augment_and_step() -> None:
        augment()
        another_step()

    with tempfile.TemporaryDirectory() as folder:
        read = _reader(Path(folder), batch_size, crop_samples)
        stages: dict[str, Callable[[], object]] = {
            "read": read,
            "augment": augment,
            **steps,
            "augment and step, bfloat16": augment_and_step,
        }
        timed = {name: partial(_seconds, stage, device) for name, stage in stages.items()}
        medians = in_turns(timed, repeats)
    rows: list[dict[str, Any]] = []
    for name, seconds in medians.items():
        trains = name in steps
        rows.append(
            {
                "name": name,
                "seconds": seconds,
                "windows_per_second": 2 * batch_size / seconds,
                "ratio": medians[_PLAIN] / seconds if trains else None,
                "loss": steps[name].last_loss if trains else None,
                "peak_bytes": _peak_bytes(variant, audio, _STEPS[name]) if trains else None,
            }
        )
    return {
        "machine": machine(),
        "settings": {
            "variant": variant,
            "batch_size": batch_size,
            "crop_samples": crop_samples,
            "repeats": repeats,
            "device": device,
        },
        "stages": rows,
    }


def table(result: dict[str, Any]) -> str:
    """Format the stages as text."""
    return text.table(stages_table(result["stages"]))


def stages_table(stages: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the cells of a table of stages."""
    rows = [["stage", "s per batch", "windows/s", "x plain", "loss", "peak MB"]]
    for row in stages:
        cells = [row["name"], f"{row['seconds']:.4f}", f"{row['windows_per_second']:.1f}"]
        if row["ratio"] is None:
            cells += ["", "", ""]
        else:
            peak = f"{row['peak_bytes'] / 1e6:.0f}"
            cells += [f"{row['ratio']:.2f}", f"{row['loss']:.4f}", peak]
        rows.append(cells)
    return rows


_PLAIN = "step, plain"
_OURS = "step, bfloat16"
_STEPS = {_PLAIN: True, _OURS: False}


class _Step:
    """A training step on prepared audio, (batch, 2, samples)."""

    def __init__(self, variant: str, audio: Tensor, plain: bool) -> None:
        config = get_variant(variant).config
        torch.manual_seed(0)
        encoder = build_encoder(config)
        if plain:
            encoder.pool = partial(F.max_pool1d, kernel_size=FACTOR)
        self.model = nn.Sequential(encoder, projection_head(config.embedding_size))
        self.model.to(audio.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-4)
        self.loss = NTXent()
        self.audio = audio
        self.plain = plain
        self.last_loss = math.nan

    def __call__(self) -> None:
        with torch.autocast(self.audio.device.type, torch.bfloat16, enabled=not self.plain):
            first, second = (self.model(view[:, None]) for view in self.audio.unbind(1))
        self.optimizer.zero_grad()
        loss = self.loss(first, second).loss
        loss.backward()
        self.optimizer.step()
        self.last_loss = loss.item()


def _seconds(stage: Callable[[], object], device: str) -> float:
    begin = time.perf_counter()
    stage()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _peak_bytes(variant: str, audio: Tensor, plain: bool) -> int:
    """Measure two steps: on a GPU by torch's counters, else in a process of their own."""
    if audio.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        _take_steps(variant, audio, plain)
        return torch.cuda.max_memory_allocated()
    return in_a_process(_peak_bytes_here, variant, tuple(audio.shape), plain)


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
