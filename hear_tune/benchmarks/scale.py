"""Processor time and memory for large collections, made up: tiny files, rows without audio."""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from ..common import text
from ..common.devices import core_count
from ..common.progress import say
from ..common.ranges import at_least
from ..embedding.batching import ClipEmbeddings
from ..embedding.folder import embed_folder
from ..embedding.library import read_library, read_vectors, read_vectors_of
from ..embedding.model import EmbeddingModel
from ..embedding.output import EmbeddingOutput
from ..explore.index import IndexSearch
from ..explore.map import write_map
from ..explore.similar import FileSearch, Search, find_similar, unit
from ..networks.config import SAMPLE_RATE_HZ, TuneConfig
from ..networks.encoders import build_encoder
from .machine import PeakMemory, in_a_process, machine

TINY_FILE_SAMPLES = 1_000  # 45 ms
ROW_SIZE = 512  # values, as with the weights in the package
MOST_ROWS_READ = 2_000_000  # into memory, 4 GB
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
        Rows of `ROW_SIZE` values to search, exactly and by an index; 0 for none. Up to
        `MOST_ROWS_READ` are also read into memory.
    points : int
        Rows to draw as a map; 0 for none.

    Returns
    -------
    dict
        JSON-ready: "machine"; "measurements", each with a "name", "core_seconds" (which other
        programs on the machine hardly change) and "peak_bytes" (see `PeakMemory`); "recall", the
        share of the 10 nearest rows that the "index" and the "map" find; and "page_bytes", the size
        of the map (None without points).
    """
    at_least(NEAREST + 1, rows=rows or None, points=points or None)
    measurements: list[dict[str, Any]] = []
    recall: dict[str, float] = {}
    page_bytes = None

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
            if rows <= MOST_ROWS_READ:
                measure(f"read {rows:,} rows", read_library, library)
            measure(f"compare {rows:,} rows in their file", _compare, library)
            measure(f"index {rows:,} rows", IndexSearch, library)
            measure(f"search {rows:,} rows by the index", _search, library)
            recall["index"] = in_a_process(_recall_of_index, library)
        if points:
            library = folder / f"{points}.parquet"
            measure(f"map {points:,} points", _draw, library)
            page_bytes = library.with_suffix(".html").stat().st_size
            recall["map"] = in_a_process(_recall_of_map, library)
    return {
        "machine": machine(),
        "measurements": measurements,
        "recall": recall,
        "page_bytes": page_bytes,
    }


def table(result: dict[str, Any]) -> str:
    """Format the measurements as text."""
    rows: list[Sequence[str]] = [["", "core seconds", "peak MB"]]
    rows += [
        [row["name"], f"{row['core_seconds']:,.1f}", f"{row['peak_bytes'] / 1e6:,.0f}"]
        for row in result["measurements"]
    ]
    notes = [
        f"recall at {NEAREST} of the {name}: {found:.3f}"
        for name, found in result["recall"].items()
    ]
    if result["page_bytes"] is not None:
        notes.append(f"size of the map: {result['page_bytes'] / 1e6:,.1f} MB")
    return "\n".join([text.table(rows), *notes])


def _measured(function: Callable[[Path], object], place: Path) -> tuple[float, int]:
    """Return the processor time and peak memory of a call, with those of its children."""
    before = os.times()
    with PeakMemory() as peak:
        function(place)
    after = os.times()
    return sum(after[:4]) - sum(before[:4]), peak.bytes


# --- Many files ---


def _make_files(folder: Path, count: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, TINY_FILE_SAMPLES).astype(np.float32)
    for number in range(count):
        track = folder / _track(number)
        track.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(track, noise, SAMPLE_RATE_HZ)


def _track(number: int) -> str:
    return f"{number // _FOLDER_FILES:05d}/{number:08d}.wav"


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
    start = np.zeros(1)
    with EmbeddingOutput(library, _IDENTITY) as output:
        for first in range(0, count, _ROWS_AT_ONCE):
            some = min(_ROWS_AT_ONCE, count - first)
            places = centres[rng.integers(_GROUPS, size=some)]
            places = places + 0.5 * rng.standard_normal((some, _DIMENSIONS))
            vectors = places.astype(np.float32) @ to_rows
            with output.new_part() as part:
                for number, vector in enumerate(vectors, first):
                    part.add(_track(number), ClipEmbeddings(vector[None], start, start + 1))
        output.finish()


def _compare(library: Path) -> None:
    _search_once(FileSearch(library))


def _search(library: Path) -> None:
    _search_once(IndexSearch(library))


def _search_once(search: Search) -> None:
    query = ClipEmbeddings(search.vectors(np.arange(1)), np.zeros(1), np.ones(1))
    find_similar(search, query, NEAREST)


def _recall_of_index(library: Path) -> float:
    search = IndexSearch(library)
    rows = _some(len(search.library.paths))
    found = [
        [match.row for match in islice(search.ranked(query), NEAREST)]
        for query in read_vectors_of(library, rows)[:, None]
    ]
    return _recall(library, rows, found)


def _recall_of_map(library: Path) -> float:
    """Return the share of the nearest rows on a page that was drawn."""
    page = library.with_suffix(".html").read_text(encoding="utf-8")
    start = page.index("{", page.index('id="data"'))
    data, _ = json.JSONDecoder().raw_decode(page, start)
    shown = np.frombuffer(base64.b64decode(data["neighbours"]["rows"]), "<u4")
    shown = shown.reshape(-1, data["neighbours"]["count"])
    rows = _some(len(shown))
    return _recall(library, rows, shown[rows], itself=False)


def _some(count: int) -> npt.NDArray[np.intp]:
    return np.linspace(0, count - 1, min(count, QUERIES)).astype(np.intp)


def _recall(
    library: Path, rows: npt.NDArray[np.intp], found: npt.ArrayLike, itself: bool = True
) -> float:
    """Return the share of the nearest of some rows that was found; a row may be its own nearest."""
    queries = unit(read_vectors_of(library, rows))
    cosines: npt.NDArray[np.float32] = np.empty((len(rows), 0), np.float32)
    nearest: npt.NDArray[np.intp] = np.empty((len(rows), 0), np.intp)
    first = 0
    for vectors in read_vectors(library):
        more = queries @ unit(vectors).T
        places = np.broadcast_to(np.arange(first, first + len(vectors)), more.shape)
        first += len(vectors)
        if not itself:
            more[places == rows[:, None]] = -np.inf
        cosines, nearest = np.hstack([cosines, more]), np.hstack([nearest, places])
        best = np.argpartition(-cosines, NEAREST - 1, axis=1)[:, :NEAREST]
        cosines = np.take_along_axis(cosines, best, axis=1)
        nearest = np.take_along_axis(nearest, best, axis=1)
    pairs = zip(nearest, np.asarray(found), strict=True)
    return float(np.mean([np.isin(wanted, some).mean() for wanted, some in pairs]))


def _draw(library: Path) -> None:
    write_map(library, library.with_suffix(".html"), title="", max_points=sys.maxsize)
