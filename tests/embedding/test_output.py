"""Outputs are the same however the work is split and interrupted."""

import contextlib
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hear_tune.embedding.batching import ClipEmbeddings
from hear_tune.embedding.library import read_library, read_vectors, read_vectors_of
from hear_tune.embedding.output import EmbeddingOutput
from hear_tune.embedding.rows import StoreError
from hear_tune.pretrain.pcm_store import Track

IDENTITY = {"model": "x", "per": "window"}
NAMES = [f"{number}.wav" for number in range(12)]


def rows_of(name):
    """Rows that identify their file by number and value."""
    number = NAMES.index(name)
    vectors = np.full((1 + number % 3, 2), number, np.float32)
    start = np.arange(len(vectors), dtype=float)
    return ClipEmbeddings(vectors, start, start + 1)


def session(output, names, group_size, bad, break_after, finish):
    """Run a command until it is interrupted."""
    added = 0
    with contextlib.suppress(KeyboardInterrupt), EmbeddingOutput(output, IDENTITY) as store:
        todo = [name for name in names if name not in store.done]
        for begin in range(0, len(todo), group_size):
            with store.new_part() as part:
                for name in todo[begin : begin + group_size]:
                    if added == break_after:
                        raise KeyboardInterrupt
                    part.add(name, rows_of(name))
                    added += 1
                part.drop(bad & set(names))
        if finish:
            store.finish()


def test_embeddings_without_rows_change_nothing(tmp_path):
    """As of a last segment that is shorter than half a timestamp."""
    nothing = ClipEmbeddings(np.empty((0, 2), np.float32), np.empty(0), np.empty(0))
    with EmbeddingOutput(tmp_path / "x.parquet", IDENTITY) as output:
        with output.new_part() as part:
            part.add(NAMES[0], nothing)
            part.add(NAMES[0], rows_of(NAMES[0]))
            part.add(NAMES[0], nothing)
        output.finish()
    assert read_library(tmp_path / "x.parquet").paths == [NAMES[0]]


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_an_output_may_have_no_row_at_all(tmp_path, suffix):
    nothing = ClipEmbeddings(np.empty((0, 2), np.float32), np.empty(0), np.empty(0))
    with EmbeddingOutput(tmp_path / f"x{suffix}", IDENTITY) as output:
        with output.new_part() as part:
            part.add(NAMES[0], nothing)
        output.finish()
    if suffix == ".npy":
        assert np.load(tmp_path / "x.npy").shape == (0, 2)
    else:
        assert pq.read_table(tmp_path / "x.parquet").num_rows == 0


def test_memory_holds_few_vectors_of_a_large_file(tmp_path):
    with EmbeddingOutput(tmp_path / "x.parquet", IDENTITY) as output:
        with output.new_part() as part:
            for number in range(8):
                vectors = np.random.default_rng(number).random((4096, 256), np.float32)
                start = np.zeros(len(vectors))
                part.add(f"{number}.wav", ClipEmbeddings(vectors, start, start + 1))
        output.finish()
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in read_vectors(tmp_path / "x.parquet")]
    assert len(held) == 8
    assert max(held) < 4 * vectors.nbytes


def test_a_damaged_footer_is_named_or_harmless(tmp_path):
    """It has no checksum: the numbers of rows and columns in it may be wrong."""
    path = tmp_path / "x.parquet"
    with EmbeddingOutput(path, IDENTITY) as output:
        with output.new_part() as part:
            part.add(NAMES[2], rows_of(NAMES[2]))
        output.finish()
    good = path.read_bytes()
    footer_bytes = int.from_bytes(good[-8:-4], "little")
    for place in range(len(good) - 8 - footer_bytes, len(good) - 8):
        path.write_bytes(good[:place] + bytes([(good[place] + 1) % 256]) + good[place + 1 :])
        with contextlib.suppress(StoreError):
            library = read_library(path)
            assert len(library.paths) == len(library.start) == len(library.vectors) == 3
        with contextlib.suppress(StoreError):
            assert (read_vectors_of(path, np.arange(3)) == rows_of(NAMES[2]).vectors).all()


def test_some_rows_of_several_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("hear_tune.embedding.rows._ROWS_PER_WRITE", 4)
    session(tmp_path / "x.parquet", NAMES, 3, set(), None, True)
    every = read_library(tmp_path / "x.parquet").vectors
    rows = np.array([20, 0, 7, 7, 3])
    np.testing.assert_array_equal(read_vectors_of(tmp_path / "x.parquet", rows), every[rows])
    assert read_vectors_of(tmp_path / "x.parquet", rows[:0]).shape == (0, 2)
    with pytest.raises(StoreError, match=r"x\.parquet: has 24 rows, but no row 24"):
        read_vectors_of(tmp_path / "x.parquet", np.array([24]))


sessions = st.lists(
    st.tuples(
        st.integers(1, len(NAMES)),  # files present
        st.integers(1, 5),  # files per group
        st.one_of(st.none(), st.integers(0, len(NAMES))),  # interrupted after so many files
        st.booleans(),  # else killed before the parts are joined
    ),
    max_size=5,
)


@settings(deadline=None, max_examples=60)
@given(sessions, st.sets(st.sampled_from(NAMES), max_size=4))
def test_any_interruptions_and_extensions(steps, bad):
    with tempfile.TemporaryDirectory() as folder:
        output, count = Path(folder, "x.parquet"), 0
        for present, group_size, break_after, finish in steps:
            count = max(count, present)
            session(output, NAMES[:count], group_size, bad, break_after, finish)
        session(output, NAMES, 3, bad, None, True)
        assert not Path(folder, "x.parquet.parts").exists()
        good = [name for name in NAMES if name not in bad]
        library = read_library(output)
        expected = [name for name in good for _ in rows_of(name).start]
        assert library.paths == expected
        np.testing.assert_array_equal(
            library.vectors, np.concatenate([rows_of(name).vectors for name in good])
        )
        assert pq.read_table(output)["start"].to_pylist() == library.start.tolist()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 5), max_size=4), st.lists(st.integers(0, 12), max_size=4))
def test_arrays_say_whose_rows_they_hold(group_sizes, breaks):
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "x.npy")
        for group_size, break_after in zip(group_sizes, breaks, strict=False):
            session(output, NAMES, group_size, set(), break_after, False)
        session(output, NAMES, 4, set(), None, True)
        vectors = np.load(output)
        lines = output.with_suffix(".csv").read_text().splitlines()[1:]
        assert [int(vector[0]) for vector in vectors] == [
            NAMES.index(line.split(",")[0]) for line in lines
        ]
        assert vectors.dtype == np.float32
        with pytest.raises(StoreError, match="only Parquet output can be extended"):
            session(output, NAMES, 4, set(), None, True)


@settings(deadline=None)
@given(st.integers(0, 10**7), st.integers(10**4, 10**6))
def test_parts_of_a_track_are_equal_and_cover_it(samples, part):
    bounds = list(Track("x", samples, 0, "000000", 0).parts(part))
    assert bounds[0][0] == 0
    assert bounds[-1][1] == samples
    assert all(end == start for (_, end), (start, _) in pairwise(bounds))
    lengths = [end - start for start, end in bounds]
    assert max(lengths) - min(lengths) <= 1
    assert samples < part or 3 * min(lengths) >= 2 * part - 3
