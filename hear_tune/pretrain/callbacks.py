"""Callbacks of the training: progress, checkpoints, weights and an online probe."""

from __future__ import annotations

import copy
import hashlib
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from ..audio.files import find_audio
from ..audio.reading import AudioError, Remark, missing_audio, read_blocks
from ..checkpoints.files import load_checkpoint, save_checkpoint
from ..common.progress import progress_bar, say
from ..common.ranges import at_least
from ..common.samples import Samples
from ..embedding.batching import embed_clips
from ..embedding.model import EmbeddingModel
from ..networks.encoders import CROP_SAMPLES, Encoder
from .module import CLMR
from .pairs import Pairs
from .settings import MACHINE, SETTINGS, machine_differences

CHECKPOINT = "last.ckpt"
LAST_WEIGHTS, BEST_WEIGHTS = "last.safetensors", "best.safetensors"


class _StepBar(tqdm):  # type: ignore[misc]
    """A bar of steps that shows windows per second as well, at the same rate."""

    FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}, {windows}]"
    windows_per_step = 0
    loss = float("nan")

    @property
    def format_dict(self) -> Any:
        values = super().format_dict
        overall = (values["n"] - values["initial"]) / max(values["elapsed"], 1e-9)
        windows = self.windows_per_step * (values["rate"] or overall)  # no rate before two updates
        return {**values, "windows": f"loss {self.loss:.3f}, {windows:.1f} windows/s"}


class TrainingProgress(Callback):
    """A bar over all steps of the run: loss, windows per second, time left."""

    def __init__(self) -> None:
        self._bar: Any = None

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = trainer.estimated_stepping_batches
        self._bar = progress_bar(
            kind=_StepBar,
            bar_format=_StepBar.FORMAT,
            total=None if total == float("inf") else int(total),
            initial=trainer.global_step,
            unit="step",
            smoothing=0.05,
        )

    @rank_zero_only
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Pairs,
        batch_idx: int,
    ) -> None:
        bar = self._bar
        if bar is None or bar.disable:
            return
        pairs = len(batch.crops) * trainer.accumulate_grad_batches * trainer.world_size
        bar.windows_per_step = 2 * pairs
        bar.loss = float(trainer.callback_metrics["train/loss"])
        bar.update(trainer.global_step - bar.n)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class RunCheckpoint(Checkpoint):
    """Save the whole run at regular intervals, at its end, and when it is interrupted.

    The first Ctrl-C or SIGTERM stops the run after the current step, and saves it; the second stops
    at once. A step may have several batches. The run is neither saved nor stopped between them,
    because the accumulated gradients would be lost. Lightning runs a `Checkpoint` after all other
    callbacks, so that none of them can stop the run later.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoint; one file is kept.
    every_n_steps : int
        Interval in steps.

    Attributes
    ----------
    settings : dict of str to Any
        Settings of the run, stored in the checkpoint.

    Raises
    ------
    ValueError
        If the number of steps is not positive.
    """

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        at_least(1, checkpoint_every=every_n_steps)
        self.path = folder / CHECKPOINT
        self.interrupted = False
        self.settings: dict[str, Any] = {}
        self._every_n_steps = every_n_steps
        self._stopping = False
        self._step = self._saved_step = -1

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        source = trainer.ckpt_path
        if source is None or Path(source).resolve().parent != self.path.resolve().parent:
            for name in (CHECKPOINT, LAST_WEIGHTS, BEST_WEIGHTS):  # of another run
                self.path.with_name(name).unlink(missing_ok=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = self._saved_step = trainer.global_step
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._interrupt)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # of any process: else one would wait for the others' gradients without end
        interrupted = trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
        self._stopping |= trainer.should_stop or interrupted
        stepped = trainer.global_step != self._step
        trainer.should_stop = self._stopping and stepped
        if not stepped:
            return
        self._step = trainer.global_step
        due = trainer.global_step % self._every_n_steps == 0
        if due or trainer.should_stop or trainer.global_step == trainer.max_steps:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[SETTINGS] = self.settings
        checkpoint[MACHINE] = _machine(trainer)

    @rank_zero_only
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        differences = machine_differences(checkpoint.get(MACHINE, {}), _machine(trainer))
        if differences:
            say(
                f"{trainer.ckpt_path}: was written with {differences}; the last bits will differ "
                "from those of a run that was never interrupted"
            )

    def _interrupt(self, *_: object) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        say("interrupted: saving after this step")

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step != self._saved_step:
            self._saved_step = trainer.global_step
            # beside, then renamed: Lightning moves it from the system's temporary folder, which
            # between two file systems is a copy that can break off
            partial = self.path.with_name(self.path.name + ".partial")
            trainer.save_checkpoint(partial, weights_only=False)
            if trainer.is_global_zero:
                partial.replace(self.path)


def _machine(trainer: Trainer) -> dict[str, Any]:
    """Facts on which the last bits of the results depend, besides the run's settings."""
    device = trainer.strategy.root_device
    release = str(torch.__version__)  # else of a class that no checkpoint may hold
    if device.type == "cuda":
        return {"torch": release, "device": torch.cuda.get_device_name(device)}
    return {"torch": release, "device": device.type, "threads": torch.get_num_threads()}


