"""A callback that tells what each process of a training run has come to."""

import os
from pathlib import Path

import torch
from lightning.pytorch import Callback


class SaveRank(Callback):
    """Writes every rank's process, its step after each one, and its module's state at the end."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def on_train_start(self, trainer, pl_module):
        self.folder.mkdir(exist_ok=True, parents=True)
        (self.folder / f"{trainer.global_rank}.pid").write_text(str(os.getpid()))

    def on_train_batch_end(self, trainer, pl_module, *_):
        (self.folder / f"{trainer.global_rank}.step").write_text(str(trainer.global_step))

    def on_train_end(self, trainer, pl_module):
        torch.save(pl_module.state_dict(), self.folder / f"{trainer.global_rank}.pt")
