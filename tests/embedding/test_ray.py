"""Embedding on Ray, with two local processes as the cluster."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import ROOT, noise
from models import CrashingModel, SlowModel

import hear_tune
from hear_tune.audio import files
from hear_tune.cli import main
from hear_tune.common.files import InUseError, sole_use
from hear_tune.embedding.folder import identity_of
from hear_tune.embedding.library import read_library
from hear_tune.embedding.output import part_name
from hear_tune.embedding.rows import StoreError

pytest.importorskip("ray", reason="Ray is not installed")
import psutil

from hear_tune.embedding import ray
from hear_tune.embedding.ray import embed_on_ray

RATE = 22_050


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(files, "GROUP_FILES", 3)


@pytest.fixture
def tracks(tmp_path):
    folder = tmp_path / "tracks"
    folder.mkdir()
    for number in range(11):
        soundfile.write(folder / f"{number:02d}.wav", noise(20_000 + 7_000 * number, number), RATE)
    return folder


@pytest.fixture(scope="module")
def cluster():
    """A cluster that has begun already, whose workers find the classes of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "tests"))
        with ray._cluster(None):
            yield


def assert_same_rows(folder, file):
    found, expected = read_library(folder), read_library(file)
    assert found.paths == expected.paths
    assert found.identity == expected.identity
    np.testing.assert_array_equal(found.start, expected.start)
    np.testing.assert_array_equal(found.end, expected.end)
    np.testing.assert_allclose(found.vectors, expected.vectors, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_rows_are_those_of_the_local_engine(small_model, tracks, tmp_path):
    (tracks / "04.wav").write_text("no sound")
    local = hear_tune.embed_folder([tracks], tmp_path / "local.parquet", small_model, "window")
    out = tmp_path / "out"
    report = embed_on_ray([tracks], str(out), small_model, "window", workers=2)
    assert (report.embedded, report.failed) == (local.embedded, local.failed)
    assert report.seconds == pytest.approx(local.seconds)
    assert_same_rows(out, tmp_path / "local.parquet")
    again = embed_on_ray([tracks], str(out), small_model, "window", workers=2)
    assert (again.embedded, again.skipped, list(again.failed)) == (0, 10, list(local.failed))
    soundfile.write(tracks / "new.wav", noise(9_000), RATE)
    more = embed_on_ray([tracks], str(out), small_model, "window", workers=1)
    assert (more.embedded, more.skipped) == (1, 10)
    with pytest.raises(StoreError, match=r"begun with .*per 'window', not 'track'"):
        embed_on_ray([tracks], str(out), small_model)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_decoders_for_a_gpu(small_model, tracks, tmp_path):
    """With the CPU as the device."""
    (tracks / "04.wav").write_text("no sound")
    hear_tune.embed_folder([tracks], tmp_path / "local.parquet", small_model, "window")
    parts = ray._Parts(str(tmp_path / "out"), identity_of(small_model, "window"))
    task = ray._Task(parts, small_model, "window", "cpu", decoders=2)
    names = enumerate(files.group_files(sorted(tracks.iterdir())))
    outcomes = []
    groups = [(part_name(number, set()), paths) for number, paths in names]
    ray._run(groups, task, 1, outcomes.append)
    assert len(outcomes) == 11
    assert [outcome.path.name for outcome in outcomes if outcome.error] == ["04.wav"]
    assert_same_rows(tmp_path / "out", tmp_path / "local.parquet")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_file_that_kills_its_worker_is_named(small_model, tracks, tmp_path):
    soundfile.write(tracks / "05.wav", np.full(20_000, 0.25), RATE)
    model = CrashingModel(small_model.encoder)
    report = embed_on_ray([tracks], str(tmp_path / "out"), model, workers=2)
    assert report.failed == {
        str(tracks / "05.wav"): "the process that decoded it was killed by SIGSEGV"
    }
    assert report.embedded == 10
    assert len(read_library(tmp_path / "out").paths) == 10


@pytest.mark.slow
@pytest.mark.usefixtures("tracks")
def test_the_command_killed_and_started_again(small_model, tmp_path, monkeypatch):
    """kill -9 of the program; relative paths, a pattern, and a URL of the output."""
    checkpoint = tmp_path / "small.safetensors"
    hear_tune.save_checkpoint(small_model.encoder, checkpoint)
    model = hear_tune.load_model(checkpoint)
    monkeypatch.chdir(tmp_path)
    hear_tune.embed_folder(["tracks"], tmp_path / "local.parquet", model)
    program = (
        "import sys; from hear_tune.audio import files; files.GROUP_FILES = 1; "
        "from hear_tune.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "out"
    arguments = ["tracks/*.wav", "-o", f"file://{out}", "--model", str(checkpoint)]
    arguments += ["--engine", "ray", "--workers", "1"]
    process = subprocess.Popen([sys.executable, "-c", program, "embed", *arguments])
    while len(list(out.glob("*.parquet"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(["embed", *arguments]) == 0
    assert sorted(read_library(out).paths) == read_library(tmp_path / "local.parquet").paths
    assert not list(out.glob("*.partial*"))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_worker_that_is_killed_costs_nothing(small_model, tracks, tmp_path):
    """kill -9 of an actor: its groups go to another one."""
    out, killed = tmp_path / "out", []

    def kill_one():
        while not list(out.glob("*.parquet")):
            time.sleep(0.01)
        actors = [p for p in psutil.Process().children(recursive=True) if is_actor(p)]
        killed.extend(actors[:1])
        actors[0].kill()

    thread = threading.Thread(target=kill_one)
    thread.start()
    slow = SlowModel(small_model.encoder)
    report = embed_on_ray([tracks], str(out), slow, workers=2)
    thread.join()
    assert killed
    assert (report.embedded, report.failed) == (11, {})
    assert len(read_library(out).paths) == 11


def is_actor(process):
    return any("MapWorker" in word for word in process.cmdline())


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_music_in_an_object_store(small_model, tracks, tmp_path):
    """Local files by URL: the same code reads buckets."""
    found = files.find_audio([f"file://{tracks}", f"file://{tracks}/0*.wav"])
    assert found.paths == [f"file://{path}" for path in sorted(tracks.iterdir())]
    report = embed_on_ray([f"file://{tracks}"], str(tmp_path / "out"), small_model, workers=1)
    assert report.embedded == 11
    assert ray.ray.is_initialized()  # the cluster that was there before stays
    assert read_library(tmp_path / "out").paths == found.paths
    hear_tune.embed_folder([tracks], tmp_path / "local.parquet", small_model)
    expected = read_library(tmp_path / "local.parquet").vectors
    np.testing.assert_allclose(
        read_library(tmp_path / "out").vectors, expected, rtol=1e-4, atol=1e-6
    )


def test_two_programs_cannot_write_one_output(small_model, tracks, tmp_path):
    with (
        sole_use(tmp_path / "out", "writing it"),
        pytest.raises(InUseError, match="another process is writing it"),
    ):
        embed_on_ray([tracks], str(tmp_path / "out"), small_model)


def test_wrong_options(small_model, tracks, tmp_path, capsys):
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda"):
        embed_on_ray([tracks], str(tmp_path / "out"), small_model, device="mps")
    (tmp_path / "other").mkdir()
    pq.write_table(pq.read_table(make_parquet(tmp_path)), tmp_path / "other" / "mine.parquet")
    with pytest.raises(StoreError, match="was not written by hear-tune"):
        embed_on_ray([tracks], str(tmp_path / "other"), small_model)
    options = ["embed", str(tracks), "-o", str(tmp_path / "out"), "--engine", "ray", "--overwrite"]
    assert main(options) == 2
    assert "remove it to embed anew" in capsys.readouterr().err


def make_parquet(folder):
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1]}), folder / "any.parquet")
    return folder / "any.parquet"