class ExportWeights(Callback):
    """Write the encoder, or its average, as safetensors whenever a checkpoint is saved.

    Parameters
    ----------
    folder : Path
        Folder of the weights.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @rank_zero_only
    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        assert isinstance(pl_module, CLMR)
        save_checkpoint(recorded_result(trainer, pl_module), self._folder / LAST_WEIGHTS)


def recorded_result(trainer: Trainer, module: CLMR) -> Encoder:
    """Return the encoder so far, with its training record, which sets the window length."""
    encoder = module.result
    encoder.training_record = training_record(trainer, module)
    return encoder


def training_record(trainer: Trainer, module: CLMR) -> dict[str, Any]:
    """Record how the weights were trained, for their checkpoint."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    batches = trainer.train_dataloader.delivered  # type: ignore[union-attr]
    record = {
        "method": "CLMR",
        "steps": trainer.global_step,
        "pairs": batches * trainer.world_size * data.batch_size,
        CROP_SAMPLES: data.source.crop_samples,
        "hours_of_audio": round(data.source.seconds / 3600, 2),
        "pieces": len(data.source),  # tracks, segments of tracks, or clips
        "average_decay": module.average_decay,
        "temperature": module.loss.temperature,
        "precision": str(trainer.precision),
        "seed": module.seed,
        "lightning": lightning.__version__,
    }
    if module.objective is not None:
        record["clmr_weight"] = module.clmr_weight
        record["objective"] = [asdict(asked) for asked in module.asked]
    if module.clmr_layer != module.encoder.default_layer:
        record["clmr_layer"] = module.clmr_layer
    if module.statistics is not None:
        record["clmr_statistics"] = True
    return {**record, "before": module.before} if module.before else record


class OnlineProbe(Callback):
    """Score a linear classifier on labelled clips at regular intervals.

    The probe is a logistic regression on standardised embeddings, trained on two thirds of the
    clips and scored on the rest. It shows whether training helps, but is not a benchmark.

    The weights with the highest score are written at once, with the score in their training record.
    A resumed run reads the score to beat from that file.

    Parameters
    ----------
    folder : str, optional
        Labelled clips: one folder of audio files per class. Without one there is no probe.
    every_n_steps : int
        Interval in steps; the first probe is before the first step.
    max_clips : int
        Maximum number of clips, selected evenly from all.

    Attributes
    ----------
    best : Path, optional
        File for the weights with the highest score; by default they are not written.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist or has no audio.
    ValueError
        If fewer than two classes have three clips, or a number is not positive.
    """

    METRIC = "probe/accuracy"

    def __init__(
        self, folder: str | None = None, every_n_steps: int = 1000, max_clips: int = 4000
    ) -> None:
        at_least(1, every_n_steps=every_n_steps, max_clips=max_clips)
        self.enabled = folder is not None
        self.best: Path | None = None
        if folder is None:
            return
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of labelled clips")
        paths = [Path(path) for path in find_audio(folder).paths]
        paths = paths[:: -(-len(paths) // max_clips)]
        labels = [path.relative_to(folder).parts[0] for path in paths]
        counts = {label: labels.count(label) for label in labels}
        kept = [i for i, path in enumerate(paths) if path.parent != Path(folder)]
        kept = [i for i in kept if counts[labels[i]] >= 3]
        if len({labels[i] for i in kept}) < 2:
            raise ValueError(
                f"{folder}: a probe needs one folder per class, at least two of three clips; "
                f"found {counts}"
            )
        self._folder = folder
        self._paths = [paths[i] for i in kept]
        self._labels = np.array([labels[i] for i in kept])
        self._every_n_steps = every_n_steps
        self._clips: list[Samples] | None = None
        self._digest = ""
        self._step = -1

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        if trainer.global_step == 0:
            self._probe(trainer, pl_module)

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = trainer.global_step != self._step  # after the last of a step's batches
        self._step = trainer.global_step
        if stepped and trainer.global_step % self._every_n_steps == 0:
            self._probe(trainer, pl_module)

    def _probe(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, CLMR)
        if self._clips is None:
            self._clips = self._read()
        encoder = recorded_result(trainer, module)
        model = EmbeddingModel(copy.deepcopy(encoder))
        clips = ((i, [clip]) for i, clip in enumerate(self._clips))
        vectors = np.concatenate([part.vectors for _, part in embed_clips(model, clips, "track")])
        accuracy = probe_accuracy(vectors, self._labels)
        _log(trainer, {self.METRIC: accuracy})
        if self.best is not None and accuracy > self._highest():
            encoder.training_record["probe"] = {
                "accuracy": accuracy,
                "folder": self._folder,
                "clips": len(self._labels),
                "sha256": self._digest,
            }
            save_checkpoint(encoder, self.best)

    def _highest(self) -> float:
        """Return the score of the best weights so far, if it is for the same clips."""
        if self.best is None or not self.best.exists():
            return -np.inf
        score = load_checkpoint(self.best).training_record.get("probe", {})
        same = score.get("sha256") == self._digest
        return float(score.get("accuracy", -np.inf)) if same else -np.inf

    def _describe(self, paths: Sequence[Path]) -> str:
        """Digest of the clips, independent of the location of their folder."""
        rows = [(path.relative_to(self._folder).as_posix(), path.stat().st_size) for path in paths]
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def _read(self) -> list[Samples]:
        clips, kept = [], []
        for i, path in enumerate(self._paths):
            remarks: list[Remark] = []
            try:
                clips.append(np.concatenate(list(read_blocks(path, remarks))))
                kept.append(i)
            except AudioError as error:
                say(f"probe: {path} excluded: {error}")
                continue
            if missing := missing_audio(remarks):
                say(f"probe: {path}: {missing}")
        self._labels = self._labels[kept]
        self._digest = self._describe([self._paths[i] for i in kept])
        return clips


def probe_accuracy(vectors: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Accuracy of a logistic regression on every third clip of a class, trained on the others."""
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        test[np.flatnonzero(labels == label)[::3]] = True
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(vectors[~test], labels[~test])
    return float(classifier.score(vectors[test], labels[test]))


def _log(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    trainer.callback_metrics.update({k: np.float64(v) for k, v in metrics.items()})  # type: ignore[misc]
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=trainer.global_step)
    say(f"step {trainer.global_step}: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
