"""The command ``hear-tune``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from importlib.metadata import version
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import torch

from .allocator import keep_freed_memory
from .arguments import Parser, non_negative_int, positive_float, positive_int, several
from .audio import Remark, missing_audio
from .checkpoints import load_checkpoint, save_checkpoint
from .clips import PER_CHOICES
from .config import WINDOW_SAMPLES
from .devices import core_count, find_device
from .embed import FolderReport, embed_folder
from .figure import network_svg
from .hear import load_model
from .inference import BACKEND_HELP, BACKENDS, PRECISION_HELP, PRECISIONS
from .model import EmbeddingModel, choose_layers
from .network import EMBEDDING_LAYERS
from .pretrained import WEIGHTS_HELP
from .progress import one_line, say
from .summary import variant_summary, variants_table
from .variants import DEFAULT_VARIANT, get_variant, variant_name

EXIT_FAILED = 1  # the work was done, but not all of it
EXIT_ERROR = 2  # nothing could be done
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    warnings.showwarning = _show_warning
    _escape_what_cannot_be_printed()
    try:
        if arguments and arguments[0] in _OWN_PARSERS:
            return _OWN_PARSERS[arguments[0]](arguments[1:])
        options = _parser().parse_args(arguments)
        code: int = options.run(options)
    except KeyboardInterrupt:
        say("\ninterrupted; what was finished is kept for the same command")
        return EXIT_INTERRUPTED
    except (ValueError, OSError, ArithmeticError) as error:
        return _fail(str(error))
    except (torch.cuda.OutOfMemoryError, MemoryError):
        return _fail(f"out of memory; try {_remedy(arguments)}")
    except BrokenExecutor:
        return _fail(f"a process died, possibly out of memory; try {_remedy(arguments)}")
    return code


def _fail(reason: str) -> int:
    say(f"hear-tune: error: {one_line(reason)}")
    return EXIT_ERROR


def _remedy(arguments: Sequence[str]) -> str:
    """The options of a command by which it needs less memory."""
    return next(
        (text for words, text in _REMEDIES.items() if tuple(arguments[: len(words)]) == words),
        "a machine with more memory",
    )


def _escape_what_cannot_be_printed() -> None:
    """A terminal may be unable to print the name of a file; no line is lost over that."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a windowed program has none
            stream.reconfigure(errors="backslashreplace")


def _parser() -> Parser:
    parser = Parser(prog="hear-tune", description="Music embeddings with the Tailed U-Net (TUNE).")
    parser.add_argument("--version", action="version", version=version("hear-tune"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_embed(commands.add_parser("embed", help="embed folders and files of music"))
    _add_variants(commands.add_parser("variants", help="list the published encoders, or show one"))
    _add_convert(commands.add_parser("convert", help="turn any checkpoint into safetensors"))
    _add_export(commands.add_parser("export", help="write a model as ONNX or torch.export"))
    _add_store(commands.add_parser("store", help="decode music into a store to train from"))
    _add_shards(commands.add_parser("shards", help="write music that streams past training"))
    _add_benchmark(commands.add_parser("benchmark", help="measure speed on this machine"))
    _add_augment(commands.add_parser("augment", help="hear and see what training does to audio"))
    commands.add_parser("pretrain", help="train an encoder by CLMR", add_help=False)
    commands.add_parser("data", help="get and check labelled data sets", add_help=False)
    commands.add_parser("probe", help="how good an embedding is for labels", add_help=False)
    commands.add_parser("similar", help="what of a library sounds like this", add_help=False)
    commands.add_parser("map", help="draw a library to explore in a browser", add_help=False)
    commands.add_parser("report", help="a page on training runs and probes", add_help=False)
    commands.add_parser("s3prl", help="run s3prl with these encoders", add_help=False)
    commands.add_parser("hear", help="run the HEAR benchmark", add_help=False)
    return parser


def _add_embed(parser: Parser) -> None:
    parser.description = (
        "Embed all audio files of folders, or single files. An interrupted job goes on where it "
        "stopped when the command is given again; Parquet output is extended by new files."
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="FOLDER|FILE",
        help="patterns and URLs of fsspec too (s3://...)",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help=".parquet, .npy (and .csv) or .h5; of --engine ray: a folder, or the URL of one",
    )
    parser.add_argument("--model", default="", metavar="NAME|FILE", help=WEIGHTS_HELP)
    parser.add_argument("--sha256", help="known hash of the checkpoint, to be checked")
    parser.add_argument(
        "--variant", metavar="NAME", help="instead: this encoder with random weights"
    )
    parser.add_argument(
        "--per", choices=PER_CHOICES, default="track", help="rows of the output (default: track)"
    )
    parser.add_argument(
        "--layers", metavar="A,B", help='layers to concatenate, or "all" (default: the embedding)'
    )
    parser.add_argument(
        "--hop-ms",
        type=positive_float,
        metavar="MS",
        help="between windows (default: side by side)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISIONS[0], help=PRECISION_HELP
    )
    parser.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0], help=BACKEND_HELP)
    parser.add_argument(
        "--workers",
        type=positive_int,
        help="processes (default: one per core; one on other devices)",
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
        help="of a running cluster (default: RAY_ADDRESS, or new)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.set_defaults(run=_embed)


def _embed(options: argparse.Namespace) -> int:
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
        **layers,
    )
    if options.engine == "ray":
        return _embed_on_ray(options, model)
    model.to(find_device(options.device))
    keep_freed_memory()
    workers = options.workers
    if workers is None:
        workers = core_count() if model.device.type == "cpu" else 1
    report = embed_folder(
        options.inputs, options.output, model, options.per, options.overwrite, workers
    )
    return _end_embedding(report, options.output)


