"""``hear-tune probe``: score embeddings on labelled data."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..datasets.catalog import GROUP_HELP
from ..probe import BASELINE_NAMES, PROTOCOL_NAMES
from .common import (
    WEIGHTS_HELP,
    Commands,
    add_device,
    non_negative_int,
    positive_int,
    report_failures,
    require_extra,
)

SUMMARY = "score embeddings on labelled data"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "probe",
        help=SUMMARY,
        description="Train a small classifier on frozen embeddings and score it on the test clips. "
        "Embeddings are cached. Given JSON files of results, print a table of them instead.",
    )
    parser.add_argument(
        "task",
        metavar="TASK",
        help="a data set (hear-tune data info), a folder of classes, a CSV; or the JSON of results",
        nargs="+",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the data set's files")
    parser.add_argument("--split", metavar="NAME", help="split to use, where there are several")
    parser.add_argument("--group", metavar="COLUMN", help=GROUP_HELP)
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", default="", metavar="NAME|FILE", help=WEIGHTS_HELP)
    model.add_argument("--variant", metavar="NAME", help="random weights instead")
    model.add_argument("--baseline", choices=BASELINE_NAMES, help="a baseline instead")
    parser.add_argument("--name", help="name of the model in tables (default: from the options)")
    parser.add_argument(
        "--layers", metavar="A,B", help='layers to concatenate, or "all" (default: the embedding)'
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOL_NAMES,
        default=PROTOCOL_NAMES[0],
        help="knn and logistic take seconds, and classify clips across groups (%(default)s)",
    )
    parser.add_argument(
        "--points",
        type=positive_int,
        metavar="N",
        help="try only N of the 216 points of jukemir's grid",
    )
    parser.add_argument(
        "--seeds", type=non_negative_int, nargs="+", default=[0], metavar="N", help="(0)"
    )
    add_device(parser)
    parser.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="processes, which decode and embed, or decode for a GPU (default: one per core)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(".hear-tune-cache"),
        metavar="DIR",
        help="where embeddings are kept (%(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="folder of results, as JSON and pictures (%(default)s)",
    )
    parser.add_argument(
        "--max-clips",
        type=positive_int,
        metavar="N",
        help="use at most N clips of each split, evenly spaced (for a trial)",
    )
    parser.set_defaults(run=_probe, less_memory="--device cpu")


def _probe(options: argparse.Namespace) -> int:
    require_extra("probe", "sklearn", "matplotlib", "librosa", "mir_eval")
    from ..probe.run import run

    return run(options, report_failures)
