"""``hear-tune s3prl``: s3prl's own programs, with the upstreams and problems of this package."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module

from hear_tune.allocator import keep_freed_memory
from hear_tune.arguments import Parser

from .configuration import config_names, config_path
from .registration import register, register_problems

EXIT_FAILED = 1


def main(arguments: Sequence[str]) -> int:
    """Run a tool of s3prl; returns an exit code.

    Raises
    ------
    ValueError
        If the tool, a problem or a configuration is unknown, or s3prl cannot be imported.
    """
    parser = Parser(
        prog="hear-tune s3prl",
        description="Run s3prl 0.4.18 with the upstreams tune, tune_concat, tune_layers and clmr.",
    )
    tools = {
        "main": (_main, "s3prl.main: main PROBLEM [OPTIONS OF s3prl.main]"),
        "run_downstream": (_run_downstream, "s3prl.run_downstream: its own options"),
        "config": (_config, "list the configurations that come along, or print the path of one"),
        "smoke": (_smoke, "run tasks end to end on made-up data, to see that they work here"),
    }
    commands = parser.add_subparsers(required=True, metavar="TOOL")
    for name, (run, text) in tools.items():
        commands.add_parser(name, help=text, add_help=False).set_defaults(run=run)
    code: int = parser.parse_args(arguments[:1]).run(arguments[1:])
    return code


def run_s3prl(tool: str, arguments: Sequence[str]) -> int:
    """Hand over to ``s3prl.main`` or ``s3prl.run_downstream``, as it is.

    Its errors keep their traceback: they come from its depths, and one line would not tell.

    Returns
    -------
    int
        An exit code.

    Raises
    ------
    ValueError
        If s3prl cannot be imported, or has no problem of that name.
    """
    program = _program(tool, arguments)
    from .adaptations import one_process

    keep_freed_memory()
    ours, sys.argv = sys.argv, [f"hear-tune s3prl {tool}", *arguments]
    try:
        with one_process():
            program()
    except Exception:
        traceback.print_exc()
        return EXIT_FAILED
    finally:
        sys.argv = ours
    return 0


def _program(tool: str, arguments: Sequence[str]) -> Callable[[], None]:
    try:
        (register_problems if tool == "main" else register)()
        program: Callable[[], None] = import_module(f"s3prl.{tool}").main
    except ImportError as error:
        raise ValueError(
            f"s3prl cannot be imported here ({error}): install hear-tune[s3prl] into an "
            "environment of its own"
        ) from error
    if tool == "main":
        _check_problem(arguments)
    return program


def _check_problem(arguments: Sequence[str]) -> None:
    """s3prl.main takes a problem that it does not know for a success."""
    from s3prl import problem

    known = sorted(name for name, kind in vars(problem).items() if isinstance(kind, type))
    if not arguments or arguments[0] not in known:
        given = repr(arguments[0]) if arguments else "none"
        raise ValueError(f"no problem of that name: {given}; one of {', '.join(known)}")


def _main(arguments: Sequence[str]) -> int:
    return run_s3prl("main", arguments)


def _run_downstream(arguments: Sequence[str]) -> int:
    return run_s3prl("run_downstream", arguments)


def _config(arguments: Sequence[str]) -> int:
    parser = Parser(prog="hear-tune s3prl config")
    parser.add_argument("name", nargs="?", help="print the path of this one")
    name = parser.parse_args(arguments).name
    print(config_path(name) if name else "\n".join(config_names()))
    return 0


def _smoke(arguments: Sequence[str]) -> int:
    from .smoke import TASKS, smoke

    parser = Parser(prog="hear-tune s3prl smoke")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--upstream", default="tune", help="any upstream of s3prl's hub")
    options = parser.parse_args(arguments)
    if unknown := [task for task in options.tasks if task not in TASKS]:
        raise ValueError(f"unknown task {unknown[0]!r}: one of {', '.join(TASKS)}")
    failed = [task for task in options.tasks or TASKS if not smoke(task, options.upstream)]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return EXIT_FAILED if failed else 0