def _embed_on_ray(options: argparse.Namespace, model: EmbeddingModel) -> int:
    _require_extra("ray", "ray")
    from .ray_engine import embed_on_ray

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
    """Say what became of the files; returns the exit code."""
    kept = f", {report.skipped} already there" if report.skipped else ""
    print(f"{output}: {report.embedded} files embedded{kept}, {len(report.failed)} failed")
    for path, remarks in sorted(report.remarks.items()):
        for kind, _, detail in (remark.partition(": ") for remark in remarks):
            say(f"  {kind}: {one_line(path)}: {one_line(detail)}")
    if report.ignored:
        kinds = ", ".join(f"{suffix} ({n})" for suffix, n in report.ignored.most_common(5))
        say(f"  ignored, no audio by their names: {kinds}")
    code = _end(report.failed) or (EXIT_FAILED if report.incomplete else 0)
    return code if report.embedded or report.skipped else EXIT_ERROR


def _end(failed: dict[str, str]) -> int:
    """Name what failed; returns the exit code."""
    for path, reason in sorted(failed.items()):
        say(f"  failed: {one_line(path)}: {one_line(reason)}")
    return EXIT_FAILED if failed else 0


def _add_variants(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", help="show the layers of this one")
    parser.add_argument("--figure", metavar="SVG", help="draw it into this file")
    parser.set_defaults(run=_variants)


def _variants(options: argparse.Namespace) -> int:
    if options.name is None:
        if options.figure:
            raise ValueError("--figure needs the name of a variant")
        print(variants_table())
        return 0
    variant = get_variant(options.name)
    print(variant_summary(variant))
    if options.figure:
        Path(options.figure).write_text(network_svg(variant), encoding="utf-8")
    return 0


def _add_convert(parser: Parser) -> None:
    parser.description = (
        "Read a checkpoint of hear-tune, of the TUNE authors (.ckpt) or of CLMR (.pt), without "
        "running any code from it, and write it as safetensors."
    )
    parser.add_argument("checkpoint", metavar="FILE")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.safetensors")
    parser.add_argument("--sha256", help="known hash of the checkpoint, to be checked")
    parser.add_argument(
        "--half", action="store_true", help="in float16: half the size, float32 again when loaded"
    )
    parser.add_argument(
        "--layers", metavar="A,B", help="that embed when none is named (default: as before)"
    )
    parser.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> int:
    if not options.output.endswith(".safetensors"):
        raise ValueError(f"{options.output}: the name must end in .safetensors")
    encoder = load_checkpoint(options.checkpoint, options.sha256)
    if options.half:
        encoder = encoder.half()
    if options.layers is not None:
        encoder.training_record[EMBEDDING_LAYERS] = choose_layers(encoder, options.layers)
    digest = save_checkpoint(encoder, options.output)
    print(f"{options.output}: {variant_name(encoder.config)}, sha256 {digest}")
    return 0


def _add_export(parser: Parser) -> None:
    parser.description = (
        "Write a model as .onnx, or as torch.export's .pt2, framing included: audio at 22,050 Hz "
        "goes in, (clips, samples) of any number and length, and embeddings come out. The file is "
        "checked against the model."
    )
    parser.add_argument("output", metavar="OUT", help=".onnx or .pt2")
    parser.add_argument("--model", default="", metavar="NAME|FILE", help=WEIGHTS_HELP)
    parser.add_argument("--sha256", help="known hash of the checkpoint, to be checked")
    parser.add_argument("--per", choices=["track", "window"], default="track")
    parser.add_argument("--layers", metavar="A,B", help="as of embed")
    parser.add_argument("--hop-ms", type=positive_float, metavar="MS", help="between windows")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from .export import export_model

    model = load_model(
        options.model, sha256=options.sha256, layers=options.layers, hop_ms=options.hop_ms
    )
    difference = export_model(model, options.output, options.per)
    print(f"{options.output}: {model.identity}, within {difference:.1e} of the model")
    return 0


def _add_store(parser: Parser) -> None:
    parser.description = (
        "Decode folders and files of music, once, into 16-bit PCM at 22,050 Hz that training reads "
        "without cost. An interrupted job goes on where it stopped; new files are added."
    )
    parser.add_argument("inputs", nargs="*", metavar="FOLDER|FILE")
    parser.add_argument("-o", "--output", required=True, metavar="STORE", help="a folder")
    parser.add_argument("--workers", type=positive_int, help="processes (default: one per core)")
    parser.add_argument("--verify", action="store_true", help="check all samples afterwards")
    parser.set_defaults(run=_store)


def _store(options: argparse.Namespace) -> int:
    from .pretrain.audio_store import AudioStore, build_store

    failed = build_store(options.inputs, options.output, options.workers) if options.inputs else {}
    store = AudioStore(options.output)
    if options.verify:
        failed |= {track.path: "damaged in the store" for track in store.verify()}
    print(f"{options.output}: {len(store.tracks)} tracks, {store.seconds / 3600:.2f} h")
    return _end(failed)


def _add_shards(parser: Parser) -> None:
    parser.description = (
        "Cut the tracks of stores into clips and write them as FLAC into tar shards, with an index "
        "that training streams from: --data.audio '[SHARDS/shards.json]', local or a URL. Tars of "
        "audio that are there already (WebDataset's layout) are only indexed."
    )
    parser.add_argument("inputs", nargs="+", metavar="STORE|TAR", help="stores, or tars to index")
    parser.add_argument("-o", "--output", required=True, metavar="SHARDS", help="a folder")
    parser.add_argument(
        "--clip-seconds", type=positive_float, default=30.0, help="about (default: 30)"
    )
    parser.add_argument("--clips-per-shard", type=positive_int, default=256, help="(default: 256)")
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="of the order (default: 0)"
    )
    parser.add_argument("--workers", type=positive_int, help="processes (default: one per core)")
    parser.set_defaults(run=_shards)


