"""``hear-tune probe``: how good an embedding is for given labels."""

from __future__ import annotations

import argparse
import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .. import baselines
from ..allocator import keep_freed_memory
from ..arguments import Parser, non_negative_int, positive_int
from ..datasets import labelled
from ..datasets.catalog import GROUP_HELP, LABELLED, get_data_set
from ..datasets.check import check_task
from ..datasets.task import Clip, Task
from ..devices import core_count, find_device
from ..hear import load_model
from ..model import EmbeddingModel
from ..pretrained import DEFAULT_PRETRAINED, WEIGHTS_HELP
from ..progress import say
from .features import Features, embed_task
from .plots import plot_classes, plot_confusion, plot_layers
from .protocols import CLMR_LINEAR, PROTOCOLS, Protocol, budgeted
from .results import Result, cell, load, primary, probe, save, table

LAYERS = "layers"  # protocol: clmr-linear on each layer

_STEM_BYTES = 160  # of a result's name; file systems take 255 with what follows it
_DIGEST_DIGITS = 8


def main(arguments: Sequence[str]) -> dict[str, str]:
    """Do what the arguments say; returns reasons by path of clips that could not be used."""
    options = _parser().parse_args(arguments)
    if all(place.lower().endswith(".json") for place in options.task):
        print(table([load(place) for place in options.task]))
        return {}
    if len(options.task) > 1:
        raise ValueError(f"one task at a time, not {', '.join(options.task)}")
    task, root = _task(options)
    model, name = _model(options)
    workers = options.workers or (core_count() if model.device.type == "cpu" else 1)
    keep_freed_memory()
    features = embed_task(task, model, options.cache, workers)

    def run(features: Features, protocol: Protocol) -> Result:
        seeds, most = options.seeds, options.max_clips
        return probe(task, features, model, protocol, seeds, name, root.resolve(), most)

    if options.protocol == LAYERS:
        results = []
        for layer in features.layers:
            results.append(run(features.of([layer]), CLMR_LINEAR))
            metric = primary(results[-1])
            say(f"{layer}: {metric} {cell(results[-1], metric)}")
    else:
        results = [run(features, budgeted(PROTOCOLS[options.protocol], options.points))]
    _write(results, options.output, options.layers)
    print(table(results))
    return features.failed


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="hear-tune probe",
        description="Train a small classifier on frozen embeddings and score it on the test clips. "
        "Embeddings are computed once and kept. Or print a table of results.",
    )
    parser.add_argument(
        "task",
        metavar="TASK",
        help="a data set (hear-tune data info), a folder of classes, a CSV; or the JSON of results",
        nargs="+",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the data set's files are")
    parser.add_argument("--split", metavar="NAME", help="where a data set has several")
    parser.add_argument("--group", metavar="COLUMN", help=GROUP_HELP)
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", default="", metavar="NAME|FILE", help=WEIGHTS_HELP)
    model.add_argument("--variant", metavar="NAME", help="instead: random weights")
    model.add_argument(
        "--baseline",
        choices=sorted(baselines.BASELINES),
        help="another encoder (musicnn: pip install --no-deps musicnn==0.1.0)",
    )
    parser.add_argument("--name", help="of the model, in tables (default: from the above)")
    parser.add_argument(
        "--layers", metavar="A,B", help='layers to concatenate, or "all" (default: the embedding)'
    )
    parser.add_argument(
        "--protocol", choices=[*PROTOCOLS, LAYERS], default=CLMR_LINEAR.name, help="(%(default)s)"
    )
    parser.add_argument("--points", type=positive_int, metavar="N", help="of jukemir's grid of 216")
    parser.add_argument(
        "--seeds", type=non_negative_int, nargs="+", default=[0], metavar="N", help="(0)"
    )
    parser.add_argument("--device", default="cpu", help="for the embeddings (%(default)s)")
    parser.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="processes that embed (default: one per core; one on other devices)",
    )
    parser.add_argument("--cache", type=Path, default=Path(".hear-tune-cache"), metavar="DIR")
    parser.add_argument("-o", "--output", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument(
        "--max-clips",
        type=positive_int,
        metavar="N",
        help="at most so many of each split, evenly from all (for a trial)",
    )
    return parser


def _task(options: argparse.Namespace) -> tuple[Task, Path]:
    """The task, and where its clips are."""
    (place,) = options.task
    path = Path(place)
    if path.is_dir() or labelled.is_table(path):
        data_set, root = get_data_set(LABELLED), path
    else:
        data_set = get_data_set(place)
        root = options.root or data_set.default_root
    task = data_set.load(root, options.split, options.group)
    for remark in check_task(task, root if root.is_dir() else None):
        say(f"{task.name}: {remark}")
    if options.max_clips is not None:
        task = replace(task, clips=_thinned(task, options.max_clips))
    return task, root


def _thinned(task: Task, most: int) -> tuple[Clip, ...]:
    """At most so many clips of each split, evenly from all of them."""
    kept: list[Clip] = []
    for split in task.splits:
        clips = task.of(split)
        count = min(most, len(clips))
        kept += [clips[number * len(clips) // count] for number in range(count)]
    return tuple(kept)


def _model(options: argparse.Namespace) -> tuple[EmbeddingModel, str]:
    layers = "all" if options.protocol == LAYERS else options.layers
    device = find_device(options.device)
    if options.baseline:
        model = baselines.load_model(name=options.baseline, layers=layers)
        return model.to(device), options.name or options.baseline
    model = load_model(options.model, variant=options.variant, layers=layers).to(device)
    if options.variant:
        return model, options.name or f"{options.variant} untrained"
    return model, options.name or Path(options.model or DEFAULT_PRETRAINED).stem


def _write(results: list[Result], folder: Path, layers: str | None) -> None:
    first = results[0]
    stem = _stem(first, layers, each_layer=len(results) > 1)
    if len(results) > 1:
        for result in results:
            save(result, folder / f"{stem}_{result['layers'][0]}.json")
        plot_layers(results, folder / f"{stem}_layers.svg")
        plot_layers(results, folder / f"{stem}_layers.png")
        return
    save(first, folder / f"{stem}.json")
    if first["per_class"]:
        plot_classes(first, folder / f"{stem}_classes.png")
    if first["confusion"]:
        plot_confusion(first, folder / f"{stem}_confusion.png")


_SETTINGS = (
    "task", "root", "max_clips", "kind", "split", "labels_sha256", "model", "identity", "protocol",
    "grid_points", "seeds",
)  # fmt: skip


def _stem(result: Result, layers: str | None, each_layer: bool) -> str:
    """The name of a result's files: the same for the same command, another for any other."""
    settings = {name: result[name] for name in _SETTINGS}
    if not each_layer:
        settings["layers"] = result["layers"]
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:_DIGEST_DIGITS]
    chosen = (layers or "").replace(",", "+")
    parts = [result["task"], result["split"], result["model"], chosen, result["protocol"]]
    name = _file_name("_".join(part for part in parts if part))
    return f"{_cut(name, _STEM_BYTES)}_{digest}"


def _file_name(text: str) -> str:
    """Text with letters, marks and digits of every script kept, and hyphens for all else."""
    kept = "".join(
        c if unicodedata.category(c)[0] in "LMN" or c in "_.+-" else " "
        for c in unicodedata.normalize("NFC", text)
    )
    return "-".join(kept.split())


def _cut(text: str, size: int) -> str:
    """The beginning of a text that has at most so many bytes."""
    return text.encode()[:size].decode(errors="ignore")
