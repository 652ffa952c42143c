"""``hear-tune s3prl``: run s3prl's own programs with the upstreams of this package."""

from __future__ import annotations

import argparse

from .common import EXIT_FAILED, Commands, add_verbatim, require_extra

_PROGRAMS = {
    "main": "s3prl.main: main PROBLEM [OPTIONS OF s3prl.main]",
    "run_downstream": "s3prl.run_downstream: its own options",
}

SUMMARY = "run s3prl with these encoders"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "s3prl",
        help=SUMMARY,
        description="Run s3prl 0.4.18 with the upstreams tune, tune_concat, tune_layers and clmr.",
    )
    tools = parser.add_subparsers(required=True, metavar="TOOL")
    for name, summary in _PROGRAMS.items():
        add_verbatim(tools, name, summary).set_defaults(run=_run, tool=name)
    config = tools.add_parser("config", help="list the included configurations, or locate one")
    config.add_argument("name", nargs="?", help="print the path of this one")
    config.set_defaults(run=_config)
    smoke = tools.add_parser("smoke", help="run tasks end to end on synthetic data")
    smoke.add_argument(
        "tasks", nargs="*", metavar="TASK", help="(default: all; an unknown name lists them)"
    )
    smoke.add_argument("--upstream", default="tune", help="any upstream of s3prl's hub")
    smoke.set_defaults(run=_smoke)


def _require_s3prl() -> None:
    require_extra("s3prl", "s3prl", "pandas", "librosa", "sed_eval", "tensorboardX", "editdistance")


def _run(options: argparse.Namespace) -> int:
    _require_s3prl()
    from ..upstream.runner import run_s3prl

    code: int = run_s3prl(options.tool, options.arguments)
    return code


def _config(options: argparse.Namespace) -> int:
    from ..upstream.configuration import config_names, config_path

    print(config_path(options.name) if options.name else "\n".join(config_names()))
    return 0


def _smoke(options: argparse.Namespace) -> int:
    _require_s3prl()
    from ..upstream.smoke import TASKS, smoke

    if unknown := [task for task in options.tasks if task not in TASKS]:
        raise ValueError(f"unknown task {unknown[0]!r}: one of {', '.join(TASKS)}")
    failed = [task for task in options.tasks or TASKS if not smoke(task, options.upstream)]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return EXIT_FAILED if failed else 0