def _shards(options: argparse.Namespace) -> int:
    from .pretrain.shards import INDEX, index_shards, write_shards

    tars = [place for place in options.inputs if place.endswith(".tar")]
    if tars and len(tars) < len(options.inputs):
        raise ValueError("either stores to write from, or tars to index, not both")
    failed: dict[str, str] = {}
    if tars:
        shards, failed = index_shards(tars, options.output)
    else:
        shards = write_shards(
            options.inputs,
            options.output,
            options.clip_seconds,
            options.clips_per_shard,
            options.seed,
            options.workers,
        )
    clips = sum(len(shard.lengths) for shard in shards)
    print(f"{options.output}/{INDEX}: {len(shards)} shards of {clips} clips")
    return _end(failed)


def _add_augment(parser: Parser) -> None:
    parser.description = (
        "Write views of an audio file as contrastive training makes them: whole chains of CLMR's "
        "transforms, then each transform alone, and a picture of their spectrograms."
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("-o", "--output", required=True, metavar="DIR")
    parser.add_argument("--views", type=positive_int, default=4, help="whole chains (default: 4)")
    parser.add_argument(
        "--seconds", type=positive_float, default=5.0, help="of the file (default: 5)"
    )
    parser.add_argument("--seed", type=non_negative_int, default=0)
    parser.set_defaults(run=_augment)


def _augment(options: argparse.Namespace) -> int:
    _require_extra("pretrain", "matplotlib")
    from .pretrain.listen import write_views

    remarks: list[Remark] = []
    written = write_views(
        options.file, options.output, options.views, options.seconds, options.seed, remarks
    )
    print(f"{options.output}: {len(written) - 1} sounds, {written[-1].name}")
    return EXIT_FAILED if missing_audio(remarks) else 0


def _add_benchmark(parser: Parser) -> None:
    parser.description = (
        "Time this package on this machine, and print ratios to a plain program of the same run."
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
        "Time networks on noise, peers among them if they are installed, and folders of MP3s from "
        "file to Parquet, in turns."
    )
    _add_benchmark_common(parser)
    parser.add_argument("--music", metavar="FOLDER", help="to embed (default: some are made)")
    parser.add_argument(
        "--tracks",
        type=non_negative_int,
        default=128,
        help="that are made; 0: no folder (default: 128)",
    )
    parser.set_defaults(run=_benchmark_embed)


def _benchmark_embed(options: argparse.Namespace) -> int:
    from .benchmarks import embed

    result = embed.benchmark_embed(options.variant, options.music, options.tracks, options.repeats)
    return _print_benchmark(result, embed.table(result), options.json)


def _add_benchmark_pretrain(parser: Parser) -> None:
    parser.description = "Time reading, augmenting and training steps on noise, in turns."
    _add_benchmark_common(parser)
    parser.add_argument("--batch-size", type=several, default=16, help="pairs (default: 16)")
    parser.add_argument("--crop-samples", type=positive_int, default=WINDOW_SAMPLES)
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_benchmark_pretrain)


