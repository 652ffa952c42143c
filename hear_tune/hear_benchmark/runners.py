"""Run heareval's runners for several models, tasks and sample rates."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from ..common.allocator import keep_freed_memory
from ..common.files import chunks, write_whole
from ..common.progress import progress_bar
from ..weights import find_pretrained
from .rates import resample_task
from .results import DONE_FILE, EMBEDDED_FILE, METADATA_FILE, MODEL_FILE, collect, table
from .versions import read_version, task_version, write_version

HEAREVAL = "heareval==2021.1.3"
ALL_TASKS = "all"
SCENES_FOLDER = "scenes"  # of a model: embeddings by hash of their audio

Params = dict[str, Any]


class _Weights(click.Path):
    """Path of a checkpoint, or name of weights of the package."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        row = find_pretrained(value)
        return super().convert(os.fspath(row.path) if row else value, param, ctx)


class _Runner:
    """A program of heareval, with its own options."""

    def __init__(self, name: str) -> None:
        try:
            from .adaptations import adapt

            adapt()
        except ImportError as error:
            raise ValueError(
                f'heareval cannot be imported ({error}): pip install "hear-tune[hear]", then '
                f"pip install --no-deps {HEAREVAL}"
            ) from error
        keep_freed_memory()
        self._command: click.Command = import_module(f"heareval.{name}.runner").runner
        self.options = self._command.params
        for option in self.options:
            if option.name == "model":
                option.type = _Weights(exists=True)

    def __call__(self, params: Params) -> None:
        assert self._command.callback is not None
        self._command.callback(**params)


def run(arguments: Sequence[str]) -> dict[str, str]:
    """Embed tasks, train and score their probes, and print the table of scores.

    Parameters
    ----------
    arguments : sequence of str
        Command line: options of both runners of heareval, and ``--name``.

    Returns
    -------
    dict of str to str
        Errors of the tasks that failed, by folder.

    Raises
    ------
    ValueError
        If heareval is not installed, or an option is wrong.
    FileNotFoundError
        If there is no such task.
    """
    embeddings, predictions = _Runner("embeddings"), _Runner("predictions")
    scoring = [option for option in predictions.options if option.name != "task_dirs"]
    params = _parse("run", [*embeddings.options, _NAME, *scoring], arguments)
    settings = {str(option.name): params.pop(str(option.name)) for option in scoring}
    folders, failed = _embed(embeddings, params)
    failed |= _predict(predictions, folders, settings)
    print(table(collect(Path(params["embeddings_dir"]))))
    return failed


def embeddings(arguments: Sequence[str]) -> dict[str, str]:
    """Embed tasks and print the folders of their embeddings; see `run`."""
    runner = _Runner("embeddings")
    folders, failed = _embed(runner, _parse("embeddings", [*runner.options, _NAME], arguments))
    for folder in folders:
        print(folder)
    return failed


def predictions(arguments: Sequence[str]) -> dict[str, str]:
    """Train and score the probes of embedded tasks; see `run`."""
    runner = _Runner("predictions")
    params = _parse("predictions", runner.options, arguments)
    return _predict(runner, [Path(folder) for folder in params.pop("task_dirs")], params)


_NAME = click.Option(["--name"], help="title of the model in tables (default: module and options)")


def _parse(name: str, options: list[click.Parameter], arguments: Sequence[str]) -> Params:
    command = click.Command(name, params=options)
    try:
        return command.make_context(f"hear-tune hear {name}", list(arguments)).params
    except click.exceptions.Exit as done:  # --help was printed
        raise SystemExit(done.exit_code) from None
    except click.ClickException as error:
        raise ValueError(error.format_message()) from error


def _embed(runner: _Runner, params: Params) -> tuple[list[Path], dict[str, str]]:
    """Embed tasks; return the folders of the finished ones, and errors of the others by folder.

    heareval names a model's folder after its module and options only, and would mistake one
    checkpoint for another. The folder of the model's fingerprint around it prevents that. It also
    skips a task whose name it has embedded, so that another version of the task is refused here.
    """
    from .adaptations import kept_scenes

    module, name = params["module"], params.pop("name")
    tasks = _tasks(Path(params["tasks_dir"]), params["task"])
    options = json.loads(params["model_options"])
    model = _load(module, params["model"], options)
    record = _record(module, params["model"], options, getattr(model, "identity", ""), name)
    folder = Path(params["embeddings_dir"]) / record["folder"]
    if name is not None or not (folder / MODEL_FILE).exists():  # a given name is kept
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / MODEL_FILE, json.dumps(record, indent=1) + "\n")

    def embed(task: Path) -> None:
        if earlier := _embedded(folder, task):
            for place in earlier:
                _check_version(place, task, model.sample_rate)
            return
        resample_task(task, model.sample_rate)
        version = task_version(task, model.sample_rate)
        one = {"task": task.name, "embeddings_dir": str(folder)}
        with kept_scenes(folder / SCENES_FOLDER):
            runner(params | one)
        for place in _embedded(folder, task):
            write_version(place, version)

    failed = _each(tasks, embed)
    good = [task for task in tasks if str(task) not in failed]
    return [place for task in good for place in _embedded(folder, task)], failed


