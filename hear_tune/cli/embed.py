"""``hear-tune embed``: embed folders and files of music."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..common.progress import say
from ..common.text import counted
from ..embedding.framing import PER_CHOICES
from ..networks.config import BACKEND_HELP, BACKENDS, PRECISION_HELP, PRECISIONS
from .common import (
    EXIT_ERROR,
    Commands,
    add_checkpoint,
    add_device,
    add_no_whitening,
    positive_float,
    positive_int,
    report_files,
    require_extra,
)

if TYPE_CHECKING:
    from ..embedding.folder import FolderReport
    from ..embedding.model import EmbeddingModel

SUMMARY = "embed folders and files of music"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("embed", help=SUMMARY)
    parser.description = (
        "Embed all audio files of folders, or single files. Repeat the command to continue an "
        "interrupted job; Parquet output is extended by new files."
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="FOLDER|FILE",
        help="also glob patterns and fsspec URLs (s3://...)",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help=".parquet, .npy (and .csv) or .h5; with --engine ray, a folder or its URL",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--variant", metavar="NAME", help="use this encoder with random weights instead"
    )
    parser.add_argument(
        "--per", choices=PER_CHOICES, default="track", help="rows of the output (default: track)"
    )
    parser.add_argument(
        "--layers", metavar="A,B", help='layers to concatenate, or "all" (default: the embedding)'
    )
    add_no_whitening(parser)
    parser.add_argument(
        "--hop-ms",
        type=positive_float,
        metavar="MS",
        help="time between windows (default: adjacent windows)",
    )
    add_device(parser)
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISIONS[0], help=PRECISION_HELP
    )
    parser.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0], help=BACKEND_HELP)
    parser.add_argument(
        "--workers",
        type=positive_int,
        help="processes, which decode and embed, or decode for a GPU (default: one per core)",
    )
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="ray: on all cores, or GPUs, of a Ray cluster (default: local)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="a running cluster (default: RAY_ADDRESS, or a new one)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.set_defaults(run=_embed, less_memory="fewer --workers or --device cpu")


def _embed(options: argparse.Namespace) -> int:
    from ..common.allocator import keep_freed_memory
    from ..common.devices import core_count, find_device
    from ..embedding.folder import embed_folder
    from ..hear import load_model

    if options.per == "timestamp" and options.hop_ms is not None:
        raise ValueError("--hop-ms is between windows; timestamps come every 33.06 ms")
    layers = {"timestamp_layers" if options.per == "timestamp" else "layers": options.layers}
    model = load_model(
        options.model,
        variant=options.variant,
        sha256=options.sha256,
        hop_ms=options.hop_ms,
        backend=options.backend,
        precision=options.precision,
        whitened=options.whitened,
        **layers,
    )
    if options.engine == "ray":
        return _embed_on_ray(options, model)
    model.to(find_device(options.device))
    keep_freed_memory()
    workers = options.workers or core_count()
    report = embed_folder(
        options.inputs, options.output, model, options.per, options.overwrite, workers
    )
    return _end_embedding(report, options.output)


def _embed_on_ray(options: argparse.Namespace, model: EmbeddingModel) -> int:
    require_extra("ray", "ray")
    from ..embedding.ray import embed_on_ray

    if options.overwrite:
        raise ValueError("--engine ray adds to a folder: remove it to embed anew")
    report = embed_on_ray(
        options.inputs,
        options.output,
        model,
        options.per,
        options.workers,
        options.device,
        options.ray_address,
    )
    return _end_embedding(report, options.output)


def _end_embedding(report: FolderReport, output: str) -> int:
    """Print a summary and return the exit code."""
    kept = f", {report.skipped:,} already there" if report.skipped else ""
    embedded = counted(report.embedded, "file")
    print(f"{output}: {embedded} embedded{kept}, {len(report.failed):,} failed")
    if report.ignored:
        kinds = ", ".join(f"{suffix} ({n})" for suffix, n in report.ignored.most_common(5))
        say(f"  ignored, no audio by their names: {kinds}")
    code = report_files(report)
    return code if report.embedded or report.skipped else EXIT_ERROR
