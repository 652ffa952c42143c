"""Benchmarks compare programs that compute the same."""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import soundfile
from conftest import ROOT, noise

from hear_tune.benchmarks import embed, scale, suite
from hear_tune.benchmarks.embed import Contender
from hear_tune.benchmarks.machine import PeakMemory, in_a_process, in_turns, peak_bytes
from hear_tune.cli import benchmark, main
from hear_tune.embedding.library import read_library
from hear_tune.explore.similar import unit

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


@pytest.mark.slow
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
    assert [row["name"] for row in result["folders"]] == [
        "plain: file by file, read whole",
        "decoding alone",
        "hear-tune embed",
        "hear-tune embed --precision bfloat16",
    ]
    assert len(embed.table(result).splitlines()) == 1 + 3 + 1 + 1 + 4


def test_results_are_printed_and_saved(tmp_path, monkeypatch, capsys):
    network = {"name": "clmr", "audio_per_second": {1: 20.4}, "ratio": 2.5, "cosine": None}
    result = {"machine": {"cores": 2}, "networks": [{**network, "peak_bytes": 3e6}]}
    result |= {"gpu_networks": [], "folders": []}
    monkeypatch.setattr(embed, "benchmark_embed", lambda *_: result)
    assert main(["benchmark", "embed", "--json", str(tmp_path / "speed.json")]) == 0
    machine, header, row = capsys.readouterr().out.splitlines()
    assert machine == "cores 2"
    assert header.startswith("seconds of audio/s  batch 1  windows/s  ratio")
    assert row.split() == ["clmr", "20", "8", "2.50", "3"]
    saved = json.loads((tmp_path / "speed.json").read_text())
    assert saved["networks"][0]["name"] == "clmr"


def test_steps_of_training_learn_the_same(tmp_path, capsys):
    size = ["--batch-size", "4", "--crop-samples", "2187", "--repeats", "3"]
    options = [*size, "--variant", VARIANT, "--json", str(tmp_path / "speed.json")]
    assert main(["benchmark", "pretrain", *options]) == 0
    assert "x plain" in capsys.readouterr().out
    result = json.loads((tmp_path / "speed.json").read_text())
    stages = {stage["name"]: stage for stage in result["stages"]}
    assert list(stages) == [
        "read",
        "augment",
        "step, plain",
        "step, bfloat16",
        "augment and step, bfloat16",
    ]
    plain, trained = stages["step, plain"]["loss"], stages["step, bfloat16"]["loss"]
    assert trained == pytest.approx(plain, abs=0.05)
    assert trained != plain  # one of them is rounded
    assert 50e6 < stages["step, bfloat16"]["peak_bytes"] < 5e9


MACHINE = {"processor": "Zen 4", "cores": 2, "threads": 2, "python": "3.11", "torch": "2.14"}
NETWORK = {"name": "tune+", "audio_per_second": {"16": 1234.4}, "ratio": 1, "cosine": 1}
STAGE = {"name": "step", "seconds": 0.5, "windows_per_second": 64, "ratio": 2, "loss": 3}


@pytest.fixture
def measured(monkeypatch):
    """Results without measurements, and what was asked for."""
    asked = []

    def of_embedding(*_, **options):
        asked.append(options)
        networks = [NETWORK | {"peak_bytes": 3e6}]
        on_gpu = [] if suite.best_device() == "cpu" else networks
        settings = {"tracks": 24, "repeats": 3}
        folders = [{"name": "hear-tune embed", "audio_per_second": 187, "ratio": 2.3}]
        result = {"machine": MACHINE, "settings": settings, "networks": networks}
        return result | {"gpu_networks": on_gpu, "folders": folders}

    def of_training(_, batch_size=16, **options):
        asked.append(options)
        return {"settings": {"batch_size": batch_size}, "stages": [STAGE | {"peak_bytes": 2e6}]}

    monkeypatch.setattr(suite, "benchmark_embed", of_embedding)
    monkeypatch.setattr(suite, "benchmark_pretrain", of_training)
    monkeypatch.setattr(suite, "best_device", lambda: "cpu")
    return asked


PAGE = """# Speed

<!-- hear-tune benchmark -->
stale tables
<!-- end of hear-tune benchmark -->

The end.
"""


@pytest.mark.usefixtures("measured")
def test_all_benchmarks_of_a_machine_without_a_gpu(tmp_path, capsys):
    """The result is saved, and a page made anew from it, now or later."""
    page, saved = tmp_path / "page.md", tmp_path / "speed.json"
    page.write_text(PAGE)
    assert main(["benchmark", "--json", str(saved), "--page", str(page)]) == 0
    assert f"written: {saved}" in capsys.readouterr().out
    made = page.read_text()
    assert made.startswith("# Speed\n\n<!-- hear-tune benchmark -->\n\nOn 2 cores of Zen 4")
    assert "| tune+ | 1,234 | 461 | 1.00 | 1.000000 | 3 |\n" in made
    assert "Rows for a GPU are missing" in made
    assert made.endswith("<!-- end of hear-tune benchmark -->\n\nThe end.\n")
    assert "stale" not in made
    page.write_text(PAGE)
    assert main(["benchmark", "page", str(saved), str(page)]) == 0
    assert page.read_text() == made


def test_a_gpu_adds_rows(tmp_path, monkeypatch, measured):
    monkeypatch.setattr(suite, "best_device", lambda: "cuda")
    monkeypatch.setattr(suite, "find_device", lambda name: name)
    monkeypatch.setattr(suite, "describe", lambda _: "cuda (H200)")
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    options = ["--thorough", "--json", str(tmp_path / "speed.json"), "--page", str(page)]
    assert main(["benchmark", *options]) == 0
    assert measured[-1] == {"repeats": 5, "device": "cuda"}
    made = page.read_text()
    assert "On cuda (H200), with copies" in made
    assert made.count("| tune+ | 1,234 |") == 2
    assert made.count("| step | 0.5000 | 64.0 | 2.00 | 3.0000 | 2 |") == 2
    assert "missing" not in made


