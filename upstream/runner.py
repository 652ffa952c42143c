"""Run s3prl's own programs with the upstreams and problems of this package."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module

from hear_tune.common.allocator import keep_freed_memory

from .registration import register, register_problems

EXIT_FAILED = 1


def run_s3prl(tool: str, arguments: Sequence[str]) -> int:
    """Run ``s3prl.main`` or ``s3prl.run_downstream`` unchanged.

    Errors inside s3prl are printed with their traceback, since one line would not explain them.

    Parameters
    ----------
    tool : {"main", "run_downstream"}
        The program.
    arguments : sequence of str
        Its arguments.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    ValueError
        If s3prl cannot be imported or lacks the problem.
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
    """Refuse unknown problems, which s3prl.main reports as success."""
    from s3prl import problem

    known = sorted(name for name, kind in vars(problem).items() if isinstance(kind, type))
    if not arguments or arguments[0] not in known:
        given = repr(arguments[0]) if arguments else "none"
        raise ValueError(f"no problem of that name: {given}; one of {', '.join(known)}")
