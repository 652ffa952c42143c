"""``hear-tune benchmark``: measure speed on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from ..networks.config import WINDOW_SAMPLES
from ..networks.variants import DEFAULT_VARIANT
from .common import Commands, Parser, non_negative_int, positive_int, several

SUMMARY = "measure speed on this machine"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("benchmark", help=SUMMARY)
    parser.description = (
        "Time this package on this machine, relative to a plain program in the same run."
    )
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    _add_benchmark_embed(kinds.add_parser("embed", help="networks, and folders of music"))
    _add_benchmark_pretrain(kinds.add_parser("pretrain", help="the stages of a training step"))


def _add_benchmark_common(parser: Parser) -> None:
    parser.add_argument("--variant", default=DEFAULT_VARIANT, metavar="NAME")
    parser.add_argument(
        "--repeats", type=positive_int, default=5, help="the median counts (default: 5)"
    )
    parser.add_argument("--json", metavar="FILE", help="save the result")


def _add_benchmark_embed(parser: Parser) -> None:
    parser.description = (
        "Time networks on noise, including installed peers, and folders of MP3s from file to "
        "Parquet, in turns."
    )
    _add_benchmark_common(parser)
    parser.add_argument("--music", metavar="FOLDER", help="to embed (default: synthetic music)")
    parser.add_argument(
        "--tracks",
        type=non_negative_int,
        default=128,
        help="number of synthetic tracks; 0: no folder (default: 128)",
    )
    parser.set_defaults(run=_benchmark_embed, less_memory="fewer --tracks")


def _benchmark_embed(options: argparse.Namespace) -> int:
    from ..benchmarks import embed

    result = embed.benchmark_embed(options.variant, options.music, options.tracks, options.repeats)
    return _print_benchmark(result, embed.table(result), options.json)


def _add_benchmark_pretrain(parser: Parser) -> None:
    parser.description = "Time reading, augmentation and training steps on noise, in turns."
    _add_benchmark_common(parser)
    parser.add_argument("--batch-size", type=several, default=16, help="pairs (default: 16)")
    parser.add_argument("--crop-samples", type=positive_int, default=WINDOW_SAMPLES)
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(
        run=_benchmark_pretrain, less_memory="a smaller --batch-size or --device cpu"
    )


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


def _print_benchmark(result: dict[str, Any], table: str, path: str | None) -> int:
    from ..benchmarks.machine import save

    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    print(table)
    if path:
        save(result, path)
    return 0
