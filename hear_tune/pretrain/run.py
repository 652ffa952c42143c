"""``hear-tune pretrain``: CLMR on Lightning, with all options on the command line or in a file."""

from __future__ import annotations

import json
import logging
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ..common.allocator import keep_freed_memory
from ..common.files import sole_use, write_whole, writing
from ..common.progress import say
from ..common.text import counted
from ..networks.encoders import CROP_SAMPLES
from . import TrainingError
from .callbacks import (
    BEST_WEIGHTS,
    CHECKPOINT,
    LAST_WEIGHTS,
    ExportWeights,
    OnlineProbe,
    RunCheckpoint,
    TrainingProgress,
)
from .data import PretrainData
from .module import CLMR
from .settings import SETTINGS, check_settings, run_settings

AUTO, NEVER = "auto", "never"
_LOCK_SECONDS = 10  # workers of a killed run hold its lock until they notice
_OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator")  # in errors of CUDA and MPS; of the CPU
_NOISE = (".*args parameter is intended to run", ".*LeafSpec", ".*does not have many workers")


def main(arguments: Sequence[str]) -> int:
    """Train with command-line arguments; return the exit code."""
    keep_freed_memory()
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    cli = _PretrainCLI(
        CLMR,
        PretrainData,
        args=list(arguments),
        run=False,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        seed_everything_default=False,
        save_config_callback=_SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        parser_kwargs={
            "prog": "hear-tune pretrain",
            "description": "Pre-train an encoder by CLMR.",
            "allow_abbrev": False,
        },
    )
    output, source = Path(cli.config.output), cli.datamodule.source
    print(
        f"{cli.model.variant}: {counted(len(source), 'track')}, "
        f"{source.seconds / 3600:.1f} h of audio, {source.left_out} too short; "
        f"on {cli.trainer.strategy.root_device}; writing to {output}"
    )
    alone = sole_use(output, "training there", timeout_seconds=_LOCK_SECONDS)
    with alone if cli.trainer.is_global_zero else nullcontext():  # one process locks for all
        checkpoint = _checkpoint(cli.config.resume, output)
        if checkpoint is None:
            _check_weights(cli.config.model.weights, output)
            _remark_crops(cli.model, cli.config.data.crop_samples)
        first_step = _settle(cli, checkpoint)
        with _in_one_line(cli.config):  # weights_only: tensors and plain values, never code
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    if cli.run_checkpoint.interrupted:
        raise KeyboardInterrupt
    steps = cli.trainer.global_step
    if checkpoint is not None and steps == first_step:
        print(f"{checkpoint}: nothing to do after {counted(steps, 'step')}; raise {_limits(cli)}")
    else:
        print(f"{output / LAST_WEIGHTS}: after {counted(steps, 'step')}")
    return 0


def _check_weights(weights: str | None, output: Path) -> None:
    """Refuse a run that would replace the weights from which it starts."""
    if weights is not None and Path(weights).resolve().parent == output.resolve():
        raise ValueError(f"{weights}: this run would replace it; choose another --output")


class _PretrainCLI(LightningCLI):
    """LightningCLI with an output folder that holds one checkpoint, and an optional probe."""

    run_checkpoint: RunCheckpoint
    trainer: Trainer

    def settings(self) -> dict[str, Any]:
        """Return the settings that the outcome of the run depends on."""
        options = json.loads(self.parser.dump(self.config, format="json", skip_unset=False))
        trainer = {
            "precision": str(self.trainer.precision),
            "processes": self.trainer.num_devices * self.trainer.num_nodes,
        }
        return run_settings(options, self.datamodule.content, trainer)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--output", default="pretrained", help="folder for all output")
        parser.add_argument(
            "--resume",
            default=AUTO,
            metavar="{auto,never,FILE}",
            help="auto: resume from the checkpoint in the output folder, if there is one; never: "
            "begin anew and replace an existing run",
        )
        parser.add_argument("--checkpoint_every", type=int, default=500, help="in steps")
        parser.add_class_arguments(OnlineProbe, "probe")
        parser.link_arguments("data.seed", "model.seed")

    def before_instantiate_classes(self) -> None:
        """Refuse settings that a file leaves empty but must not."""
        for section in ("trainer", "probe"):
            if self.config[section] is None:
                raise ValueError(f"settings: {section} is empty; leave it out for the defaults")
        if self.config.trainer.get("limit_train_batches") is not None:
            raise ValueError("trainer.limit_train_batches: give --data.pairs_per_epoch instead")
        try:
            self.parser.validate(self.config, False)
        except TypeError as error:
            raise ValueError(f"settings: {error}") from error

    def instantiate_classes(self) -> None:
        """Build data, model and trainer, without the deprecated method that Lightning's calls."""
        self.config_init = self.parser.instantiate(self.config)
        self.datamodule, self.model = self.config_init.data, self.config_init.model
        with _in_one_line(self.config):
            self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init
        output = Path(config.output)
        _check_writable(output)
        csv = CSVLogger(output, "logs")
        self.run_checkpoint = RunCheckpoint(output, config.checkpoint_every)
        config.probe.best = output / BEST_WEIGHTS
        callbacks = [
            *(config.trainer.callbacks or []),
            *([config.probe] if config.probe.enabled else []),
            ExportWeights(output),
            self.run_checkpoint,
            TrainingProgress(),
        ]
        return super().instantiate_trainer(
            default_root_dir=output,
            logger=[csv, TensorBoardLogger(output, "logs", csv.version)],
            callbacks=callbacks,
            enable_progress_bar=False,
            enable_model_summary=False,
            **kwargs,
        )


