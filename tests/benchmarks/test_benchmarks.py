"""Benchmarks compare programs that compute the same."""

import json

import pytest
import soundfile
from conftest import noise

from hear_tune.benchmarks import embed
from hear_tune.benchmarks.embed import Contender
from hear_tune.benchmarks.machine import in_turns
from hear_tune.cli import main

VARIANT = "tune-vanilla-small"


def test_measurements_take_turns_and_the_median_counts():
    """The first turn warms up."""
    order = []
    values = {"a": [99, 3, 1, 2], "b": [0, 7, 9, 8]}

    def measurement(name):
        def measure():
            order.append(name)
            return values[name].pop(0)

        return measure

    assert in_turns({name: measurement(name) for name in values}, 3) == {"a": 2, "b": 8}
    assert order == ["a", "b"] * 4


def test_embedding_is_compared_with_a_plain_program(tmp_path):
    """Networks with the same weights agree; every program embeds the folder."""
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", noise(70_000), 22_050)
    contenders = [
        Contender("plain", VARIANT, plain=True),
        Contender("ours", VARIANT),
        Contender("rounded", VARIANT, precision="bfloat16"),
    ]
    result = embed.benchmark_embed(VARIANT, tmp_path, 0, 1, contenders, batches=(16,))
    cosines = {row["name"]: row["cosine"] for row in result["networks"]}
    assert cosines["ours"] == pytest.approx(1, abs=1e-6)
    assert cosines["rounded"] == pytest.approx(1, abs=5e-4)
    assert cosines["ours"] != cosines["rounded"]
    assert all(50e6 < row["peak_bytes"] < 5e9 for row in result["networks"])
    assert len(result["folders"]) == 3
    assert len(embed.table(result).splitlines()) == 1 + 3 + 1 + 1 + 3


def test_results_are_printed_and_saved(tmp_path, monkeypatch, capsys):
    network = {"name": "clmr", "audio_per_second": {1: 20.4}, "ratio": 2.5, "cosine": None}
    result = {"machine": {"cores": 2}, "networks": [{**network, "peak_bytes": 3e6}], "folders": []}
    monkeypatch.setattr(embed, "benchmark_embed", lambda *_: result)
    assert main(["benchmark", "embed", "--json", str(tmp_path / "speed.json")]) == 0
    machine, header, row = capsys.readouterr().out.splitlines()
    assert machine == "cores 2"
    assert header.startswith("seconds of audio/s  batch 1  x plain")
    assert row.split() == ["clmr", "20", "2.50", "3"]
    saved = json.loads((tmp_path / "speed.json").read_text())
    assert saved["networks"][0]["name"] == "clmr"


def test_steps_of_training_learn_the_same(tmp_path, capsys):
    size = ["--batch-size", "4", "--crop-samples", "2187", "--repeats", "3"]
    options = [*size, "--variant", VARIANT, "--json", str(tmp_path / "speed.json")]
    assert main(["benchmark", "pretrain", *options]) == 0
    assert "x plain" in capsys.readouterr().out
    result = json.loads((tmp_path / "speed.json").read_text())
    stages = {stage["name"]: stage for stage in result["stages"]}
    assert list(stages) == ["read", "augment", "step, plain", "step, bfloat16"]
    plain, trained = stages["step, plain"]["loss"], stages["step, bfloat16"]["loss"]
    assert trained == pytest.approx(plain, abs=0.05)
    assert trained != plain  # one of them is rounded
    assert 50e6 < stages["step, bfloat16"]["peak_bytes"] < 5e9
