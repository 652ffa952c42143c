"""musicnn reproduces the numbers of its authors' package."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, noise

from hear_tune import EmbeddingModel
from hear_tune.baselines import musicnn as module
from hear_tune.baselines.musicnn import Musicnn, MusicnnNetwork
from hear_tune.checkpoints import CheckpointError
from hear_tune.networks.config import WINDOW_SAMPLES

REFERENCE = json.loads((ROOT / "tests/fixtures/musicnn_reference.json").read_text())
SECONDS = 7


@pytest.fixture(scope="module")
def encoder():
    return Musicnn()


def plucked(rate):
    """The signal of fixtures/make_musicnn_reference.py."""
    time = np.arange(SECONDS * rate) / rate
    phase = 2 * np.pi * (220 * time + 15 * time**2)
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 9))
    return (0.1 * harmonics * np.exp(-4 * (time % 0.5))).astype(np.float32)


def test_tags_are_those_of_the_original(encoder):
    tags = encoder.taggram(plucked(module.RATE_HZ))
    np.testing.assert_allclose(tags, REFERENCE["tags"], rtol=0, atol=2e-6)
    rounded = REFERENCE["tags_in_half_precision"]
    np.testing.assert_allclose(tags, rounded, rtol=0, atol=1e-4)


def test_less_than_a_patch_is_refused(encoder):
    shortest = 256 * (module.PATCH_FRAMES - 1)
    assert encoder.taggram(noise(shortest)).shape == (1, 50)
    with pytest.raises(ValueError, match="less than a patch of 3 s"):
        encoder.taggram(noise(shortest - 1))


def test_timestamps_are_interpolated_between_windows(encoder):
    audio = torch.from_numpy(noise(2 * WINDOW_SAMPLES))
    model = EmbeddingModel(encoder)
    (stamps,) = model.embed_timestamps(audio[None])
    first, second = model.embed_windows(audio.reshape(2, -1))
    assert stamps.shape == (2 * 81, 200)
    torch.testing.assert_close(stamps[0], first)
    torch.testing.assert_close(stamps[-1], second)


def test_penultimate_features_are_those_of_the_original(encoder):
    log_mel = encoder.log_mel(torch.from_numpy(plucked(module.RATE_HZ))[None])
    with torch.no_grad():
        found = encoder.network(log_mel[:, : module.PATCH_FRAMES])["penultimate"]
    np.testing.assert_allclose(found[0], REFERENCE["penultimate"][0], rtol=0, atol=1e-4)


def test_windows_at_the_encoders_rate_are_tagged_alike(encoder):
    """Resampled, and with 2.68 s instead of 3, the probabilities change little."""
    audio = torch.from_numpy(plucked(22_050)[:WINDOW_SAMPLES])
    (tags,) = EmbeddingModel(encoder, "tags").embed_windows(audio[None])
    np.testing.assert_allclose(tags, REFERENCE["tags"][0], rtol=0, atol=0.03)


def test_penultimate_embeds_and_other_layers_have_names(encoder):
    audio = torch.from_numpy(noise(2 * 2 * WINDOW_SAMPLES)).reshape(2, -1)
    model = EmbeddingModel(encoder)
    assert model.layers == ["penultimate"]
    assert model.embed_windows(audio[:, :WINDOW_SAMPLES]).shape == (2, 200)
    with torch.no_grad():
        features = encoder.features(audio[:, None], ["pooled", "penultimate", "tags"])
    assert {name: tuple(f.shape) for name, f in features.items()} == {
        "pooled": (2, 1506, 2),
        "penultimate": (2, 200, 2),
        "tags": (2, 50, 2),
    }
    alone = model.embed_windows(audio[:1, WINDOW_SAMPLES:])
    torch.testing.assert_close(alone[0], features["penultimate"][0, :, 1])


def test_pooled_features_are_maxima_and_means():
    torch.manual_seed(0)
    with torch.no_grad():
        pooled = MusicnnNetwork().eval()(torch.rand(1, 20, module.MEL_BANDS))["pooled"]
    maxima, means = pooled[0].reshape(-1, 2).T
    assert (maxima >= means).all()
    assert (maxima > means).any()


def test_silence_is_finite(encoder):
    silence = torch.zeros(1, WINDOW_SAMPLES)
    assert torch.isfinite(EmbeddingModel(encoder, "all").embed_windows(silence)).all()


def test_damaged_weights_are_refused(monkeypatch, tmp_path):
    weights = tmp_path / "musicnn.safetensors"
    weights.write_bytes(module.MUSICNN.path.read_bytes()[:-1] + b"\0")
    damaged = SimpleNamespace(path=weights, sha256=module.MUSICNN.sha256)
    monkeypatch.setattr(module, "MUSICNN", damaged)
    with pytest.raises(CheckpointError, match=r"musicnn\.safetensors: its sha256 is"):
        Musicnn()


def test_the_licence_comes_with_the_weights():
    licence = module.MUSICNN.path.with_suffix(".LICENSE").read_text()
    assert "Copyright (c) Music Technology Group, Universitat Pompeu Fabra" in licence
    assert "Permission to use, copy, modify, and/or distribute" in licence
