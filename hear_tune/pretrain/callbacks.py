"""What happens beside the training steps: progress, checkpoints, weights, an online probe."""

from __future__ import annotations

import copy
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from ..audio import AudioError, Samples, read_blocks
from ..checkpoints import save_checkpoint
from ..clips import embed_clips
from ..files import find_audio
from ..model import EmbeddingModel
from ..network import CROP_SAMPLES, Encoder
from .clmr import CLMR
from .pairs import Pairs

CHECKPOINT = "last.ckpt"
LAST_WEIGHTS, BEST_WEIGHTS = "last.safetensors", "best.safetensors"


class TrainingProgress(Callback):
    """A bar over all steps of the run: loss, windows per second, time left."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = trainer.estimated_stepping_batches
        self._bar = tqdm(
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
        if bar is None:
            return
        bar.update(trainer.global_step - bar.n)
        steps_per_second = bar.format_dict["rate"] or 0.0
        windows = 2 * len(batch.crops) * trainer.accumulate_grad_batches * trainer.world_size
        bar.set_postfix_str(
            f"loss {trainer.callback_metrics['train/loss']:.3f}, "
            f"{windows * steps_per_second:.1f} windows/s",
            refresh=False,
        )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class RunCheckpoint(Callback):
    """Saves the whole run every so many steps, at its end, and when it is interrupted.

    The first Ctrl-C lets the step under way end, saves and stops; the second stops at once.

    Parameters
    ----------
    folder
        Where to; one file is kept.
    every_n_steps
        How often.
    """

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        self.path = folder / CHECKPOINT
        self.interrupted = False
        self._every_n_steps = every_n_steps
        self._saved_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step
        signal.signal(signal.SIGINT, self._interrupt)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # of any process: else one would wait for the others' gradients without end
        trainer.should_stop |= trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
        due = trainer.global_step % self._every_n_steps == 0
        if due or trainer.should_stop or trainer.global_step == trainer.max_steps:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _interrupt(self, *_: object) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        tqdm.write("interrupted: saving after this step")

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step != self._saved_step:
            self._saved_step = trainer.global_step
            # beside, then renamed: Lightning moves it from the system's temporary folder, which
            # between two file systems is a copy that can break off
            partial = self.path.with_name(self.path.name + ".partial")
            trainer.save_checkpoint(partial, weights_only=False)
            if trainer.is_global_zero:
                partial.replace(self.path)


class ExportWeights(Callback):
    """Writes the encoder, or its average, as safetensors whenever a checkpoint is saved.

    ``last.safetensors`` is the newest; ``best.safetensors`` the one with the highest value of the
    monitored metric, if there is one.

    Parameters
    ----------
    folder
        Where to.
    monitor
        A logged metric, the higher the better.
    """

    def __init__(self, folder: Path, monitor: str | None) -> None:
        self._folder = folder
        self._monitor = monitor
        self._best = -np.inf

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = state_dict["best"]

    @rank_zero_only
    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        assert isinstance(pl_module, CLMR)
        encoder = recorded_result(trainer, pl_module)
        save_checkpoint(encoder, self._folder / LAST_WEIGHTS)
        value = trainer.callback_metrics.get(self._monitor) if self._monitor else None
        if value is not None and value > self._best:
            self._best = float(value)
            save_checkpoint(encoder, self._folder / BEST_WEIGHTS)


def recorded_result(trainer: Trainer, module: CLMR) -> Encoder:
    """The encoder that a run has come to, with its record, which says how long windows are."""
    encoder = module.result
    encoder.training_record = training_record(trainer, module)
    return encoder


def training_record(trainer: Trainer, module: CLMR) -> dict[str, Any]:
    """How an encoder's weights came about, for their checkpoint."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    pairs = trainer.global_step * trainer.accumulate_grad_batches
    record = {
        "method": "CLMR",
        "steps": trainer.global_step,
        "pairs": pairs * trainer.world_size * data.batch_size,
        CROP_SAMPLES: data.source.crop_samples,
        "hours_of_audio": round(data.source.seconds / 3600, 2),
        "pieces": len(data.source),  # tracks, segments of tracks, or clips
        "average_decay": module.average_decay,
        "temperature": module.loss.temperature,
        "precision": str(trainer.precision),
        "seed": module.seed,
        "lightning": lightning.__version__,
    }
    return {**record, "before": module.before} if module.before else record


class OnlineProbe(Callback):
    """Every so often: how well a linear classifier tells labelled clips apart.

    A logistic regression on standardised embeddings, trained on two thirds of the clips and scored
    on the rest. It shows whether training helps; it is no benchmark.

    Parameters
    ----------
    folder
        Labelled clips: one folder of audio files per class. Without one there is no probe.
    every_n_steps
        How often; also before the first step.
    max_clips
        At most so many clips, evenly from all.

    Raises
    ------
    FileNotFoundError, ValueError
        If there are no clips, or fewer than two classes of three.
    """

    METRIC = "probe/accuracy"

    def __init__(
        self, folder: str | None = None, every_n_steps: int = 1000, max_clips: int = 4000
    ) -> None:
        self.enabled = folder is not None
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
        self._paths = [paths[i] for i in kept]
        self._labels = np.array([labels[i] for i in kept])
        self._every_n_steps = every_n_steps
        self._clips: list[Samples] | None = None

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:
            self._probe(trainer, pl_module)

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and trainer.global_step % self._every_n_steps == 0:
            self._probe(trainer, pl_module)

    def _probe(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, CLMR)
        if self._clips is None:
            self._clips = self._read()
        model = EmbeddingModel(copy.deepcopy(recorded_result(trainer, module)))
        clips = ((i, [clip]) for i, clip in enumerate(self._clips))
        vectors = np.concatenate([part.vectors for _, part in embed_clips(model, clips, "track")])
        metrics = {self.METRIC: probe_accuracy(vectors, self._labels)}
        _log(trainer, metrics)

    def _read(self) -> list[Samples]:
        clips, kept = [], []
        for i, path in enumerate(self._paths):
            try:
                clips.append(np.concatenate(list(read_blocks(path))))
                kept.append(i)
            except AudioError as error:
                tqdm.write(f"probe: {path} left out: {error}")
        self._labels = self._labels[kept]
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
    tqdm.write(
        f"step {trainer.global_step}: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items())
    )
