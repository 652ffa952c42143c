"""Embedding on all machines of a Ray cluster: the same rows, in a folder of Parquet files.

Each group of files becomes one part of the output, named by its place, which appears whole or not
at all. So nothing is lost when a worker dies, as Ray gives its groups to another, or when the
program is killed and started again. Music and output may lie wherever fsspec reads and writes.
"""

from __future__ import annotations

import copy
import logging
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import ray
import ray.data
import torch
from fsspec.implementations.local import LocalFileSystem

from ..audio.files import find_audio
from ..audio.reading import Remarks
from ..common.devices import AUTO
from ..common.files import sole_use
from ..common.progress import progress_bar
from ..common.ranges import one_of
from .folder import FolderReport, Progress, groups_to_do, identity_of
from .framing import PER_CHOICES, Per
from .groups import Group, GroupEmbedder, decoding_crew, embed_groups
from .model import EmbeddingModel
from .object_lock import sole_use_of_store
from .output import PartWriter, part_name
from .rows import StoreError, files_in
from .workers import Crew, Note, Outcome

OBJECT_STORE_BYTES = 256 << 20  # enough for names and the model
_MAX_BLOCKS = 10_000
_CUDA = "cuda"
_GROUPS_PER_DECODER = 4  # at once: enough that all decoders end at nearly the same time
_DOING = "writing it"


def embed_on_ray(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str,
    model: EmbeddingModel,
    per: Per = "track",
    workers: int | None = None,
    device: str = AUTO,
    address: str | None = None,
) -> FolderReport:
    """Embed folders and files of music on a Ray cluster, with a progress bar.

    Parameters
    ----------
    inputs : path-like or sequence of path-like
        Folders, files, patterns and URLs that all machines of the cluster can read.
    output : str
        A folder, or the URL of one, that all machines can write. Files that have rows in it are
        skipped.
    model : EmbeddingModel
        From `hear_tune.load_model`.
    per : {"track", "window", "timestamp"}
        What each row covers.
    workers : int, optional
        Processes; by default one per core of the cluster, or per GPU.
    device : {"auto", "cpu", "cuda"}
        With "cuda", each process has a GPU, and its share of the cores of its machine decodes for
        it. "auto" is "cuda" if the cluster has GPUs, else "cpu".
    address : str, optional
        Of a running cluster; by default that to which this process is connected (`ray.init`),
        RAY_ADDRESS, or a new cluster of this machine's cores.

    Returns
    -------
    FolderReport

    Raises
    ------
    FileNotFoundError, ValueError
        If the inputs hold no audio, or an option is wrong.
    StoreError
        If the output belongs to another model or other options.
    InUseError
        If another program writes it, on this machine or, for an object store, on any.
    """
    one_of(PER_CHOICES, per=per)
    if device not in (AUTO, "cpu", _CUDA):
        raise ValueError(f"device must be {AUTO}, cpu or {_CUDA} on a Ray cluster, not {device!r}")
    found = find_audio(inputs)
    report = FolderReport(failed=dict(found.unreadable), ignored=found.ignored)
    parts = _Parts(output, identity_of(model, per))
    with parts.locked(), progress_bar(total=len(found.paths), unit="file", smoothing=0.1) as bar:
        parts.take_stock()
        progress = Progress(report, bar)
        groups = [
            (part_name(number, parts.numbers), todo)
            for number, todo in groups_to_do(found.paths, parts.done, progress)
        ]
        if groups:
            with _cluster(address):
                task = _Task(parts, copy.deepcopy(model).cpu(), per, device)
                _embed(groups, task, workers, progress.note)
    return report


class _Parts:
    """An output that is a folder of Parquet files, wherever fsspec writes."""

    def __init__(self, output: str, identity: dict[str, object]) -> None:
        self.identity = identity
        self._output = output
        self._store, self._root = fsspec.core.url_to_fs(os.path.expanduser(output))
        self._store.makedirs(self._root, exist_ok=True)
        self.numbers: set[int] = set()
        self.done: dict[str, Remarks] = {}

    def take_stock(self) -> None:
        """List the parts and remove the leftovers of killed programs; only while locked."""
        self._store.invalidate_cache()
        for path in self._store.glob(f"{self._root}/*.parquet"):
            self.numbers.add(_number(self._output, path))
            self.done |= files_in(path, self._output, self.identity, self._store)
        for leftover in self._store.glob(f"{self._root}/*.partial"):
            self._store.rm_file(leftover)

    @contextmanager
    def new(self, name: str) -> Iterator[PartWriter]:
        """Write a new part, which appears whole once the context ends without an error."""
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, name)
            yield PartWriter(part, self.identity)
            if part.exists():  # a group without any good file has no rows
                partial = f"{self._root}/{name}.{os.getpid()}.partial"
                self._store.put_file(os.fspath(part), partial)
                self._store.mv(partial, f"{self._root}/{name}")

    def locked(self) -> AbstractContextManager[None]:
        """Keep other programs out of the output."""
        if isinstance(self._store, LocalFileSystem):
            return sole_use(self._root, _DOING)
        return sole_use_of_store(self._store, self._root, _DOING)


