"""Run ``hear-tune probe``: from a task, a model and a protocol to results on disk."""

from __future__ import annotations

import argparse
import hashlib
import json
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from .. import baselines
from ..common.allocator import keep_freed_memory
from ..common.devices import core_count, find_device
from ..common.progress import say
from ..datasets import labelled
from ..datasets.catalog import CATALOG, LABELLED, get_data_set
from ..datasets.check import check_task
from ..datasets.task import Clip, Task
from ..embedding.framing import Per
from ..embedding.model import EmbeddingModel
from ..hear import load_model
from ..weights import DEFAULT_PRETRAINED
from . import LAYERS
from .across import check_classes
from .features import Features, embed_task
from .plots import plot_classes, plot_confusion, plot_layers
from .protocols import CLMR_LINEAR, JUKEMIR, PROTOCOLS, Protocol, budgeted
from .results import Result, cell, load, primary, probe, save, table

_STEM_BYTES = 160  # of a result's name; file systems allow 255 in total
_DIGEST_DIGITS = 8  # hexadecimal


def run(options: argparse.Namespace, report: Callable[[Mapping[str, str]], int]) -> int:
    """Run the command with parsed options.

    Parameters
    ----------
    options : Namespace
        Those of the command line.
    report : callable
        Takes reasons by path of failed clips, also if these leave nothing to score, and returns the
        exit code.

    Returns
    -------
    int
        The exit code.
    """
    if all(place.lower().endswith(".json") for place in options.task):
        print(table([load(place) for place in options.task]))
        return report({})
    _check_options(options)
    if len(options.task) > 1:
        raise ValueError(f"one task at a time, not {', '.join(options.task)}")
    protocol = CLMR_LINEAR
    if options.protocol != LAYERS:
        protocol = budgeted(PROTOCOLS[options.protocol], options.points)
    task, root = _task(options, protocol)
    model, name = _model(options)
    workers = options.workers or core_count()
    keep_freed_memory()
    per: Per = "window" if protocol.one_window else "track"
    features = embed_task(task, model, options.cache, workers, per)
    try:
        _score(options, task, root, features, model, protocol, name)
    finally:
        code = report(features.failed)
    return code


def _score(
    options: argparse.Namespace,
    task: Task,
    root: Path,
    features: Features,
    model: EmbeddingModel,
    protocol: Protocol,
    name: str,
) -> None:
    """Score the embeddings, of each layer if so asked, and write and print the results."""
    each_layer = options.protocol == LAYERS

    def scored(features: Features) -> Result:
        seeds, most = options.seeds, options.max_clips
        return probe(task, features, model, protocol, seeds, name, root.resolve(), most)

    if each_layer:
        results = []
        for layer in features.layers:
            results.append(scored(features.of([layer])))
            metric = primary(results[-1])
            say(f"{layer}: {metric} {cell(results[-1], metric)}")
    else:
        results = [scored(features)]
    tested, clips = results[0]["tested"], sum(results[0]["clips"].values())
    say(f"tested on {tested:,} of {clips:,} clips")
    written = _write(results, options.output, options.layers)
    print(table(results))
    print(f"written: {written}")


def _check_options(options: argparse.Namespace) -> None:
    """Refuse options that the protocol would ignore."""
    if options.protocol == LAYERS and options.layers:
        raise ValueError(f"--protocol {LAYERS} probes each layer: leave out --layers")
    if options.points is not None and options.protocol != JUKEMIR.name:
        raise ValueError(f"--points is for the grid of --protocol {JUKEMIR.name}")


def _task(options: argparse.Namespace, protocol: Protocol) -> tuple[Task, Path]:
    """Return the task and the folder of its clips, after remarks on what the protocol makes of it.

    Raises
    ------
    ValueError
        If the folder of a data set is given for something else.
    """
    (place,) = options.task
    path = Path(place)
    own = path.is_dir() or labelled.is_table(path)
    if own and options.root is not None and place not in CATALOG:
        raise ValueError(f"--root is for data sets by name, not for {place}: leave it out")
    if own and options.root is None:
        data_set, root = get_data_set(LABELLED), path
    else:
        data_set = get_data_set(place)
        root = data_set.root(options.root)
    task = data_set.load(root, options.split, options.group)
    remarks = check_task(task, root, across=protocol.classifier is not None)
    if protocol.classifier is not None:
        remarks = (*check_classes(task, protocol.classifier), *remarks)
    for remark in remarks:
        say(f"{task.name}: {remark}")
    if options.max_clips is not None:
        task = replace(task, clips=_thinned(task, options.max_clips))
    return task, root


def _thinned(task: Task, most: int) -> tuple[Clip, ...]:
    """Select up to `most` clips of each split, evenly spaced."""
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


def _write(results: list[Result], folder: Path, layers: str | None) -> Path:
    """Save results with their pictures; return the file, or the folder of several."""
    first = results[0]
    stem = _stem(first, layers, each_layer=len(results) > 1)
    if len(results) > 1:
        for result in results:
            save(result, folder / f"{stem}_{result['layers'][0]}.json")
        plot_layers(results, folder / f"{stem}_layers.svg")
        plot_layers(results, folder / f"{stem}_layers.png")
        return folder
    save(first, folder / f"{stem}.json")
    if first["per_class"]:
        plot_classes(first, folder / f"{stem}_classes.png")
    if first["confusion"]:
        plot_confusion(first, folder / f"{stem}_confusion.png")
    return folder / f"{stem}.json"


_SETTINGS = (
    "task", "root", "max_clips", "kind", "split", "labels_sha256", "model", "identity", "protocol",
    "grid_points", "seeds",
)  # fmt: skip


def _stem(result: Result, layers: str | None, each_layer: bool) -> str:
    """Name the files of a result, uniquely for the settings of the command."""
    settings = {name: result[name] for name in _SETTINGS}
    if not each_layer:
        settings["layers"] = result["layers"]
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:_DIGEST_DIGITS]
    chosen = (layers or "").replace(",", "+")
    parts = [result["task"], result["split"], result["model"], chosen, result["protocol"]]
    name = _file_name("_".join(part for part in parts if part))
    return f"{name.encode()[:_STEM_BYTES].decode(errors='ignore')}_{digest}"


def _file_name(text: str) -> str:
    """Keep letters, marks and digits of every script; replace the rest by hyphens."""
    kept = "".join(
        c if unicodedata.category(c)[0] in "LMN" or c in "_.+-" else " "
        for c in unicodedata.normalize("NFC", text)
    )
    return "-".join(kept.split())
