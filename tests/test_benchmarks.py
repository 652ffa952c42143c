"""Benchmarks compare things that compute the same."""

import json

import pytest
import soundfile
from conftest import noise

from hear_tune.benchmarks import embed
from hear_tune.cli import main

VARIANT = "tune-vanilla-small"


def test_embedding_is_compared_with_a_plain_program(tmp_path, monkeypatch, capsys):
    """Networks of one set of weights agree; a folder passes through every program."""
    (tmp_path / "music").mkdir()
    for number in range(3):
        soundfile.write(tmp_path / f"music/{number}.wav", noise(70_000), 22_050)
    first_three = embed._contenders(VARIANT)[:3]
    monkeypatch.setattr(embed, "_contenders", lambda _: first_three)
    monkeypatch.setattr(embed, "BATCHES", (1, 16))  # 64 takes long
    music, out = str(tmp_path / "music"), tmp_path / "speed.json"
    options = ["--variant", VARIANT, "--music", music, "--repeats", "1", "--json", str(out)]
    assert main(["benchmark", "embed", *options]) == 0
    assert "x plain" in capsys.readouterr().out
    result = json.loads(out.read_text())
    plain, ours, rounded = result["networks"]
    assert plain["ratio"] == result["folders"][0]["ratio"] == 1
    assert ours["ratio"] == pytest.approx(
        ours["audio_per_second"]["16"] / plain["audio_per_second"]["16"]
    )
    assert ours["cosine"] == pytest.approx(1, abs=1e-6)
    assert rounded["cosine"] == pytest.approx(1, abs=5e-4)
    assert all(50e6 < row["peak_bytes"] < 5e9 for row in result["networks"])
    assert len(result["folders"]) == 3


def test_benchmark_compares_steps_that_learn_the_same(tmp_path, capsys):
    size = ["--batch-size", "4", "--crop-samples", "2187", "--repeats", "3"]
    options = [*size, "--variant", VARIANT, "--json", str(tmp_path / "speed.json")]
    assert main(["benchmark", "pretrain", *options]) == 0
    assert "x plain" in capsys.readouterr().out
    result = json.loads((tmp_path / "speed.json").read_text())
    stages = {stage["name"]: stage for stage in result["stages"]}
    assert list(stages) == ["read", "augment", "step, plain", "step, bfloat16"]
    plain, trained = stages["step, plain"], stages["step, bfloat16"]
    assert plain["ratio"] == 1
    assert trained["ratio"] == pytest.approx(plain["seconds"] / trained["seconds"])
    assert trained["loss"] == pytest.approx(plain["loss"], abs=0.05)
    assert 50e6 < trained["peak_bytes"] < 5e9