def _number(output: str, path: str) -> int:
    stem = Path(path).stem
    if not stem.isdecimal():
        raise StoreError(f"{output}: {path} was not written by hear-tune; choose another folder")
    return int(stem)


@dataclass(frozen=True)
class _Task:
    """What all workers have in common."""

    parts: _Parts
    model: EmbeddingModel
    per: Per
    device: str
    decoders: int = 0  # of each process, for a GPU


def _placed(task: _Task) -> _Task:
    """Choose the device, and the decoders of each GPU, by the machines of the cluster."""
    cores = [_cores_per_gpu(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    cores = [count for count in cores if count]
    device = task.device
    if device == AUTO:
        device = _CUDA if cores else "cpu"
    task.model.inference.check(torch.device(device))
    return replace(task, device=device, decoders=min(cores, default=1) if device == _CUDA else 0)


def _cores_per_gpu(resources: Mapping[str, float]) -> int:
    """Return the share of each of a machine's GPUs in its cores; 0 without a GPU."""
    gpus = resources.get("GPU", 0)
    return max(1, int(resources.get("CPU", 0) / gpus)) if gpus else 0


_Groups = Sequence[tuple[str, Sequence[Path | str]]]


def _embed(groups: _Groups, task: _Task, workers: int | None, note: Note) -> None:
    _run(groups, _placed(task), workers, note)


def _run(groups: _Groups, task: _Task, workers: int | None, note: Note) -> None:
    on_gpu = task.device == _CUDA
    resources: dict[str, float] = ray.cluster_resources()
    count = workers or int(resources.get("GPU" if on_gpu else "CPU", 1)) or 1
    ray.data.DataContext.get_current().enable_progress_bars = False
    items = [{"name": name, "paths": pickle.dumps(list(paths))} for name, paths in groups]
    dataset = ray.data.from_items(items, override_num_blocks=min(len(items), _MAX_BLOCKS))
    outcomes = dataset.map_batches(
        _DecodingActor if task.decoders else _Actor,
        batch_size=_groups_at_once(len(items), task.decoders, count),
        fn_constructor_args=(task, os.getcwd()),
        compute=ray.data.ActorPoolStrategy(size=min(count, len(items))),
        num_cpus=max(1, task.decoders),
        num_gpus=1 if on_gpu else 0,
    )
    noted: set[Path | str] = set()
    for row in outcomes.iter_rows():
        outcome: Outcome = pickle.loads(row["outcome"])
        if outcome.path not in noted:  # a group may come twice if an actor died
            noted.add(outcome.path)
            note(outcome)


def _groups_at_once(groups: int, decoders: int, processes: int) -> int:
    """Return the number of groups to give to a process: several to each decoder, if there are."""
    return max(1, min(_GROUPS_PER_DECODER * decoders, groups // processes))


class _Actor:
    """A process of the cluster, with a worker that a bad file may kill."""

    def __init__(self, task: _Task, folder: str) -> None:
        os.chdir(folder)  # relative paths start there
        self._task = task
        self._workers = self._hire()

    def _hire(self) -> Crew:
        return Crew(pickle.dumps(GroupEmbedder(self._task.model)), workers=1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        outcomes: list[bytes] = []
        groups = {
            name: tuple(pickle.loads(paths))
            for name, paths in zip(batch["name"], batch["paths"], strict=True)
        }
        self._embed(groups, lambda outcome: outcomes.append(pickle.dumps(outcome)))
        return {"outcome": outcomes}

    def _embed(self, groups: Mapping[str, tuple[Path | str, ...]], note: Note) -> None:
        for name, paths in groups.items():
            with self._task.parts.new(name) as part:
                self._workers.run([Group(paths, part, self._task.per)], note)


class _DecodingActor(_Actor):
    """A process of the cluster with a GPU, and workers that decode for it."""

    def _hire(self) -> Crew:
        self._model = self._task.model.to(self._task.device)
        return decoding_crew(self._model, self._task.per, self._task.decoders)

    def _embed(self, groups: Mapping[str, tuple[Path | str, ...]], note: Note) -> None:
        per = self._task.per
        wanted = (Group(paths, self._written(name), per) for name, paths in groups.items())
        embed_groups(wanted, self._model, per, note, self._workers)

    @contextmanager
    def _written(self, name: str) -> Iterator[PartWriter]:
        with self._task.parts.new(name) as part, part:
            yield part


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Connect to a running cluster, or start one on this machine for the job."""
    if address is None and ray.is_initialized():
        yield  # the caller's, who may need it further
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address or os.environ.get("RAY_ADDRESS"):
        ray.init(address, **quiet)
    else:
        ray.init(include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
