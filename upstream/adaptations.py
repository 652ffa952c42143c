"""Make s3prl 0.4.18 run with libraries newer than itself.

Call `adapt` before s3prl is imported. Each function fills one gap, or does nothing without it.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from os import PathLike
from types import ModuleType, SimpleNamespace
from typing import Any

import joblib
import soundfile
import torch
import torchaudio
from torch import Tensor


def adapt() -> None:
    """Fill every gap in this environment."""
    _keep_backend_setter()
    _keep_sox_effects()
    _keep_audio_files()
    _trust_argument_lists()


def one_process() -> joblib.parallel_config:
    """Keep s3prl's parallel jobs in this process; other processes are not adapted."""
    return joblib.parallel_config(backend="threading")


def _keep_backend_setter() -> None:
    """Define a setter that ``import s3prl.hub`` calls; torchaudio 2.9 has no backends."""
    if not hasattr(torchaudio, "set_audio_backend"):
        torchaudio.set_audio_backend = lambda _: None


def _keep_sox_effects() -> None:
    """Define a module that ``import s3prl.hub`` imports; only speech tasks use its effects."""
    name = "torchaudio.sox_effects"
    if name in sys.modules or find_spec(name) is not None:
        return

    def gone(*_: object, **__: object) -> None:
        raise NotImplementedError("torchaudio has no sox effects since 2.9; this task needs 2.8")

    module = ModuleType(name)
    module.__dict__.update(apply_effects_tensor=gone, apply_effects_file=gone)
    sys.modules[name] = torchaudio.sox_effects = module


def _keep_audio_files() -> None:
    """Read and write by soundfile: torchaudio 2.9 has no ``info``, the rest needs torchcodec."""
    if not hasattr(torchaudio, "info"):
        torchaudio.info = _info
        if find_spec("torchcodec") is None:
            torchaudio.load, torchaudio.save = _load, _save


def _trust_argument_lists() -> None:
    """Allow the arguments in run_downstream's checkpoints, which torch 2.6 refuses."""
    torch.serialization.add_safe_globals([argparse.Namespace])


def _info(path: str | PathLike[str]) -> SimpleNamespace:
    info = soundfile.info(path)
    return SimpleNamespace(
        sample_rate=info.samplerate, num_frames=info.frames, num_channels=info.channels
    )


def _load(path: str | PathLike[str], *_: Any, **__: Any) -> tuple[Tensor, int]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy()), rate


def _save(path: str | PathLike[str], audio: Tensor, sample_rate: int, **_: Any) -> None:
    soundfile.write(path, audio.T.numpy(), sample_rate)
