"""``hear-tune augment``: listen to the augmentations."""

from __future__ import annotations

import argparse

from ..common.text import counted
from .common import (
    EXIT_FAILED,
    Commands,
    non_negative_int,
    positive_float,
    positive_int,
    require_extra,
)

SUMMARY = "listen to what training does to audio"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("augment", help=SUMMARY)
    parser.description = (
        "Write augmented views of an audio file as in contrastive training: by the whole chain of "
        "CLMR's transforms, then by each transform alone, and plot their spectrograms."
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("-o", "--output", required=True, metavar="DIR")
    parser.add_argument(
        "--views", type=positive_int, default=4, help="number of whole chains (default: 4)"
    )
    parser.add_argument(
        "--seconds",
        type=positive_float,
        default=5.0,
        help="seconds of the file to use (default: 5)",
    )
    parser.add_argument("--seed", type=non_negative_int, default=0)
    parser.set_defaults(run=_augment)


def _augment(options: argparse.Namespace) -> int:
    require_extra("pretrain", "matplotlib")
    from ..audio.decoding import Remark, missing_audio
    from ..pretrain.listen import write_views

    remarks: list[Remark] = []
    written = write_views(
        options.file, options.output, options.views, options.seconds, options.seed, remarks
    )
    print(f"{options.output}: {counted(len(written) - 1, 'sound')}, {written[-1].name}")
    return EXIT_FAILED if missing_audio(remarks) else 0
