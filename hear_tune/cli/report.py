"""``hear-tune report``: report training runs and probes on a page."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..common.text import counted
from .common import Commands, require_extra

SUMMARY = "report training runs and probes on a page"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "report",
        help=SUMMARY,
        description="Compare training runs and results of probes on one HTML page: curves, scores "
        "by layer and by class, confusion matrices.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="RUN",
        help="a folder of hear-tune pretrain, a JSON file of hear-tune probe, or a folder of these",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="REPORT.html")
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    require_extra("probe", "sklearn", "matplotlib")
    from ..explore.report import write_report

    runs, results = write_report(options.inputs, options.output)
    content = f"{counted(runs, 'training run')}, {counted(results, 'result')} of probes"
    print(f"{options.output}: {content}")
    return 0
