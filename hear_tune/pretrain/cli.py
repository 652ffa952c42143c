"""``hear-tune pretrain``: CLMR on Lightning, every option on the command line or in a file."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ..allocator import keep_freed_memory
from ..files import sole_use, writing
from .callbacks import (
    CHECKPOINT,
    LAST_WEIGHTS,
    ExportWeights,
    OnlineProbe,
    RunCheckpoint,
    TrainingProgress,
)
from .clmr import CLMR
from .data import PretrainData

AUTO, NEVER = "auto", "never"
_LOCK_SECONDS = 10  # workers of a killed run hold its folder until they notice
_NOISE = (".*args parameter is intended to run", ".*LeafSpec", ".*does not have many workers")


def main(arguments: Sequence[str]) -> int:
    """Train as the arguments say; returns an exit code."""
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
        seed_everything_default=False,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={
            "prog": "hear-tune pretrain",
            "description": "Pre-train an encoder by CLMR.",
        },
    )
    output, source = Path(cli.config.output), cli.datamodule.source
    print(
        f"{cli.model.variant}: {len(source)} tracks, "
        f"{source.seconds / 3600:.1f} h of audio, {source.left_out} too short; "
        f"on {cli.trainer.strategy.root_device}; writing to {output}"
    )
    alone = sole_use(output, "training there", timeout_seconds=_LOCK_SECONDS)
    with alone if cli.trainer.is_global_zero else nullcontext():  # the first for all
        checkpoint = _checkpoint(cli.config.resume, output)
        try:  # weights_only: tensors and plain values, never code
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(f"{checkpoint}: no checkpoint of a training run ({error})") from error
    if cli.run_checkpoint.interrupted:
        raise KeyboardInterrupt
    print(f"{output / LAST_WEIGHTS}: after {cli.trainer.global_step} steps")
    return 0


class _PretrainCLI(LightningCLI):
    """LightningCLI with one output folder, one checkpoint in it, and an optional probe."""

    run_checkpoint: RunCheckpoint

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--output", default="pretrained", help="folder for all that is written")
        parser.add_argument(
            "--resume",
            default=AUTO,
            metavar="{auto,never,FILE}",
            help="auto: go on from the output's checkpoint, if there is one",
        )
        parser.add_argument("--checkpoint_every", type=int, default=500, help="in steps")
        parser.add_class_arguments(OnlineProbe, "probe")
        parser.link_arguments("data.seed", "model.seed")

    def before_instantiate_classes(self) -> None:
        """Refuse settings that a file leaves empty, unless they may be."""
        for section in ("trainer", "probe"):
            if self.config[section] is None:
                raise ValueError(f"settings: {section} is empty; leave it out for the defaults")
        try:
            self.parser.validate(self.config, False)
        except TypeError as error:
            raise ValueError(f"settings: {error}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init
        output = Path(config.output)
        _check_writable(output)
        csv = CSVLogger(output, "logs")
        self.run_checkpoint = RunCheckpoint(output, config.checkpoint_every)
        probe = config.probe if config.probe.enabled else None
        callbacks = [
            *(config.trainer.callbacks or []),
            *([probe] if probe else []),
            ExportWeights(output, OnlineProbe.METRIC if probe else None),
            self.run_checkpoint,
            TrainingProgress(),
        ]
        return super().instantiate_trainer(
            default_root_dir=output,
            logger=[csv, TensorBoardLogger(output, "logs", csv.version)],
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **kwargs,
        )


def _checkpoint(resume: str, output: Path) -> str | None:
    path = output / CHECKPOINT if resume in (AUTO, NEVER) else Path(resume)
    if resume == NEVER or (resume == AUTO and not path.is_file()):
        return None
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint to resume from")
    _check_whole(path)
    return os.fspath(path)


def _check_whole(path: Path) -> None:
    """Torch's own words for a damaged file are of no help."""
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