class _SaveConfig(SaveConfigCallback):
    """Write all options beside the logs."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = trainer.loggers[0].log_dir
        assert folder is not None
        Path(folder).mkdir(parents=True, exist_ok=True)
        options = self.parser.dump(self.config, skip_unset=False)
        write_whole(Path(folder) / self.config_filename, options)


def _remark_crops(model: CLMR, crop_samples: int) -> None:
    """Say so if initial weights were trained on crops of another length."""
    before = model.before.get(CROP_SAMPLES, crop_samples)
    if before != crop_samples:
        say(
            f"the weights to start from were trained on crops of {before} samples, not "
            f"{crop_samples}; give --data.crop_samples {before} to keep their length"
        )


def _settle(cli: _PretrainCLI, checkpoint: str | None) -> int:
    """Check the settings against a checkpoint's and keep them; return the step to start after."""
    cli.run_checkpoint.settings = cli.settings()
    if checkpoint is None:
        return 0
    saved = _read(checkpoint)
    if SETTINGS in saved:
        check_settings(saved[SETTINGS], cli.run_checkpoint.settings, checkpoint)
        cli.run_checkpoint.settings = saved[SETTINGS]
    return int(saved["global_step"])


@contextmanager
def _in_one_line(config: Any) -> Iterator[None]:
    """Turn Lightning's refusals and a lack of memory into a `TrainingError` with the remedy."""
    try:
        yield
    except MisconfigurationException as error:
        reason = " ".join(str(error).split())
        accelerator = config.trainer.accelerator
        if accelerator not in ("auto", "cpu"):
            reason += f" (--trainer.accelerator {accelerator}; cpu is always there)"
        raise TrainingError(reason) from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(w in str(error) for w in _OUT_OF_MEMORY):
            raise
        raise TrainingError(
            f"out of memory: give a --data.batch_size below {config.data.batch_size}, "
            "--trainer.precision bf16-mixed, or shorter --data.crop_samples "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error


def _limits(cli: _PretrainCLI) -> str:
    """Format the options that limit the run, with their values."""
    limits = {
        "max_steps": cli.trainer.max_steps,
        "max_epochs": cli.trainer.max_epochs,
        "max_time": cli.config.trainer.max_time,
    }
    return " or ".join(f"--trainer.{k} ({v})" for k, v in limits.items() if v not in (-1, None))


def _checkpoint(resume: str, output: Path) -> str | None:
    path = output / CHECKPOINT if resume in (AUTO, NEVER) else Path(resume)
    if resume == NEVER or (resume == AUTO and not path.is_file()):
        return None
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint to resume from")
    _check_whole(path)
    return os.fspath(path)


def _read(checkpoint: str) -> Mapping[str, Any]:
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        reason = str(error)
    else:
        if isinstance(saved, dict) and "global_step" in saved:
            return saved
        reason = "no global_step"
    raise ValueError(f"{checkpoint}: no checkpoint of a training run ({reason})")


def _check_whole(path: Path) -> None:
    """Raise a ValueError with a remedy for a damaged file, which torch's message lacks."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        damaged = str(error)
    if damaged:
        raise ValueError(
            f"{path}: damaged or no checkpoint of a training run ({damaged}); delete it, or begin "
            "anew with --resume never"
        )


def _check_writable(output: Path) -> None:
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
