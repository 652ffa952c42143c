"""Every long command, interrupted in any way and repeated, gives the uninterrupted result."""

import contextlib
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import noise, tone

import hear_tune
from hear_tune.audio import files
from hear_tune.cli import EXIT_ERROR, EXIT_INTERRUPTED, main
from hear_tune.embedding.workers import Crew, Outcome
from hear_tune.pretrain.pcm_store import AudioStore, build_store

pytestmark = pytest.mark.slow
RATE = 22_050
TRACKS = 18
BREAKS = 4  # of each kind
VARIANT = ["--variant", "tune-vanilla-small"]
EMBED = ["parquet", "npy", "h5"]
COMMANDS = [*EMBED, "store", "shards", "convert", "probe", "map", "report", "pretrain"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Music in two classes, a store of it, embeddings, a checkpoint and a result of a probe."""
    root = tmp_path_factory.mktemp("inputs")
    for number in range(TRACKS):
        label = root / "music" / ("low", "high")[number % 2]
        label.mkdir(parents=True, exist_ok=True)
        sound = tone(200 + 2000 * (number % 2), 60_000) + 0.2 * noise(60_000, number)
        soundfile.write(label / f"{number:02d}.flac", sound, RATE)
    build_store([root / "music"], root / "store", workers=1)
    encoder = hear_tune.load_model(variant="tune-vanilla-small").encoder
    hear_tune.save_checkpoint(encoder, root / "x.safetensors")
    music = str(root / "music")
    assert main(["embed", music, "-o", str(root / "x.parquet"), *VARIANT]) == 0
    assert main(["probe", music, *VARIANT, "-o", str(root / "probe"), *cached(root)]) == 0
    return root


def cached(root):
    return ["--cache", str(root / "cache")]


def arguments(name, inputs, out):
    """A command that writes into the folder `out`."""
    music, store, one = inputs / "music", inputs / "store", ["--workers", "1"]
    pretrain = {
        "data.audio": f'["{store}"]',
        "data.batch_size": 4,
        "data.crop_samples": 2187,
        "model.variant": VARIANT[1],
        "trainer.max_steps": 30,
        "trainer.accelerator": "cpu",
        "checkpoint_every": 3,
        "output": f"{out}/run",
    }
    cut = ["--clips-per-shard", 3, "--clip-seconds", 1]
    words = {
        "parquet": ["embed", music, "-o", f"{out}/x.parquet", "--per", "window", *VARIANT],
        "npy": ["embed", music, "-o", f"{out}/x.npy", *VARIANT],
        "h5": ["embed", music, "-o", f"{out}/x.h5", "--per", "timestamp", *VARIANT],
        "store": ["store", music, "-o", f"{out}/store", *one],
        "shards": ["shards", store, "-o", f"{out}/s", *cut, *one],
        "convert": ["convert", f"{inputs}/x.safetensors", "-o", f"{out}/y.safetensors", "--half"],
        "probe": ["probe", music, *VARIANT, "-o", f"{out}/probe", *cached(out)],
        "map": ["map", f"{inputs}/x.parquet", "-o", f"{out}/map.html", "--projection", "pca"],
        "report": ["report", f"{inputs}/probe", "-o", f"{out}/report.html"],
        "pretrain": ["pretrain", *(f"--{key}={value}" for key, value in pretrain.items())],
    }
    return [str(word) for word in words[name]]


def results(folder):
    """Files that a command has written, in a comparable form."""
    import h5py

    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        killed = path.suffix == ".partial"
        if killed or "/logs/" in name or path.name in ("lock", "last.ckpt", "metrics.csv"):
            continue
        match path.suffix:
            case ".parquet":
                found[name] = pq.read_table(path).to_pydict()
            case ".h5":
                with h5py.File(path) as file:
                    found[name] = {key: file[key][:].tolist() for key in file}
            case ".pcm":
                continue
            case ".safetensors":
                state = hear_tune.load_checkpoint(path).state_dict()
                found[name] = {key: tensor.tolist() for key, tensor in state.items()}
            case _:
                found[name] = path.read_bytes()
    if (folder / "store").is_dir():
        found = {t.path: t.crc32 for t in AudioStore(folder / "store").tracks}
        assert AudioStore(folder / "store").verify() == []
    return found


def work(argv, said=os.devnull, file_bytes=resource.RLIM_INFINITY):
    """Run a command that cannot write larger files."""
    os.setpgid(0, 0)
    files.GROUP_FILES = 3
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
    sys.exit(main(argv))


@pytest.fixture(scope="module")
def context():
    """Processes that start with all imports done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_interruptions", "hear_tune.cli.pretrain"])
    return context


@pytest.mark.parametrize("name", COMMANDS)
def test_broken_off_at_random(name, inputs, tmp_path, context):
    rng = random.Random(name)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    parts.mkdir()

    def start(out):
        process = context.Process(target=work, args=(arguments(name, inputs, out),))
        process.start()
        return process

    for _ in range(2):  # the first one waits for the imports
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        begin = time.monotonic()
        start(whole).join()
        duration = time.monotonic() - begin
    expected = results(whole)
    assert expected
    codes = []
    while len(codes) < 2 * BREAKS and 0 not in codes:
        process = start(parts)
        process.join(rng.uniform(0, 0.8 * duration))
        if len(codes) % 2 == 0:
            process.kill()
        elif process.is_alive():  # as Ctrl-C does, to it and its workers
            with contextlib.suppress(ProcessLookupError):  # it has just begun
                os.killpg(process.pid, signal.SIGINT)
        process.join(60)
        codes.append(process.exitcode)
    process = start(parts)
    process.join(300)
    print(f"{name}: {duration:.1f} s, exit codes {codes}, {process.exitcode}")
    # only Parquet is extended: other output that is complete is refused
    assert process.exitcode in ((0, EXIT_ERROR) if name in ("npy", "h5") else (0,))
    assert results(parts) == expected
    assert set(codes) <= {0, 1, EXIT_INTERRUPTED, -signal.SIGKILL}


@pytest.mark.parametrize("name", [*EMBED, "store", "shards", "convert", "map"])
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_disk_that_is_too_small(name, inputs, tmp_path, context, share):
    """The error is one line, and with more room the same command goes on."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    work_whole = context.Process(target=work, args=(arguments(name, inputs, whole),))
    work_whole.start()
    work_whole.join()
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    said = tmp_path / "said"
    limit = int(share * largest)
    argv = arguments(name, inputs, parts)
    process = context.Process(target=work, args=(argv, said, limit))
    process.start()
    process.join(300)
    text = said.read_text()
    assert process.exitcode == EXIT_ERROR, text
    assert name == "h5" or "Traceback" not in text  # h5py prints some
    assert "File too large" in text
    assert str(parts) in text
    process = context.Process(target=work, args=(argv,))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    assert results(parts) == results(whole)


@dataclass
class Job:
    paths: tuple[str, ...] = ("x",)

    def without(self, path):
        raise NotImplementedError


def hold_a_worker(connection):
    with Crew(pickle.dumps(tell_and_sleep), 1) as crew:
        crew.run([Job()], lambda outcome: connection.send(outcome.error))


def tell_and_sleep(job, note):
    note(Outcome(*job.paths, error=str(os.getpid())))
    time.sleep(600)


def test_workers_end_with_a_killed_command(context):
    ours, theirs = context.Pipe()
    process = context.Process(target=hold_a_worker, args=(theirs,))
    process.start()
    worker = Path(f"/proc/{ours.recv()}/cmdline")
    assert worker.read_bytes()
    process.kill()
    end = time.monotonic() + 60
    while worker.exists() and worker.read_bytes():  # none of a zombie's
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def read_only(tmp_path):
    """A folder of a file system that cannot be written."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs leave to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_cannot_be_written(name, inputs, read_only, tmp_path, context):
    argv, said = arguments(name, inputs, read_only), tmp_path / "said"
    process = context.Process(target=work, args=(argv, said))
    process.start()
    process.join(300)
    text = said.read_text()
    assert process.exitcode == EXIT_ERROR, text
    assert "Traceback" not in text
    assert str(read_only) in text
    assert "Read-only file system" in text
