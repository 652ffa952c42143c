"""``hear-tune benchmark``: measure speed on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..networks.config import WINDOW_SAMPLES
from ..networks.variants import DEFAULT_VARIANT
from .common import Commands, Parser, add_device, non_negative_int, positive_int, several

_RESULT = "speed.json"
SUMMARY = "measure speed on this machine"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("benchmark", help=SUMMARY)
    parser.description = (
        "Time this package on this machine, relative to a plain program in the same run: networks, "
        "folders of music and training, on the CPU and on a GPU if there is one. Takes about two "
        "minutes on two free cores."
    )
    _add_variant(parser)
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="add installed peers, larger batches, more music and repeats",
    )
    parser.add_argument(
        "--json", metavar="FILE", help=f"where the result goes (default: {_RESULT})"
    )
    parser.add_argument(
        "--page", metavar="PAGE.md", help="Markdown page whose tables are made anew from the result"
    )
    parser.set_defaults(run=_benchmark)
    kinds = parser.add_subparsers(metavar="WHAT", help="only a part of it:")
    _add_benchmark_embed(kinds.add_parser("embed", help="networks, and folders of music"))
    _add_benchmark_pretrain(kinds.add_parser("pretrain", help="the stages of a training step"))
    _add_benchmark_scale(kinds.add_parser("scale", help="many files, rows and points"))
    page = kinds.add_parser("page", help="make a page's tables anew from an earlier result")
    page.add_argument("json", metavar="RESULT.json", help="written by hear-tune benchmark")
    page.add_argument("page", metavar="PAGE.md")
    _of_a_part(page, _page)


def _benchmark(options: argparse.Namespace) -> int:
    from ..benchmarks import embed, pretrain
    from ..benchmarks.machine import save
    from ..benchmarks.suite import benchmark

    result = benchmark(options.variant, options.thorough)
    options.json = options.json or _RESULT
    save(result, options.json)
    _print_machine(result)
    print(embed.table(result))
    for training in filter(None, (result["training"], result["gpu_training"])):
        print(f"\n{pretrain.table(training)}")
    print(f"written: {options.json}")
    return _page(options) if options.page else 0


def _page(options: argparse.Namespace) -> int:
    from ..benchmarks.machine import load
    from ..benchmarks.page import remake_page

    result = load(options.json)
    if "training" not in result:
        raise ValueError(f"{options.json} is of a part of the benchmark: a page needs all of it")
    remake_page(result, options.page)
    return 0


def _add_variant(parser: Parser, default: str = DEFAULT_VARIANT) -> None:
    parser.add_argument("--variant", default=default, metavar="NAME")


def _of_a_part(parser: Parser, run: Callable[[argparse.Namespace], int], **defaults: str) -> None:
    """Let a part run, without the options that are for all parts."""

    def checked(options: argparse.Namespace) -> int:
        if options.thorough or (options.page and run is not _page):
            raise ValueError("--thorough and --page are for the whole benchmark: leave out WHAT")
        return run(options)

    parser.set_defaults(run=checked, **defaults)


def _add_benchmark_common(parser: Parser) -> None:
    _add_variant(parser, argparse.SUPPRESS)  # the one before WHAT, if any, stays
    parser.add_argument(
        "--repeats", type=positive_int, default=3, help="the median counts (default: 3)"
    )
    parser.add_argument("--json", default=argparse.SUPPRESS, metavar="FILE", help="save the result")


def _add_benchmark_embed(parser: Parser) -> None:
    parser.description = (
        "Time networks on noise, and folders of MP3s from file to Parquet, in turns."
    )
    _add_benchmark_common(parser)
    parser.add_argument("--music", metavar="FOLDER", help="to embed (default: synthetic music)")
    parser.add_argument(
        "--tracks",
        type=non_negative_int,
        default=24,
        help="number of synthetic tracks; 0: no folder (default: 24)",
    )
    _of_a_part(parser, _benchmark_embed, less_memory="fewer --tracks")


def _benchmark_embed(options: argparse.Namespace) -> int:
    from ..benchmarks import embed

    result = embed.benchmark_embed(options.variant, options.music, options.tracks, options.repeats)
    return _print_benchmark(result, embed.table(result), options.json)


def _add_benchmark_pretrain(parser: Parser) -> None:
    parser.description = "Time reading, augmentation and training steps on noise, in turns."
    _add_benchmark_common(parser)
    parser.add_argument("--batch-size", type=several, default=16, help="pairs (default: 16)")
    parser.add_argument("--crop-samples", type=positive_int, default=WINDOW_SAMPLES)
    add_device(parser)
    _of_a_part(parser, _benchmark_pretrain, less_memory="a smaller --batch-size or --device cpu")


def _benchmark_pretrain(options: argparse.Namespace) -> int:
    from ..benchmarks import pretrain
    from ..common.devices import find_device

    result = pretrain.benchmark_pretrain(
        options.variant,
        options.batch_size,
        options.crop_samples,
        options.repeats,
        str(find_device(options.device)),
    )
    return _print_benchmark(result, pretrain.table(result), options.json)


def _add_benchmark_scale(parser: Parser) -> None:
    parser.description = (
        "Measure time and memory of embedding many tiny files, of searching many rows exactly and "
        "by an index, and of drawing many points; all of them made up."
    )
    for name in ("files", "rows", "points"):
        parser.add_argument(
            f"--{name}", type=non_negative_int, default=0, metavar="N", help="(default: none)"
        )
    parser.add_argument("--json", default=argparse.SUPPRESS, metavar="FILE", help="save the result")
    _of_a_part(parser, _benchmark_scale, less_memory="fewer --rows and --points")


def _benchmark_scale(options: argparse.Namespace) -> int:
    from ..benchmarks import scale

    result = scale.benchmark_scale(options.files, options.rows, options.points)
    return _print_benchmark(result, scale.table(result), options.json)


def _print_benchmark(result: dict[str, Any], table: str, path: str | None) -> int:
    from ..benchmarks.machine import save

    _print_machine(result)
    print(table)
    if path:
        save(result, path)
    return 0


def _print_machine(result: dict[str, Any]) -> None:
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
