"""Processor time and memory for large collections, made up: tiny files, rows without audio."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from ..common import text
from ..common.devices import core_count
from ..common.progress import say
from ..embedding.batching import ClipEmbeddings
from ..embedding.folder import embed_folder
from ..embedding.model import EmbeddingModel
from ..embedding.output import EmbeddingOutput, read_library
from ..explore.index import IndexSearch
from ..explore.map import write_map
from ..explore.similar import ExactSearch, Search, find_similar
from ..networks.config import SAMPLE_RATE_HZ, TuneConfig
from ..networks.encoders import build_encoder
from .machine import in_a_process, machine, peak_bytes

TINY_FILE_SAMPLES = 1_000  # 45 ms
ROW_SIZE = 512  # values, as with the weights in the package
QUERIES = 100
NEAREST = 10
_FOLDER_FILES = 1_000
_GROUPS, _DIMENSIONS = 1_000, 32  # of the made-up rows: clusters in a space of few dimensions
_ROWS_AT_ONCE = 10_000
_IDENTITY = {"model": "made up", "layers": ["made up"], "per": "track"}


def benchmark_scale(files: int = 0, rows: int = 0, points: int = 0) -> dict[str, Any]:
    """Measure embedding many files, searching among many rows, and drawing many points.

    Each in a process of its own, so that its peak memory is known.

    Parameters
    ----------
    files : int
        Files of 45 ms to embed with a tiny network; 0 for none.
    rows : int
        Rows of `ROW_SIZE` values to search, exactly and by an index.
    points : int
        Rows to draw as a map.

    Returns
    -------
    dict
        JSON-ready: "machine"; "measurements", each with a "name", "core_seconds" (which other
        programs on the machine hardly change) and "peak_bytes"; and "recall", the share of the 10
        nearest rows that the index finds (None without rows).
    """
    measurements: list[dict[str, Any]] = []
    recall = None

    def measure(name: str, function: Callable[[Path], object], place: Path) -> None:
        seconds, peak = in_a_process(_measured, function, place)
        measurements.append({"name": name, "core_seconds": seconds, "peak_bytes": peak})
        say(f"{name}: {seconds:.3g} core seconds, {peak / 1e6:,.0f} MB")

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if files:
            _make_files(folder / "music", files)
            measure(f"embed {files:,} files", _embed, folder)
        for count in filter(None, dict.fromkeys((rows, points))):
            in_a_process(_make_rows, folder / f"{count}.parquet", count)
        if rows:
            library = folder / f"{rows}.parquet"
            measure(f"read {rows:,} rows", read_library, library)
            measure(f"read and compare {rows:,} rows", _compare, library)
            measure(f"index {rows:,} rows", IndexSearch, library)
            measure(f"search {rows:,} rows by the index", _search, library)
            recall = in_a_process(_recall, library)
        if points:
            measure(f"map {points:,} points", _draw, folder / f"{points}.parquet")
    return {"machine": machine(), "measurements": measurements, "recall": recall}


def table(result: dict[str, Any]) -> str:
    """Format the measurements as text."""
    rows: list[Sequence[str]] = [["", "core seconds", "peak MB"]]
    rows += [
        [row["name"], f"{row['core_seconds']:,.1f}", f"{row['peak_bytes'] / 1e6:,.0f}"]
        for row in result["measurements"]
    ]
    found = result["recall"]
    recall = "" if found is None else f"\nrecall at {NEAREST} of the index: {found:.3f}"
    return text.table(rows) + recall


def _measured(function: Callable[[Path], object], place: Path) -> tuple[float, int]:
    """Return the processor time of a call in this process and its children, and peak memory."""
    before = os.times()
    function(place)
    after = os.times()
    return sum(after[:4]) - sum(before[:4]), peak_bytes()


# --- Many files ---


def _make_files(folder: Path, count: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, TINY_FILE_SAMPLES).astype(np.float32)
    for number in range(count):
        place = folder / f"{number // _FOLDER_FILES:05d}"
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{number:08d}.wav", noise, SAMPLE_RATE_HZ)


def _embed(folder: Path) -> None:
    config = TuneConfig(2, contractive=2, expansive=2, tail=3, embedding_size=8)
    model = EmbeddingModel(build_encoder(config))
    embed_folder(folder / "music", folder / "tiny.parquet", model, workers=core_count())


# --- Many rows ---


def _make_rows(library: Path, count: int) -> None:
    """Write rows in clusters, as tracks of similar music are."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((_GROUPS, _DIMENSIONS))
    to_rows = rng.standard_normal((_DIMENSIONS, ROW_SIZE)).astype(np.float32)
    with EmbeddingOutput(library, _IDENTITY) as output:
        for first in range(0, count, _ROWS_AT_ONCE):
            some = min(_ROWS_AT_ONCE, count - first)
            places = centres[rng.integers(_GROUPS, size=some)]
            places = places + 0.5 * rng.standard_normal((some, _DIMENSIONS))
            vectors = places.astype(np.float32) @ to_rows
            times = np.zeros(some)
            with output.new_part() as part:
                part.add(f"{first}.mp3", ClipEmbeddings(vectors, times, times + 1))
        output.finish()


def _compare(library: Path) -> None:
    _search_once(ExactSearch(read_library(library)))


def _search(library: Path) -> None:
    _search_once(IndexSearch(library))


def _search_once(search: Search) -> None:
    _nearest(search, search.vectors(np.arange(1)))


def _recall(library: Path) -> float:
    """Return the share of the nearest rows that the index finds."""
    exact, index = ExactSearch(read_library(library)), IndexSearch(library)
    rows = np.linspace(0, len(exact.library.paths) - 1, QUERIES).astype(np.intp)
    found = [
        len(_nearest(exact, query) & _nearest(index, query)) / NEAREST
        for query in exact.vectors(rows)[:, None]
    ]
    return float(np.mean(found))


def _nearest(search: Search, query: npt.NDArray[np.float32]) -> set[int]:
    time_of_it = np.zeros(1)
    matches = find_similar(search, ClipEmbeddings(query, time_of_it, time_of_it), NEAREST)
    return {match.row for match in matches}


def _draw(library: Path) -> None:
    rows = read_library(library)
    write_map(rows, library.with_suffix(".html"), title="", max_points=len(rows.paths))
