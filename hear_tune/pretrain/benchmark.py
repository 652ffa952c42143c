"""How fast training is here, stage by stage, against a plain float32 step of the same run."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from ..config import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from ..network import build_encoder
from ..variants import DEFAULT_VARIANT, get_variant
from .audio_store import AudioStore, build_store
from .augment import clmr_chain
from .loss import NTXent
from .pairs import PairDataset, to_float
from .projector import projection_head

_TRACKS, _TRACK_SECONDS = 64, 10


@dataclass(frozen=True)
class Stage:
    """One line of the table: the median time of a stage for one batch of pairs."""

    name: str
    seconds: float
    windows_per_second: float
    ratio: float | None


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
    encoder_config = get_variant(variant).config
    crops = torch.randint(-9_000, 9_000, (batch_size, 2, crop_samples), dtype=torch.int16)
    audio = to_float(crops).to(device)
    chain, generator = clmr_chain(), torch.Generator().manual_seed(0)

    def augment() -> None:
        for view in audio.unbind(1):
            chain(view, generator)

    with tempfile.TemporaryDirectory() as folder:
        stages: dict[str, Callable[[], object]] = {
            "read": _reader(Path(folder), batch_size, crop_samples),
            "augment": augment,
            "step, float32": _Step(encoder_config, audio, None),
            "step, bfloat16": _Step(encoder_config, audio, torch.bfloat16),
        }
        seconds: dict[str, list[float]] = {name: [] for name in stages}
        for turn in range(repeats + 1):
            for name, stage in stages.items():
                begin = time.perf_counter()
                stage()
                _wait(device)
                if turn:  # the first turn warms up
                    seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    reference = medians["step, float32"]
    rows = [
        Stage(
            name,
            median,
            2 * batch_size / median,
            reference / median if name.startswith("step") else None,
        )
        for name, median in medians.items()
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
    lines = [f"{'stage':<16}{'s per batch':>12}{'windows/s':>12}{'x float32':>11}"]
    for row in result["stages"]:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(
            f"{row['name']:<16}{row['seconds']:>12.4f}{row['windows_per_second']:>12.1f}{ratio:>11}"
        )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def save(result: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a result as JSON."""
    Path(path).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


class _Step:
    """One step of training on audio that is there already: (batch, 2, samples)."""

    def __init__(self, config: Any, audio: Tensor, autocast: torch.dtype | None) -> None:
        torch.manual_seed(0)
        encoder = build_encoder(config)
        self.model = nn.Sequential(encoder, projection_head(config.embedding_size))
        self.model.to(audio.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-4)
        self.loss = NTXent()
        self.audio = audio
        self.autocast = autocast

    def __call__(self) -> None:
        device = self.audio.device.type
        with torch.autocast(device, self.autocast, enabled=self.autocast is not None):
            first, second = (self.model(view[:, None]) for view in self.audio.unbind(1))
        self.optimizer.zero_grad()
        self.loss(first, second).loss.backward()
        self.optimizer.step()


def _reader(folder: Path, batch_size: int, crop_samples: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    length = max(_TRACK_SECONDS * SAMPLE_RATE_HZ, crop_samples)
    for number in range(max(_TRACKS, batch_size)):
        noise = rng.integers(-9_000, 9_000, length, dtype=np.int16)
        soundfile.write(folder / f"{number:03d}.wav", noise, SAMPLE_RATE_HZ)
    build_store([folder], folder / "store", workers=1)
    dataset = PairDataset([AudioStore(folder / "store")], crop_samples, seed=0)
    return lambda: torch.stack([dataset[number] for number in range(batch_size)])


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
