"""``hear-tune hear``: run the HEAR benchmark by heareval's own programs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..common.files import write_whole
from ..common.progress import say
from ..datasets.catalog import get_data_set
from ..networks.config import SAMPLE_RATE_HZ
from .common import (
    Commands,
    add_verbatim,
    positive_float,
    positive_int,
    report_failures,
    require_extra,
)

SUMMARY = "run the HEAR benchmark"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "hear",
        help=SUMMARY,
        description="Run the HEAR benchmark by its own evaluation kit, heareval 2021.1.3.",
    )
    tools = parser.add_subparsers(required=True, metavar="TOOL")
    for name, summary in _RUNNERS.items():
        add_verbatim(tools, name, summary).set_defaults(run=_run, tool=name)
    _add_table(tools)
    _add_make_task(tools)


_RUNNERS = {
    "run": "embeddings and predictions of one model, with the options of both",
    "embeddings": "heareval.embeddings.runner: its own options",
    "predictions": "heareval.predictions.runner: its own options",
}


def _run(options: argparse.Namespace) -> int:
    require_extra("hear", "click", "pandas")
    from ..hear_benchmark import runners

    return report_failures(getattr(runners, options.tool)(options.arguments))


def _add_table(tools: Commands) -> None:
    parser = tools.add_parser(
        "table", help="compare the models in a folder with the official leaderboard"
    )
    parser.add_argument("embeddings_dir", type=Path, nargs="?", default=Path("embeddings"))
    parser.add_argument(
        "--views",
        action="store_true",
        help="also score the embeddings across groups of clips, with intervals",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the scores")
    parser.set_defaults(run=_table)


def _table(options: argparse.Namespace) -> int:
    results, text = _views(options) if options.views else _scores(options)
    if not results:
        raise FileNotFoundError(f"{options.embeddings_dir}: no scores in it")
    print(text)
    if options.json:
        write_whole(options.json, json.dumps(results, indent=1) + "\n")
    return 0


def _scores(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    from ..hear_benchmark.results import collect, table

    results = collect(options.embeddings_dir)
    return results, table(results)


def _views(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    require_extra("hear", "pandas", "sklearn")
    from ..hear_benchmark.views import collect_views, view_tables

    rows = collect_views(options.embeddings_dir)
    return rows, view_tables(rows)


def _add_make_task(tools: Commands) -> None:
    parser = tools.add_parser(
        "make-task",
        help="turn a labelled data set into a task folder",
        description="Turn a labelled data set into a task folder that heareval accepts.",
    )
    parser.add_argument("name", metavar="NAME", help="a data set: see hear-tune data info")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of its files")
    parser.add_argument("--split", metavar="NAME", help="split to use, where there are several")
    parser.add_argument("-o", "--output", type=Path, default=Path("tasks"), metavar="DIR")
    parser.add_argument(
        "--seconds",
        type=positive_float,
        help="cut or pad clips to this length (default: the data set's; unchanged if lengths vary)",
    )
    parser.add_argument(
        "--rate", type=positive_int, default=SAMPLE_RATE_HZ, help="in Hz (%(default)s)"
    )
    parser.set_defaults(run=_make_task)


def _make_task(options: argparse.Namespace) -> int:
    require_extra("hear", "pandas")
    from ..datasets.check import check_task
    from ..hear_benchmark.make_task import FULL, folder_name, make_task

    data_set = get_data_set(options.name)
    task = data_set.load(options.root, options.split)
    for remark in check_task(task, data_set.root(options.root)):
        say(f"{task.name}: {remark}")
    seconds = options.seconds or data_set.task_seconds
    mode = FULL if options.split in (None, *data_set.splits[:1]) else options.split
    failed = make_task(task, options.output, seconds, options.rate, mode)
    print(f"{options.output / folder_name(task, mode)}: {len(task.clips) - len(failed)} clips")
    return report_failures(failed)