def _embedded(folder: Path, task: Path) -> list[Path]:
    """Folders of a model's finished embeddings of a task."""
    return [mark.parent for mark in folder.glob(f"*/{task.name}/{EMBEDDED_FILE}")]


def _check_version(embedded: Path, task: Path, rate: int) -> None:
    """Refuse embeddings of another version of a task; those without a record are taken as is."""
    version = read_version(embedded)
    if version is None:
        return
    resample_task(task, rate)
    if version != task_version(task, rate):
        raise ValueError(
            f"{embedded} is of another version of the task (labels or audio); to embed and score "
            f"this one: rm -r {embedded}"
        )


def _load(module: str, model: str | None, options: object) -> Any:
    if not isinstance(options, dict):
        raise ValueError(f"--model-options must be a JSON object, not {options!r}")
    try:
        load_model = import_module(module).load_model
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{module} is not a HEAR module ({error})") from error
    return load_model(**options) if model is None else load_model(model, **options)


def _tasks(tasks_dir: Path, task: str) -> list[Path]:
    found = sorted(path.parent for path in tasks_dir.glob(f"[!.]*/{METADATA_FILE}"))
    if task != ALL_TASKS:
        found = [path for path in found if path.name == task]
    if not found:
        raise FileNotFoundError(f"{tasks_dir}: no task {task!r} with a {METADATA_FILE} in it")
    return found


def _record(
    module: str, model: str | None, options: Params, identity: str, name: str | None
) -> dict[str, str]:
    """Describe a model; its folder is named after a digest of everything but the title."""
    weights = "" if model is None else _digest(Path(model))
    key = json.dumps([module, weights, options, identity], sort_keys=True)
    given = [module, *([Path(model).name] if model else []), *(f"{v}" for v in options.values())]
    return {
        "folder": hashlib.sha256(key.encode()).hexdigest()[:12],
        "name": name or " ".join(given),
        "module": module,
        "weights": weights,
        "options": json.dumps(options),
        "identity": identity,
    }


def _digest(path: Path) -> str:
    """SHA-256 of the names and contents of a file or of all files in a folder."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        digest.update(os.fsencode(file.relative_to(path)))
        for chunk in chunks(file):
            digest.update(chunk)
    return digest.hexdigest()


def _predict(runner: _Runner, folders: Sequence[Path], params: Params) -> dict[str, str]:
    from .adaptations import watched_training

    def predict(folder: Path) -> None:
        done = folder / DONE_FILE
        if done.exists():
            points = json.loads(done.read_text(encoding="utf-8"))["grid_points"]
            if points != params["grid_points"]:
                raise ValueError(f"has scores of --grid-points {points}; to do it again: rm {done}")
            return
        total = _probe_count(folder, params["grid_points"])
        try:
            with (
                progress_bar(total=total, desc=folder.name, unit="probe") as bar,
                watched_training(bar.update),
            ):
                runner(params | {"task_dirs": [str(folder)]})
        finally:
            _remove_checkpoints(folder)

    return _each(folders, predict)


def _probe_count(folder: Path, grid_points: int) -> int:
    """Count the probes heareval trains: a grid on the first fold, its best point on the others.

    This is an upper bound, because a grid may have fewer points.
    """
    from heareval.predictions.task_predictions import get_splits_from_metadata

    metadata = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    return grid_points + len(get_splits_from_metadata(metadata)) - 1


def _remove_checkpoints(folder: Path) -> None:
    """Remove the probes' checkpoints, which heareval leaves and never reads again."""
    for checkpoints in Path("logs", folder).glob("lightning_logs/version_*/checkpoints"):
        shutil.rmtree(checkpoints)


def _each(folders: Iterable[Path], work: Callable[[Path], None]) -> dict[str, str]:
    """Work on each folder; return errors by folder, and print their tracebacks in heareval."""
    failed = {}
    for folder in folders:
        try:
            work(folder)
        except Exception as error:
            traceback.print_exc()
            failed[str(folder)] = f"{type(error).__name__}: {error}"
    return failed
