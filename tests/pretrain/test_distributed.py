"""Training by torchrun, with two processes in place of two machines."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import soundfile
import torch
from conftest import tone
from safetensors import safe_open

from hear_tune.pretrain.pcm_store import build_store
from hear_tune.pretrain.tar_shards import write_shards

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without processes"),
]

PROCESSES, STEPS = 2, 12
BATCH = 4  # of each


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Four shards of eight clips."""
    folder = tmp_path_factory.mktemp("streamed")
    (folder / "music").mkdir()
    for number in range(8):
        soundfile.write(folder / f"music/{number}.wav", tone(200 + 50 * number, 60_000), 22_050)
    build_store([folder / "music"], folder / "store", workers=1)
    write_shards([folder / "store"], folder / "shards", 0.7, 8, workers=1)
    return folder / "shards" / "shards.json"


@pytest.fixture
def launch(shards, tmp_path):
    """Return a function that starts `hear-tune pretrain` on the shards by torchrun."""

    def start(name, max_steps):
        settings = {
            "data.audio": f"['{shards}']",
            "data.batch_size": BATCH,
            "data.crop_samples": 2187,
            "model.variant": "tune-vanilla-small",
            "model.average_decay": 0.9,
            "trainer.accelerator": "cpu",
            "trainer.devices": PROCESSES,
            "trainer.strategy": "ddp",
            "trainer.max_steps": max_steps,
            "trainer.callbacks+": "rank_probe.SaveRank",
            "trainer.callbacks.folder": tmp_path / name / "ranks",
            "checkpoint_every": 1_000,
            "output": tmp_path / name,
        }
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(PROCESSES), "-m", "hear_tune.cli", "pretrain"]
        return subprocess.Popen(
            [*command, *(f"--{option}={value}" for option, value in settings.items())],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )

    return start


def finish(process):
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output


def states(run):
    """Weights of the module on each rank."""
    return [torch.load(run / f"ranks/{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


def steps(run):
    """Number of steps on each rank."""
    files = [run / f"ranks/{rank}.step" for rank in range(PROCESSES)]
    return [int((file.exists() and file.read_text()) or 0) for file in files]


def assert_same(one, other, left_out="nothing"):
    for name, tensor in one.items():
        if left_out not in name:
            torch.testing.assert_close(tensor, other[name], rtol=0, atol=0, msg=name)


def test_all_ranks_keep_the_same_weights_and_average(launch, tmp_path):
    finish(launch("run", STEPS))
    assert steps(tmp_path / "run") == [STEPS] * PROCESSES
    first, second = states(tmp_path / "run")
    # each has statistics of its own: torch synchronises normalisation on GPUs only
    assert_same(first, second, left_out="running_")
    weights, average = "encoder.tail.4.conv.weight", "average.module.tail.4.conv.weight"
    assert (first[weights] != first[average]).any()
    with safe_open(tmp_path / "run/last.safetensors", "pt") as file:
        record = json.loads(file.metadata()["hear_tune"])["training"]
        assert record["pairs"] == STEPS * BATCH * PROCESSES
        torch.testing.assert_close(file.get_tensor("tail.4.conv.weight"), first[average])


def test_interrupted_and_started_again(launch, tmp_path):
    """One process gets the signal first: all stop after the same step, and resume there."""
    finish(launch("whole", STEPS))
    broken = launch("broken", STEPS)
    while min(steps(tmp_path / "broken")) < 2:
        assert broken.poll() is None, broken.stdout.read()
        time.sleep(0.02)
    os.kill(int((tmp_path / "broken/ranks/1.pid").read_text()), signal.SIGINT)
    output, _ = broken.communicate(timeout=90)
    assert "interrupted" in output
    reached = steps(tmp_path / "broken")
    assert reached[0] == reached[1] < STEPS
    assert (tmp_path / "broken/last.ckpt").exists()
    finish(launch("broken", STEPS))
    for whole, broken_state in zip(
        states(tmp_path / "whole"), states(tmp_path / "broken"), strict=True
    ):
        assert_same(whole, broken_state, left_out="running_")