def test_a_page_without_a_place_for_tables_is_named(tmp_path, capsys):
    (tmp_path / "page.md").write_text("# Speed\n")
    assert main(["benchmark", "page", str(ROOT / "docs/speed.json"), f"{tmp_path}/page.md"]) == 2
    assert "page.md: has no lines <!-- hear-tune benchmark -->" in capsys.readouterr().err


def test_the_page_on_speed_is_made_from_its_measurements(tmp_path):
    page = tmp_path / "speed.md"
    page.write_bytes((ROOT / "docs/speed.md").read_bytes())
    assert main(["benchmark", "page", str(ROOT / "docs/speed.json"), str(page)]) == 0
    assert page.read_bytes() == (ROOT / "docs/speed.md").read_bytes()


@pytest.mark.slow
def test_large_collections(tmp_path, capsys):
    options = ["--files", "3", "--rows", "300", "--points", "20"]
    assert main(["benchmark", "scale", *options, "--json", str(tmp_path / "scale.json")]) == 0
    result = json.loads((tmp_path / "scale.json").read_text())
    names = [row["name"] for row in result["measurements"]]
    assert names[0] == "embed 3 files"
    assert names[-1] == "map 20 points"
    assert all(50e6 < row["peak_bytes"] < 5e9 for row in result["measurements"])
    assert result["recall"].keys() == {"index", "map"}
    assert all(0.9 < share <= 1 for share in result["recall"].values())
    assert result["page_bytes"] > 20_000
    printed = capsys.readouterr().out
    assert "recall at 10 of the index" in printed
    assert "size of the map: 0.0 MB" in printed


@pytest.mark.slow
def test_more_rows_than_fit_are_not_read_into_memory(monkeypatch):
    monkeypatch.setattr(scale, "MOST_ROWS_READ", 99)
    result = scale.benchmark_scale(rows=100)
    names = [row["name"] for row in result["measurements"]]
    assert names == [
        "compare 100 rows in their file",
        "index 100 rows",
        "search 100 rows by the index",
    ]


@pytest.mark.parametrize("itself", [True, False])
def test_the_recall_is_of_all_batches(tmp_path, monkeypatch, itself):
    library = tmp_path / "rows.parquet"
    scale._make_rows(library, 300)
    vectors = read_library(library).vectors
    monkeypatch.setattr(scale, "read_vectors", lambda _: np.array_split(vectors, 11))
    cosines = unit(vectors) @ unit(vectors).T
    if not itself:
        np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1)[:, : scale.NEAREST]
    rows = np.array([0, 17, 150, 299])
    assert scale._recall(library, rows, nearest[rows], itself) == 1
    wrong = np.where(np.arange(scale.NEAREST) < 3, 1000, nearest[rows])
    assert scale._recall(library, rows, wrong, itself) == pytest.approx(0.7)


def _hold(byte_count):
    held = bytearray(b"x" * byte_count)
    time.sleep(1)
    return len(held)


def _with_children(byte_count):
    with PeakMemory() as peak, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert sum(pool.map(_hold, [byte_count] * 2)) == 2 * byte_count
    return peak.bytes, peak_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="children are seen on Linux only")
@pytest.mark.slow
def test_peak_memory_has_that_of_all_children():
    peak, alone = in_a_process(_with_children, 400_000_000)
    assert alone < 1e9
    assert 800e6 < peak < 3e9


def _alone(byte_count):
    before = peak_bytes()
    with PeakMemory() as peak:
        _hold(before + byte_count)
    return peak.bytes - before


@pytest.mark.slow
def test_peak_memory_of_one_process():
    assert in_a_process(_alone, 200_000_000) > 150e6


def test_too_few_rows_for_a_recall():
    with pytest.raises(ValueError, match="rows must be at least 11, not 10"):
        scale.benchmark_scale(rows=10)


def test_options_before_a_part_are_not_lost(tmp_path, monkeypatch, capsys):
    assert main(["benchmark", "--thorough", "embed"]) == 2
    assert "leave out WHAT" in capsys.readouterr().err
    saved = tmp_path / "a.json"
    measured = []
    monkeypatch.setattr(embed, "benchmark_embed", lambda *settings: measured.append(settings) or {})
    monkeypatch.setattr(embed, "table", str)
    monkeypatch.setattr(benchmark, "_print_machine", str)
    options = ["--json", str(saved), "--variant", "tune-vanilla-small"]
    assert main(["benchmark", *options, "embed", "--tracks", "0"]) == 0
    assert measured[0][0] == "tune-vanilla-small"
    assert json.loads(saved.read_text()) == {}
    assert main(["benchmark", "page", str(saved), str(tmp_path / "page.md")]) == 2
    assert "is of a part of the benchmark" in capsys.readouterr().err


def test_folders_are_embedded_on_the_gpu_too():
    """As options of the command say."""
    assert list(embed._programs(VARIANT, "cpu")) == ["", " --precision bfloat16"]
    *on_cpu, plain, rounded, half = embed._programs(VARIANT, "cuda").items()
    assert [contender.device for _, contender in on_cpu] == ["cpu", "cpu"]
    assert plain == (" --device cuda", Contender("", VARIANT, device="cuda"))
    assert rounded[0] == " --device cuda --precision bfloat16"
    assert half[1].precision == "float16"
