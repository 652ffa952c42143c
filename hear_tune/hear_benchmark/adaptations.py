"""Adapt heareval 2021.1.3 to current libraries.

Each function below mends one incompatibility, and does nothing where there is none. heareval's
files are not changed: names in its modules are replaced in this process only.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch

from ..common.files import replacing


@cache
def adapt() -> None:
    """Import heareval and adapt it to the installed libraries.

    Raises
    ------
    ImportError
        If heareval or one of its dependencies is not installed.
    """
    with _stand_in_for_tensorflow():
        import heareval.embeddings.runner
        import heareval.gpu_max_mem
        import heareval.predictions.task_predictions as predictions

    _keep_device_names(heareval.gpu_max_mem)
    _keep_trainer_options(predictions)
    _keep_epoch_ends(predictions.AbstractPredictionModel)
    _trust_grid(predictions.PARAM_GRID)


@contextmanager
def watched_training(report: Callable[[], object]) -> Iterator[None]:
    """Call a function after each probe that heareval trains, because its own bars show no total.

    Parameters
    ----------
    report : callable
        Called without arguments.
    """
    import heareval.predictions.task_predictions as predictions

    train = predictions.task_predictions_train

    def watched(**options: Any) -> Any:
        result = train(**options)
        report()
        return result

    predictions.task_predictions_train = watched
    try:
        yield
    finally:
        predictions.task_predictions_train = train


@contextmanager
def kept_scenes(folder: Path) -> Iterator[None]:
    """Embed each distinct clip once, whatever the task, fold or interrupted run that it is in.

    Parameters
    ----------
    folder : Path
        For the scene embeddings of one model, named by the hash of their audio.
    """
    from heareval.embeddings.task_embeddings import Embedding

    embed = Embedding.get_scene_embedding_as_numpy

    def kept(self: Any, audio: torch.Tensor) -> npt.NDArray[np.float32]:
        files = [folder / f"{_digest(clip)}.npy" for clip in audio]
        new = [row for row, file in enumerate(files) if not file.exists()]
        if new:
            folder.mkdir(parents=True, exist_ok=True)
            for row, vector in zip(new, embed(self, audio[new]), strict=True):
                with replacing(files[row]) as partial, partial.open("wb") as file:
                    np.save(file, vector)
        return np.stack([np.load(file) for file in files])

    Embedding.get_scene_embedding_as_numpy = kept
    try:
        yield
    finally:
        Embedding.get_scene_embedding_as_numpy = embed


def _digest(clip: torch.Tensor) -> str:
    return hashlib.sha256(clip.cpu().numpy().tobytes()).hexdigest()


@contextmanager
def _stand_in_for_tensorflow() -> Iterator[None]:
    """Provide what heareval uses of TensorFlow while heareval is imported.

    heareval needs it to recognise TensorFlow models and to check that these have a GPU if torch
    has one. The stand-in is removed again, so that other packages do not mistake it for TensorFlow.
    """
    name = "tensorflow"
    missing = name not in sys.modules and find_spec(name) is None
    if missing:
        module = ModuleType(name)
        test = SimpleNamespace(is_gpu_available=lambda **_: True)
        module.__dict__.update(Module=type("Module", (), {}), test=test)
        sys.modules[name] = module
    try:
        yield
    finally:
        if missing:
            del sys.modules[name]


def _keep_device_names(gpu_max_mem: Any) -> None:
    """Encode names of GPUs, which heareval decodes; pynvml returns text from 11.5 on."""
    if not hasattr(gpu_max_mem, "nvmlDeviceGetName"):  # there is no GPU
        return
    get_name = gpu_max_mem.nvmlDeviceGetName

    def encoded_name(handle: Any) -> bytes:
        name: str | bytes = get_name(handle)
        return name.encode() if isinstance(name, str) else name

    gpu_max_mem.nvmlDeviceGetName = encoded_name


def _keep_trainer_options(predictions: Any) -> None:
    """Restore ``Trainer(gpus=...)`` and an epoch that can be assigned; Lightning 2 has neither."""
    if "gpus" not in inspect.signature(pl.Trainer.__init__).parameters:
        predictions.pl = SimpleNamespace(Trainer=_Trainer)


class _Trainer(pl.Trainer):
    def __init__(self, *, gpus: int | list[int] | None, **options: Any) -> None:
        options.setdefault("enable_progress_bar", False)  # a bar per epoch would drown all else
        super().__init__(accelerator="gpu" if gpus else "cpu", devices=gpus or 1, **options)

    def test(self, *args: Any, **options: Any) -> Any:
        """Test in the assigned epoch, so that its postprocessing of events is used."""
        epoch = vars(self.fit_loop).get("current_epoch")
        if epoch is not None:
            self.fit_loop.epoch_progress.current.completed = epoch
        return super().test(*args, **options)


def _keep_epoch_ends(model: type[pl.LightningModule]) -> None:
    """Gather the outputs of steps for ``validation_epoch_end``, which Lightning 2 refuses."""
    if hasattr(pl.LightningModule, "validation_epoch_end"):
        return
    for stage in ("validation", "test"):
        old_hook = f"{stage}_epoch_end"
        if old_hook in vars(model):
            _gather_outputs(model, stage, vars(model)[old_hook])
            delattr(model, old_hook)


def _gather_outputs(
    model: type[pl.LightningModule], stage: str, epoch_end: Callable[[Any, list[Any]], None]
) -> None:
    def start(self: Any) -> None:
        self._outputs = []

    def gather(self: Any, outputs: Any, *_: Any) -> None:
        self._outputs.append(outputs)

    def end(self: Any) -> None:
        epoch_end(self, self._outputs)

    for hook, call in (("epoch_start", start), ("batch_end", gather), ("epoch_end", end)):
        setattr(model, f"on_{stage}_{hook}", call)


def _trust_grid(grid: dict[str, list[Any]]) -> None:
    """Let torch 2.6 and later load the classes and functions of the grid from checkpoints."""
    trusted = [value for values in grid.values() for value in values if callable(value)]
    torch.serialization.add_safe_globals(trusted)
