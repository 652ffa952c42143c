"""What commands share: parsers, argument types, exit codes and reports of failures."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ..common.progress import one_line, say
from ..common.ranges import above, at_least
from ..weights import DEFAULT_PRETRAINED, PRETRAINED

if TYPE_CHECKING:
    from ..embedding.workers import FileReport

Number = TypeVar("Number", int, float)

EXIT_FAILED = 1  # a part failed
EXIT_ERROR = 2  # nothing could be done
EXIT_INTERRUPTED = 130

WEIGHTS_HELP = (
    f"weights of the package ({', '.join(PRETRAINED)}), or a checkpoint: .safetensors, .ckpt, .pt "
    f"(default: {DEFAULT_PRETRAINED})"
)
SHA256_HELP = "known SHA-256 of the checkpoint, checked before it is read"


class Parser(ArgumentParser):
    """Refuses abbreviated options: a typo could be another option."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)


# a string: argparse's own class takes no parameter at run time before Python 3.14
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_verbatim(commands: Commands, name: str, summary: str) -> Parser:
    """Add a command that passes on all its arguments, even ``--help``, as ``arguments``."""
    # without prefix characters nothing looks like an option to argparse
    parser = commands.add_parser(name, help=summary, add_help=False, prefix_chars="\0")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


def add_checkpoint(parser: Parser) -> None:
    """Add the options that name a checkpoint to embed with, and its hash."""
    parser.add_argument("--model", default="", metavar="NAME|FILE", help=WEIGHTS_HELP)
    parser.add_argument("--sha256", help=SHA256_HELP)


def add_device(parser: Parser) -> None:
    """Add the option that names the device of the network."""
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1, mps (default: auto, a GPU if torch sees one, else the CPU)",
    )


def add_no_whitening(parser: Parser) -> None:
    """Add the option that embeds with the layers behind a whitened embedding."""
    parser.add_argument(
        "--no-whitening",
        dest="whitened",
        action="store_false",
        help="the layers as they are, where the checkpoint has a whitened embedding",
    )


def require_extra(extra: str, *modules: str) -> None:
    """Raise a ValueError that names the extra to install if a module is missing."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ValueError(f'this needs {missing[0]}: pip install "hear-tune[{extra}]"')


def report_files(report: FileReport) -> int:
    """Print the remarks on files, then each failed one, and return the exit code."""
    for path, remarks in sorted(report.remarks.items()):
        for kind, _, detail in (remark.partition(": ") for remark in remarks):
            say(f"  {kind}: {one_line(path)}: {one_line(detail)}")
    return report_failures(report.failed) or (EXIT_FAILED if report.incomplete else 0)


def report_failures(failed: Mapping[str, str]) -> int:
    """Print each failed file with the reason, and return the exit code."""
    for path, reason in sorted(failed.items()):
        say(f"  failed: {one_line(path)}: {one_line(reason)}")
    return EXIT_FAILED if failed else 0


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    return _read(text, int, at_least, 1)


def several(text: str) -> int:
    """A whole number of at least 2."""
    return _read(text, int, at_least, 2)


def non_negative_int(text: str) -> int:
    """A whole number of at least 0."""
    return _read(text, int, at_least, 0)


def positive_float(text: str) -> float:
    """A finite number above 0."""
    return _read(text, float, above, 0)


def non_negative_float(text: str) -> float:
    """A finite number of at least 0."""
    return _read(text, float, at_least, 0)


def _read(text: str, kind: type[Number], check: Callable[..., None], limit: int) -> Number:
    try:
        number = kind(text)
        check(limit, it=number)
    except ValueError as error:
        what = "a whole number" if kind is int else "a number"
        relation = "of at least" if check is at_least else "above"
        raise ArgumentTypeError(f"must be {what} {relation} {limit}, not {text}") from error
    return number
