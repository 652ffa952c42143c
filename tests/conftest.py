"""Signals, models and paths of real recordings for several test modules."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import hear_tune

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"

if Path(hear_tune.__file__).parents[1] != ROOT:
    pytest.exit(f"hear_tune comes from {Path(hear_tune.__file__).parent}: pip install -e {ROOT}", 2)

RUNNERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
THREADS = int(os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // RUNNERS))


@pytest.fixture(scope="session", autouse=True)
def threads():
    """Give programs that tests start as many threads as here, for equal sums.

    Parallel test runners share the cores, all of which torch would give to each. This is a fixture
    because xdist's controller, whose environment the runners inherit, runs none.
    """
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    torch.set_num_threads(THREADS)


@pytest.fixture
def shared_data():
    """The folder of real recordings beside a checkout of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"no real recordings at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def model():
    """Untrained tune+, in evaluation mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hear_tune.UntrainedWarning)
        return hear_tune.load_model(variant="tune+")


@pytest.fixture(scope="session")
def small_model():
    """A fast encoder whose coarsest stride is below that of timestamps."""
    torch.manual_seed(0)
    config = hear_tune.TuneConfig(2, contractive=2, expansive=2, tail=3, embedding_size=8)
    return hear_tune.EmbeddingModel(hear_tune.build_encoder(config))


def noise(samples, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def tone(frequency, samples, rate=22_050):
    return (0.4 * np.sin(2 * np.pi * frequency * np.arange(samples) / rate)).astype(np.float32)


@pytest.fixture
def music(tmp_path):
    """A folder of small audio files of several formats, rates and channel counts."""
    folder = tmp_path / "music"
    (folder / "deeper").mkdir(parents=True)
    soundfile.write(folder / "a.wav", noise(70_000), 22_050)
    soundfile.write(folder / "b.flac", noise(30_000, 1), 22_050)
    soundfile.write(folder / "deeper" / "c.ogg", np.stack([tone(440, 60_000)] * 2, 1), 44_100)
    soundfile.write(folder / "deeper" / "d.mp3", tone(220, 40_000), 22_050)
    (folder / "notes.txt").write_text("not audio")
    return folder


@pytest.fixture
def library(tmp_path):
    """A folder of 23 clips, of up to four windows."""
    folder = tmp_path / "library"
    folder.mkdir()
    for number in range(23):
        samples = noise(15_000 + 9_000 * number, number)
        soundfile.write(folder / f"{number:02d}.wav", samples, 22_050)
    return folder
