"""The command ``hear-tune``: one module per command.

Commands import what they need only when they run, so that ``--help`` is fast.
"""

from __future__ import annotations

import sys
import warnings
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from importlib.metadata import version
from io import TextIOWrapper
from itertools import chain
from types import ModuleType

from ..common.errors import HearTuneError, lacks_memory
from ..common.progress import one_line, say
from . import (
    augment,
    benchmark,
    convert,
    data,
    embed,
    export,
    hear,
    pretrain,
    probe,
    report,
    s3prl,
    shards,
    similar,
    store,
    variants,
)
from . import (
    map as map_,
)
from .common import EXIT_ERROR, EXIT_FAILED, EXIT_INTERRUPTED, Parser

__all__ = ["EXIT_ERROR", "EXIT_FAILED", "EXIT_INTERRUPTED", "main"]

_GROUPS: dict[str, tuple[ModuleType, ...]] = {
    "embed": (embed, export),
    "explore": (similar, map_, report),
    "evaluate": (data, probe, hear, s3prl),
    "train": (store, shards, augment, pretrain),
    "tools": (variants, convert, benchmark),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    warnings.showwarning = _show_warning
    _escape_what_cannot_be_printed()
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        say("\ninterrupted; what was finished is kept for the same command")
        return EXIT_INTERRUPTED
    except (HearTuneError, ValueError, OSError, ArithmeticError) as error:
        return _fail(str(error))
    except (MemoryError, BrokenExecutor, RuntimeError) as error:
        if (reason := _out_of_memory(error)) is None:
            raise
        return _fail(f"{reason}; try {options.less_memory}")
    return code


def _parser() -> Parser:
    parser = Parser(
        prog="hear-tune",
        description="Music embeddings with the Tailed U-Net (TUNE).",
        usage="%(prog)s [-h] [--version] COMMAND ...",
        epilog=_commands_by_purpose(),
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version("hear-tune"))
    parser.set_defaults(less_memory="a machine with more memory")
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", help=SUPPRESS, prog=parser.prog
    )
    for module in chain.from_iterable(_GROUPS.values()):
        module.add_command(commands)
    return parser


def _commands_by_purpose() -> str:
    lines = []
    for purpose, modules in _GROUPS.items():
        lines += ["", f"{purpose}:"]
        lines += [f"  {_name(module):<10} {module.SUMMARY}" for module in modules]
    return "\n".join(lines[1:])


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _fail(reason: str) -> int:
    say(f"hear-tune: error: {one_line(reason)}")
    return EXIT_ERROR


def _out_of_memory(error: Exception) -> str | None:
    """Describe an error for lack of memory; None for any other error."""
    if isinstance(error, BrokenExecutor):
        return "a process died, possibly out of memory"
    return "out of memory" if lacks_memory(error) else None


def _escape_what_cannot_be_printed() -> None:
    """Escape characters that a terminal cannot print, instead of failing on them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a windowed program has none
            stream.reconfigure(errors="backslashreplace")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"hear-tune: warning: {one_line(str(message))}")
