"""``hear-tune probe``: how good an embedding is for given labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..datasets.catalog import GROUP_HELP
from ..probe import BASELINE_NAMES, PROTOCOL_NAMES
from .common import (
    WEIGHTS_HELP,
    Commands,
    non_negative_int,
    positive_int,
    report_failures,
    require_extra,
)

SUMMARY = "how good an embedding is for labels"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "probe",
        help=SUMMARY,
        description="Train a small classifier on frozen embeddings and score it on the test clips. "
        "Embeddings are computed once and kept. Or print a table of results.",
    )
    parser.add_argument(
        "task",
        metavar="TASK",
        help="a data set (hear-tune data info), a folder of classes, a CSV; or the JSON of results",
        nargs="+",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the data set's files are")
    parser.add_argument("--split", metavar="NAME", help="where a data set has several")
    parser.add_argument("--group", metavar="COLUMN", help=GROUP_HELP)
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", default="", metavar="NAME|FILE", help=WEIGHTS_HELP)
    model.add_argument("--variant", metavar="NAME", help="instead: random weights")
    model.add_argument(
        "--baseline", choices=BASELINE_NAMES, help="instead: features for comparison"
    )
    parser.add_argument("--name", help="of the model, in tables (default: from the above)")
    parser.add_argument(
        "--layers", metavar="A,B", help='layers to concatenate, or "all" (default: the embedding)'
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOL_NAMES,
        default=PROTOCOL_NAMES[0],
        help="knn and logistic take seconds, and classify clips across groups (%(default)s)",
    )
    parser.add_argument("--points", type=positive_int, metavar="N", help="of jukemir's grid of 216")
    parser.add_argument(
        "--seeds", type=non_negative_int, nargs="+", default=[0], metavar="N", help="(0)"
    )
    parser.add_argument("--device", default="cpu", help="for the embeddings (%(default)s)")
    parser.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="processes that embed (default: one per core; one on other devices)",
    )
    parser.add_argument("--cache", type=Path, default=Path(".hear-tune-cache"), metavar="DIR")
    parser.add_argument("-o", "--output", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument(
        "--max-clips",
        type=positive_int,
        metavar="N",
        help="at most so many of each split, evenly from all (for a trial)",
    )
    parser.set_defaults(run=_probe, less_memory="--device cpu")


def _probe(options: argparse.Namespace) -> int:
    require_extra("probe", "sklearn", "matplotlib", "librosa", "mir_eval")
    from ..probe.run import run

    return report_failures(run(options))
