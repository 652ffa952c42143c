"""Peers of recipes/hear as HEAR modules."""

import importlib

import numpy as np
import pytest
import torch
from conftest import ROOT, noise, tone

PEERS = [
    ("crepe", "torchcrepe", {"capacity": "tiny"}),
    ("resemblyzer", "resemblyzer", {}),
]


@pytest.fixture
def load(monkeypatch):
    """Loads a peer where its package is installed."""
    monkeypatch.syspath_prepend(ROOT / "recipes" / "hear")

    def load(name, package, options):
        pytest.importorskip(package)
        module = importlib.import_module(f"peers.{name}")
        return module, module.load_model(**options)

    return load


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer[0])
def test_peers_pass_the_checks_of_the_validator(load, peer):
    module, model = load(*peer)
    assert isinstance(model, torch.nn.Module)
    assert not any(part.training for part in model.modules())
    audio = torch.from_numpy(np.stack([noise(20_000, seed) for seed in range(2)]))
    scenes = module.get_scene_embeddings(audio, model)
    assert scenes.shape == (2, model.scene_embedding_size)
    embeddings, timestamps = module.get_timestamp_embeddings(audio, model)
    assert embeddings.shape == (*timestamps.shape, model.timestamp_embedding_size)
    assert scenes.dtype == embeddings.dtype == torch.float32
    assert not scenes.requires_grad
    assert not embeddings.requires_grad
    assert timestamps.diff(dim=1).max() <= 50
    assert timestamps.max() <= 1000 * 20_000 / model.sample_rate
    for clip, scene in zip(audio, scenes, strict=True):
        alone = module.get_scene_embeddings(clip[None], model)[0]
        torch.testing.assert_close(alone, scene, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer[0])
def test_peers_embed_silence_and_refuse_checkpoints(load, peer):
    module, model = load(*peer)
    assert module.get_scene_embeddings(torch.zeros(1, 16_000), model).isfinite().all()
    with pytest.raises(ValueError, match=r"weights\.pt: give no checkpoint"):
        module.load_model("weights.pt")


def test_crepe_embeds_pitch(load):
    """Tones of one pitch are nearest to each other, whatever their level."""
    module, model = load(*PEERS[0])
    tones = [level * tone(f, 16_000, 16_000) for f in (220, 311) for level in (1.0, 0.2)]
    scenes = module.get_scene_embeddings(torch.from_numpy(np.stack(tones)).float(), model)
    distances = torch.cdist(scenes, scenes) + 1e6 * torch.eye(4)
    assert distances.argmin(dim=1).tolist() == [1, 0, 3, 2]


def test_the_speaker_encoder_hears_no_level(load):
    module, model = load(*PEERS[1])
    sound = torch.from_numpy(noise(20_000))[None]
    quiet, quieter = (
        module.get_scene_embeddings(sound * level, model) for level in (0.001, 0.0005)
    )
    torch.testing.assert_close(quiet, quieter, rtol=1e-3, atol=1e-4)
