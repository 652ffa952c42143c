"""Output of the Ray engine and its lock, without a cluster."""

import importlib
import os
import pickle
import sys
import types
from contextlib import nullcontext
from importlib.util import find_spec

import fsspec
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import noise

from hear_tune.common.files import InUseError
from hear_tune.embedding import object_lock
from hear_tune.embedding.folder import identity_of
from hear_tune.embedding.groups import Group, embed_group
from hear_tune.embedding.object_lock import sole_use_of_store

MODULE = "hear_tune.embedding.ray"
HAS_RAY = find_spec("ray") is not None


@pytest.fixture
def engine(monkeypatch, small_model):
    """The engine in this process, even if Ray is not installed."""
    if not HAS_RAY:
        ray = types.ModuleType("ray")
        ray.data = types.ModuleType("ray.data")
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    module = importlib.import_module(MODULE)

    def embed(groups, task, _, note):
        for name, paths in groups:
            with task.parts.new(name) as part:
                embed_group(Group(tuple(paths), part, task.per), small_model, note)

    monkeypatch.setattr(module, "_embed", embed)
    monkeypatch.setattr(module, "_cluster", lambda _: nullcontext())
    yield module
    if not HAS_RAY:
        del sys.modules[MODULE]


@pytest.fixture(params=["disk", "memory"])
def output(request, tmp_path):
    if request.param == "disk":
        yield str(tmp_path / "out")
        return
    yield f"memory://{tmp_path.name}/out"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def music(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        for number in range(3):
            soundfile.write(tmp_path / folder / f"{number}.wav", noise(9_000), 22_050)
    return tmp_path


def names_in(output):
    store, root = fsspec.core.url_to_fs(output)
    names = []
    for path in store.glob(f"{root}/*.parquet"):
        with store.open(path, "rb") as file:
            names += [name[-7:] for name in pq.read_table(file)["path"].to_pylist()]
    return sorted(names)


def test_a_program_that_ends_while_another_begins_loses_no_rows(
    engine, small_model, music, output, monkeypatch
):
    locked = engine._Parts.locked
    others = [music / "a"]

    def locked_after_the_other(parts):
        if others:
            engine.embed_on_ray([others.pop()], output, small_model)
        return locked(parts)

    monkeypatch.setattr(engine._Parts, "locked", locked_after_the_other)
    report = engine.embed_on_ray([music / "b"], output, small_model)
    assert report.embedded == 3
    assert names_in(output) == [f"{folder}/{n}.wav" for folder in "ab" for n in range(3)]


def test_two_programs_cannot_write_one_output(engine, small_model, music, output):
    parts = engine._Parts(output, {})
    with parts.locked(), pytest.raises(InUseError, match=r"another \w+ is writing it"):
        engine.embed_on_ray([music / "a"], output, small_model)
    assert engine.embed_on_ray([music / "a"], output, small_model).embedded == 3


# --- GPUs ---


def test_a_process_with_a_gpu_embeds_groups_that_its_decoders_read(
    engine, small_model, music, output
):
    """With the CPU as its device; a bad file is reported, and each group has a part."""
    (music / "a" / "1.wav").write_text("no sound")
    parts = engine._Parts(output, identity_of(small_model, "track"))
    task = engine._Task(parts, small_model, "track", "cpu", decoders=2)
    groups = {f"{n}.parquet": sorted((music / "ab"[n]).iterdir()) for n in (0, 1)}
    actor = engine._DecodingActor(task, os.getcwd())
    with actor._workers:
        batch = {"name": list(groups), "paths": list(map(pickle.dumps, groups.values()))}
        outcomes = [pickle.loads(outcome) for outcome in actor(batch)["outcome"]]
    assert sorted(outcome.path for outcome in outcomes) == [
        *groups["0.parquet"],
        *groups["1.parquet"],
    ]
    assert [outcome.path.name for outcome in outcomes if outcome.error] == ["1.wav"]
    assert names_in(output) == ["a/0.wav", "a/2.wav", "b/0.wav", "b/1.wav", "b/2.wav"]
    assert len(parts._store.glob(f"{parts._root}/*")) == 2


CPU_ONLY = {"CPU": 64.0}


@pytest.mark.parametrize(
    ("device", "machines", "expected"),
    [
        ("auto", [CPU_ONLY], ("cpu", 0)),
        ("auto", [CPU_ONLY, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 6.0, "GPU": 1.0}], ("cuda", 6)),
        ("cpu", [{"CPU": 16.0, "GPU": 2.0}], ("cpu", 0)),
        ("cuda", [{"CPU": 1.0, "GPU": 4.0}], ("cuda", 1)),
    ],
)
def test_decoders_of_a_gpu_are_its_share_of_the_cores(
    engine, small_model, monkeypatch, device, machines, expected
):
    nodes = [{"Resources": resources, "Alive": True} for resources in machines]
    dead = {"Resources": {"CPU": 1.0, "GPU": 1.0}, "Alive": False}
    monkeypatch.setattr(engine.ray, "nodes", lambda: [*nodes, dead], raising=False)
    task = engine._placed(engine._Task(None, small_model, "track", device))
    assert (task.device, task.decoders) == expected


@pytest.mark.parametrize(
    ("groups", "decoders", "processes", "expected"),
    [(100, 0, 2, 1), (100, 8, 2, 32), (10, 8, 2, 5), (1, 8, 2, 1)],
)
def test_every_gpu_and_decoder_gets_groups(engine, groups, decoders, processes, expected):
    assert engine._groups_at_once(groups, decoders, processes) == expected


# --- Object stores ---


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An object store, with the state of one machine."""
    change_machine(tmp_path / "here", monkeypatch)
    store = fsspec.filesystem("memory")
    yield store
    store.store.clear()


def change_machine(folder, monkeypatch):
    monkeypatch.setattr(object_lock, "_folder_here", lambda _: folder)


def lock(store):
    return sole_use_of_store(store, "/bucket/out", "writing it")


def test_another_machine_is_kept_out(store, tmp_path, monkeypatch):
    with lock(store):
        change_machine(tmp_path / "there", monkeypatch)
        with pytest.raises(InUseError, match=r"if none is, remove memory:///?bucket/out/lock"):
            lock(store).__enter__()
        change_machine(tmp_path / "here", monkeypatch)
    change_machine(tmp_path / "there", monkeypatch)
    with lock(store):
        pass
    assert not store.exists("/bucket/out/lock")


def test_a_killed_program_is_followed_by_another_of_its_machine(store, tmp_path, monkeypatch):
    with lock(store):
        left = store.cat_file("/bucket/out/lock")
    store.pipe_file("/bucket/out/lock", left)  # as if it had been killed
    change_machine(tmp_path / "there", monkeypatch)
    with pytest.raises(InUseError):
        lock(store).__enter__()
    change_machine(tmp_path / "here", monkeypatch)
    with lock(store):
        pass
    assert not store.exists("/bucket/out/lock")


def test_a_store_without_conditional_writes(store, tmp_path, monkeypatch):
    plain_open = type(store).open

    def no_exclusive(self, path, mode="rb", **options):
        if "x" in mode:
            raise NotImplementedError("File mode not supported")
        return plain_open(self, path, mode, **options)

    monkeypatch.setattr(type(store), "open", no_exclusive)
    monkeypatch.setattr(type(store), "pipe_file", plain_pipe)
    with lock(store):
        change_machine(tmp_path / "there", monkeypatch)
        with pytest.raises(InUseError):
            lock(store).__enter__()


def plain_pipe(self, path, value, **_):
    with self.open(path, "wb") as file:
        file.write(value)
