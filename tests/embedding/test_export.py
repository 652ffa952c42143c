"""Exported files reproduce the model's embeddings, in other programs too."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
from conftest import ROOT, noise, tone

import hear_tune
from hear_tune import baselines
from hear_tune.cli import main
from hear_tune.embedding import export


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The default model as ONNX."""
    path = tmp_path_factory.mktemp("exported") / "tune.onnx"
    assert main(["export", str(path)]) == 0
    return path


@pytest.mark.parametrize("samples", [1, 500, 19_682, 19_683, 19_684, 30_000, 200_000])
@pytest.mark.parametrize("clips", [1, 3])
def test_onnx_gives_the_embeddings_of_clips_of_any_length(exported, clips, samples):
    session = onnxruntime.InferenceSession(exported)
    audio = [noise(samples, clip) for clip in range(clips)]
    (found,) = session.run(["embedding"], {"audio": np.stack(audio)})
    expected = hear_tune.get_scene_embeddings(
        [*map(torch.from_numpy, audio)], hear_tune.load_model()
    )
    assert abs(found - expected.numpy()).max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", ["small.onnx", "small.pt2"])
@pytest.mark.parametrize(("per", "hop_ms"), [("track", 1000), ("window", None), ("window", 700)])
def test_windows_and_hops(small_model, tmp_path, name, per, hop_ms):
    model = hear_tune.EmbeddingModel(small_model.encoder, "tail.2,tail.3", hop_ms=hop_ms)
    assert export.export_model(model, tmp_path / name, per) < 1e-4
    run = {".onnx": run_onnx, ".pt2": run_program}[(tmp_path / name).suffix]
    for samples in (4_000, 59_049, 70_001, 150_000):
        rows = hear_tune.embed_array(noise(samples), 22_050, model, per).vectors
        found = run(tmp_path / name, noise(samples)[None])[0]
        np.testing.assert_allclose(np.atleast_2d(found), rows, atol=1e-4 * abs(rows).max())


def run_onnx(path, audio):
    return onnxruntime.InferenceSession(path).run(None, {"audio": audio})[0]


def run_program(path, audio):
    return torch.export.load(path).module()(torch.from_numpy(audio)).numpy()


def test_the_file_describes_its_model(exported):
    metadata = onnxruntime.InferenceSession(exported).get_modelmeta().custom_metadata_map
    model = hear_tune.load_model()
    assert json.loads(metadata["hear_tune"]) == {
        "model": model.identity,
        "layers": ["whitened"],
        "window_samples": 19_683,
        "hop_samples": 19_683,
        "per": "track",
        "sample_rate": 22_050,
    }


def test_a_program_without_torch_gives_the_same(exported, tmp_path):
    """The example runs without torch and hear-tune."""
    soundfile.write(tmp_path / "a.wav", noise(70_000), 22_050, subtype="FLOAT")
    soundfile.write(tmp_path / "b.flac", np.stack([tone(440, 90_000, 44_100)] * 2, 1), 44_100)
    without = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['hear_tune'] = None; "
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    files = [str(tmp_path / name) for name in ("a.wav", "b.flac")]
    script = ROOT / "recipes/onnx/embed.py"
    command = [sys.executable, "-c", without, script, exported, *files]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row["path"] for row in rows] == files
    model = hear_tune.load_model()
    for row in rows:
        expected = hear_tune.embed_file(row["path"], model).vectors[0]
        assert abs(row["embedding"] - expected).max() < 1e-4 * abs(expected).max()


def test_a_wrong_export_is_not_written(small_model, tmp_path, monkeypatch):
    monkeypatch.setattr(export.FramedEncoder, "forward", lambda _, audio: audio[:, :8] * 1.0)
    with pytest.raises(export.ExportError, match=r"x\.pt2: differs from its model"):
        export.export_model(small_model, tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


def test_impossible_exports(small_model, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.onnx or \.pt2"):
        export.export_model(small_model, tmp_path / "x.pb")
    with pytest.raises(ValueError, match="per must be one of track, window"):
        export.export_model(small_model, tmp_path / "x.onnx", "timestamp")
    baseline = baselines.load_model(name="log-mel")
    with pytest.raises(ValueError, match="not baselines"):
        export.export_model(baseline, tmp_path / "x.onnx")