def _benchmark_pretrain(options: argparse.Namespace) -> int:
    from .benchmarks import pretrain

    result = pretrain.benchmark_pretrain(
        options.variant,
        options.batch_size,
        options.crop_samples,
        options.repeats,
        str(find_device(options.device)),
    )
    return _print_benchmark(result, pretrain.table(result), options.json)


def _print_benchmark(result: dict[str, Any], table: str, path: str | None) -> int:
    from .benchmarks.machine import save

    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    print(table)
    if path:
        save(result, path)
    return 0


def _require_extra(extra: str, *modules: str) -> None:
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ValueError(f'this needs {missing[0]}: pip install "hear-tune[{extra}]"')


def _pretrain(arguments: list[str]) -> int:
    _require_extra("pretrain", "lightning", "jsonargparse", "sklearn", "tensorboard")
    from .pretrain.cli import main as pretrain

    return pretrain(arguments)


def _data(arguments: list[str]) -> int:
    from .datasets.cli import main as data

    return data(arguments)


def _probe(arguments: list[str]) -> int:
    _require_extra("probe", "sklearn", "matplotlib", "librosa", "mir_eval")
    from .probe.cli import main as probe

    failed = probe(arguments)
    return _end(failed)


def _s3prl(arguments: list[str]) -> int:
    _require_extra(
        "s3prl", "s3prl", "pandas", "librosa", "sed_eval", "tensorboardX", "editdistance"
    )
    from .upstream.command import main as s3prl

    code: int = s3prl(arguments)
    return code


def _hear(arguments: list[str]) -> int:
    _require_extra("hear", "click", "pandas")
    from .heareval.command import main as hear

    failed = hear(arguments)
    return _end(failed)


def _similar(arguments: list[str]) -> int:
    from .explore.cli import similar

    return similar(arguments)


def _map(arguments: list[str]) -> int:
    from .explore.cli import draw_map

    return draw_map(arguments)


def _report(arguments: list[str]) -> int:
    _require_extra("probe", "sklearn", "matplotlib")
    from .explore.cli import report

    return report(arguments)


_OWN_PARSERS = {
    "pretrain": _pretrain,
    "data": _data,
    "probe": _probe,
    "similar": _similar,
    "map": _map,
    "report": _report,
    "s3prl": _s3prl,
    "hear": _hear,
}


_REMEDIES = {
    ("embed",): "fewer --workers or --device cpu",
    ("store",): "fewer --workers",
    ("shards",): "fewer --workers",
    ("benchmark", "embed"): "fewer --tracks",
    ("benchmark", "pretrain"): "a smaller --batch-size or --device cpu",
    ("probe",): "--device cpu",
    ("pretrain",): "a smaller --data.batch_size or --trainer.accelerator cpu",
}


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"hear-tune: warning: {one_line(str(message))}")


if __name__ == "__main__":
    sys.exit(main())
