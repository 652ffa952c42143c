"""The weights in the package."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noise, tone

import hear_tune
from hear_tune.checkpoints.pretrained import load_encoder
from hear_tune.cli import main
from hear_tune.weights import DEFAULT_PRETRAINED, FORMER_NAMES


@pytest.mark.parametrize("row", hear_tune.PRETRAINED.values(), ids=lambda row: row.name)
def test_files_are_those_of_the_registry(row):
    encoder = load_encoder(row.name)
    assert row.name.startswith(hear_tune.load_checkpoint(row.path).identity.split(" ")[0])
    assert encoder.training_record["steps"] > 0
    assert row.path.stat().st_size < 9e6
    with pytest.raises(hear_tune.CheckpointError, match="its sha256 is"):
        load_encoder(row.name, sha256="00")


@pytest.mark.parametrize("name", FORMER_NAMES)
def test_former_names_warn_and_give_what_replaced_them(name):
    with pytest.warns(
        FutureWarning, match=rf"tune\+-free.* replaced by {re.escape(DEFAULT_PRETRAINED)}"
    ):
        encoder = load_encoder(name)
    assert encoder.identity == load_encoder(DEFAULT_PRETRAINED).identity
    with pytest.warns(FutureWarning):
        assert hear_tune.load_model(name).layers == hear_tune.load_model().layers


def test_a_variant_is_no_name_of_weights():
    with pytest.raises(
        FileNotFoundError, match=r"tune\+-acoustic; random weights: variant='tune\+'"
    ):
        load_encoder("tune+")


def test_they_are_converted_by_name(tmp_path):
    output = str(tmp_path / "x.safetensors")
    assert main(["convert", DEFAULT_PRETRAINED, "-o", output, "--no-whitening"]) == 0
    converted = hear_tune.load_model(output)
    assert converted.layers == hear_tune.load_model(whitened=False).layers


def test_they_are_the_default():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = hear_tune.load_model()
    assert model.identity == load_encoder(DEFAULT_PRETRAINED).identity
    assert model.identity == hear_tune.load_model(DEFAULT_PRETRAINED).identity
    assert model.window_samples == model.encoder.training_record["crop_samples"]
    assert not any(module.training for module in model.modules())


def test_a_folder_may_be_named_like_them(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.encoder.save_pretrained(DEFAULT_PRETRAINED)
    packaged = load_encoder(DEFAULT_PRETRAINED).identity
    assert hear_tune.load_model(DEFAULT_PRETRAINED).identity == packaged
    for path in (Path(DEFAULT_PRETRAINED), f"./{DEFAULT_PRETRAINED}"):
        assert hear_tune.load_model(path).identity == model.identity


def test_a_wrong_name_leads_to_the_right_ones():
    with pytest.raises(FileNotFoundError, match=r"^tune\+: no such .* package: tune\+-"):
        hear_tune.load_model("tune+")


def test_batch_statistics_fit_the_weights():
    """With music at its usual level, no channel of the embedding explodes and few are dead."""
    model = hear_tune.load_model(whitened=False)
    sounds = [harmonics(110 * 2 ** (n / 2)) * (0.05 + 0.05 * n) for n in range(8)]
    audio = torch.from_numpy(np.stack(sounds)) + 0.01 * torch.from_numpy(noise(40_000))
    scenes = hear_tune.get_scene_embeddings(audio, model)
    assert scenes.max() < 30
    assert (scenes.amax(dim=0) > 0).float().mean() > 0.7


def harmonics(frequency):
    return np.sum([tone(k * frequency, 40_000) / k for k in range(1, 12)], axis=0)


@pytest.mark.slow
def test_a_linear_probe_of_digits_is_better_than_with_random_weights(shared_data):
    trained = hear_tune.load_model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hear_tune.UntrainedWarning)
        untrained = hear_tune.load_model(variant="tune+")
    assert digits_told(trained, shared_data) > digits_told(untrained, shared_data) + 0.15


def digits_told(model, data):
    """Accuracy of a ridge regression to classes, on recordings of the validation clips."""
    parts = []
    for numbers in (range(10, 13), range(5, 6)):
        paths = [p for n in numbers for p in sorted((data / "fsdd/recordings").glob(f"*_{n}.wav"))]
        vectors = np.concatenate([hear_tune.embed_file(path, model).vectors for path in paths])
        parts.append((vectors, np.array([int(path.name[0]) for path in paths])))
    (vectors, digits), (others, truth) = parts
    mean, deviation = vectors.mean(axis=0), vectors.std(axis=0) + 1e-3
    x = (vectors - mean) / deviation
    weights = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ np.eye(10)[digits])
    return np.mean(((others - mean) / deviation @ weights).argmax(axis=1) == truth)


@pytest.mark.parametrize(
    "encoder",
    [
        "hear_tune.load_model(variant='tune-vanilla-small').encoder",
        "hear_tune.load_checkpoint(old)",
    ],
)
def test_loaded_encoders_can_be_saved_for_the_hub(encoder, small_model, tmp_path):
    """Even in a process that has used nothing else of the package."""
    hear_tune.save_checkpoint(small_model.encoder, tmp_path / "old.safetensors")
    program = "import sys, hear_tune; old, new = sys.argv[1:]; " + f"{encoder}.save_pretrained(new)"
    places = [str(tmp_path / "old.safetensors"), str(tmp_path / "new")]
    subprocess.run([sys.executable, "-c", program, *places], check=True)
    assert hear_tune.load_checkpoint(tmp_path / "new").embedding_size
