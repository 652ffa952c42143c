"""``hear-tune pretrain``: train an encoder by CLMR."""

from __future__ import annotations

import argparse

from .common import Commands, add_verbatim, require_extra

SUMMARY = "train an encoder by CLMR"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_verbatim(commands, "pretrain", SUMMARY)
    parser.set_defaults(
        run=_pretrain, less_memory="a smaller --data.batch_size or --trainer.accelerator cpu"
    )


def _pretrain(options: argparse.Namespace) -> int:
    require_extra("pretrain", "lightning", "jsonargparse", "sklearn", "tensorboard")
    from ..pretrain.run import main

    return main(options.arguments)
