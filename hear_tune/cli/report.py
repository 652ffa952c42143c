"""``hear-tune report``: a page on training runs and results of probes."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import Commands, require_extra

SUMMARY = "a page on training runs and probes"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "report",
        help=SUMMARY,
        description="Write one page of HTML on training runs and results of probes, side by side: "
        "curves, scores by layer and by class, confusions.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="RUN",
        help="a folder of hear-tune pretrain, a JSON of hear-tune probe, or a folder of those",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="REPORT.html")
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    require_extra("probe", "sklearn", "matplotlib")
    from ..explore.report import write_report

    runs, results = write_report(options.inputs, options.output)
    print(f"{options.output}: {runs} training runs, {results} results of probes")
    return 0
