"""``hear-tune probe``: how good an embedding is for given labels."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .. import baselines
from ..datasets.catalog import get_data_set
from ..datasets.check import check_task
from ..datasets.task import Clip, Task
from ..devices import find_device
from ..hear import load_model
from ..model import EmbeddingModel
from ..pretrained import DEFAULT_PRETRAINED, WEIGHTS_HELP
from .features import Features, embed_task
from .plots import plot_classes, plot_confusion, plot_layers
from .protocols import CLMR_LINEAR, PROTOCOLS, budgeted
from .results import Result, cell, load, primary, probe, save, table

LAYERS = "layers"  # protocol: clmr-linear on each layer
LABELLED = "labelled"


def main(arguments: Sequence[str]) -> dict[str, str]:
    """Do what the arguments say; returns reasons by path of clips that could not be used."""
    options = _parser().parse_args(arguments)
    if all(place.endswith(".json") for place in options.task):
        print(table([load(place) for place in options.task]))
        return {}
    if len(options.task) > 1:
        raise ValueError(f"one task at a time, not {', '.join(options.task)}")
    task = _task(options)
    model, name = _model(options)
    features = embed_task(task, model, options.cache)
    if options.protocol == LAYERS:
        results = _probe_layers(task, features, model, options, name)
    else:
        protocol = budgeted(PROTOCOLS[options.protocol], options.points)
        results = [probe(task, features, model, protocol, options.seeds, name)]
    _write(results, options.output, options.layers)
    print(table(results))
    return features.failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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
    parser.add_argument("--points", type=int, metavar="N", help="of jukemir's grid of 216")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="(0)")
    parser.add_argument("--device", default="cpu", help="for the embeddings (%(default)s)")
    parser.add_argument("--cache", type=Path, default=Path(".hear-tune-cache"), metavar="DIR")
    parser.add_argument("-o", "--output", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument(
        "--max-clips",
        type=int,
        metavar="N",
        help="at most so many of each split, evenly from all (for a trial)",
    )
    return parser


def _task(options: argparse.Namespace) -> Task:
    (place,) = options.task
    path = Path(place)
    if path.exists() and (path.is_dir() or path.suffix == ".csv"):
        task, root = get_data_set(LABELLED).load(path, options.split), path
    else:
        data_set = get_data_set(place)
        root = options.root or data_set.default_root
        task = data_set.load(root, options.split)
    if options.max_clips is not None:
        kept: list[Clip] = []
        for split in task.splits:
            clips = task.of(split)
            kept += clips[:: -(-len(clips) // options.max_clips)]
        task = replace(task, clips=tuple(kept))
    for remark in check_task(task, root if root.is_dir() else None):
        print(f"{task.name}: {remark}", file=sys.stderr)
    return task


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


def _probe_layers(
    task: Task, features: Features, model: EmbeddingModel, options: argparse.Namespace, name: str
) -> list[Result]:
    results = []
    for layer in features.layers:
        result = probe(task, features.of([layer]), model, CLMR_LINEAR, options.seeds, name)
        metric = primary(result)
        print(f"{layer}: {metric} {cell(result, metric)}", file=sys.stderr)
        results.append(result)
    return results


def _write(results: list[Result], folder: Path, layers: str | None) -> None:
    first = results[0]
    chosen = (layers or "").replace(",", "+")  # other layers are another result
    parts = [first["task"], first["split"], first["model"], chosen, first["protocol"]]
    stem = re.sub(r"[^A-Za-z0-9_.+-]+", "-", "_".join(part for part in parts if part))
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
