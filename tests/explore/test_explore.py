import base64
import csv
import errno
import json
import os
import re
import shutil
import time
from importlib.util import find_spec
from types import SimpleNamespace
from xml.etree import ElementTree

import fsspec
import numpy as np
import pytest
import soundfile
from conftest import noise, tone

import hear_tune
from hear_tune.cli import main
from hear_tune.embedding import library as library_files
from hear_tune.embedding.batching import ClipEmbeddings
from hear_tune.embedding.library import LibraryRows, read_library
from hear_tune.embedding.output import EmbeddingOutput
from hear_tune.embedding.rows import StoreError
from hear_tune.explore import ExploreError, similar
from hear_tune.explore.index import IndexSearch, _mark_of
from hear_tune.explore.map import write_map
from hear_tune.explore.projection import Graph, approximate_graph, cluster, project
from hear_tune.explore.report import write_report
from hear_tune.explore.runs import read_run
from hear_tune.explore.similar import (
    ExactSearch,
    FileSearch,
    embed_query,
    find_similar,
    model_of_library,
    neighbours,
    own_paths,
    query_of_library,
    unit,
)

RATE = 22_050
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DOT_PIXELS = 3  # around a point's place, where its colour must be


def write_library(path, vectors_by_name, seconds=2.0):
    identity = {
        "model": "custom sha256:00ff",
        "layers": ["tail.2"],
        "hop_samples": 59_049,
        "per": "window",
        "sample_rate": RATE,
    }
    with EmbeddingOutput(path, identity) as store:
        with store.new_part() as part:
            for name, vectors in vectors_by_name.items():
                start = seconds * np.arange(len(vectors))
                rows = ClipEmbeddings(np.asarray(vectors, np.float32), start, start + seconds)
                part.add(name, rows)
        store.finish()
    return read_library(path)


@pytest.fixture
def random_library(tmp_path):
    generator = np.random.default_rng(0)
    return write_library(
        tmp_path / "random.parquet",
        {f"{n % 3}/{n}.wav": generator.normal(size=(5, 6)) for n in range(20)},
    )


# --- similar ---


def test_all_rows_are_compared(random_library):
    """The same as cosines in double precision, sorted."""
    query = ClipEmbeddings(random_library.vectors[7:9] * 3, np.array([0, 2.0]), np.array([2.0, 4]))
    rows = random_library.vectors.astype(float)
    norms = np.linalg.norm(rows, axis=1)
    cosines = (rows @ rows[7:9].T / norms[:, None] / norms[7:9]).max(axis=1)
    matches = find_similar(ExactSearch(random_library), query, 100)
    assert [match.row for match in matches] == list(np.argsort(-cosines.round(6), kind="stable"))
    np.testing.assert_allclose([match.cosine for match in matches], -np.sort(-cosines), atol=1e-6)
    assert {matches[0].row, matches[1].row} == {7, 8}
    assert {m.row: m.query_start for m in matches[:2]} == {7: 0.0, 8: 2.0}


def test_the_best_moment_of_each_track(random_library):
    query = ClipEmbeddings(random_library.vectors[:1], np.zeros(1), np.ones(1))
    search = ExactSearch(random_library)
    matches = find_similar(search, query, 100, leave_out="0/0.wav", per_track=True)
    assert len(matches) == len({match.path for match in matches}) == 19
    best = {m.path: m.cosine for m in find_similar(search, query, 100)[::-1]}
    assert all(match.cosine == best[match.path] for match in matches)


def test_silence_is_similar_to_nothing(tmp_path):
    library = write_library(tmp_path / "l.parquet", {"zero.wav": [[0, 0]], "one.wav": [[-1, 0.1]]})
    query = ClipEmbeddings(np.array([[1, 0]], np.float32), np.zeros(1), np.ones(1))
    assert find_similar(ExactSearch(library), query)[0].cosine == 0


@pytest.fixture
def folder_library(tmp_path, monkeypatch):
    """120 tracks of three rows in a folder of two files of several row groups each."""
    monkeypatch.setattr("hear_tune.embedding.rows._ROWS_PER_WRITE", 50)
    generator = np.random.default_rng(3)
    (tmp_path / "l").mkdir()
    for half in range(2):
        rows = {f"{half}/{n}.wav": generator.normal(size=(3, 6)) for n in range(60)}
        write_library(tmp_path / "l" / f"{half}.parquet", rows)
    return tmp_path / "l"


@pytest.mark.parametrize("per_track", [True, False])
def test_a_file_is_searched_as_a_library_in_memory_is(folder_library, per_track):
    held, filed = ExactSearch(read_library(folder_library)), FileSearch(folder_library)
    for name in ("0/0.wav", "0/59.wav", "1/31.wav"):
        query = query_of_library(filed, name)
        np.testing.assert_array_equal(query.vectors, query_of_library(held, name).vectors)
        wanted, found = (
            find_similar(search, query, 1_000, leave_out=name, per_track=per_track)
            for search in (held, filed)
        )
        assert [match.row for match in found] == [match.row for match in wanted]
        assert [match.query_start for match in found] == [match.query_start for match in wanted]
        cosines = [match.cosine for match in wanted]
        np.testing.assert_allclose([match.cosine for match in found], cosines, atol=1e-6)


def test_similar_holds_few_vectors(folder_library, monkeypatch, capsys):
    """Each query of the command line reads batches; rows of a query are looked up."""
    sizes = []
    join = library_files.vectors_of
    monkeypatch.setattr(
        library_files, "vectors_of", lambda batch: sizes.append(batch.num_rows) or join(batch)
    )
    assert main(["similar", "1/7.wav", str(folder_library), "-n", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert max(sizes) < 60
    assert sum(sizes) < 360 + 60  # all rows once, and the query's row group


def test_a_file_that_changes_under_a_search_is_named(folder_library):
    search = FileSearch(folder_library)
    query = query_of_library(search, "0/0.wav")
    write_library(folder_library / "1.parquet", {"new.wav": [[1] * 6]})
    for look in (lambda: query_of_library(search, "0/0.wav"), lambda: find_similar(search, query)):
        with pytest.raises(ExploreError, match="l: has changed; start the search anew"):
            look()


def test_a_file_that_changes_while_it_is_read_is_named(folder_library, monkeypatch):
    search = FileSearch(folder_library)
    query = query_of_library(search, "0/0.wav")
    read = similar.read_vectors

    def swapped(path):
        yield from read(path)
        write_library(folder_library / "1.parquet", {"new.wav": [[1] * 6]})

    monkeypatch.setattr(similar, "read_vectors", swapped)
    with pytest.raises(ExploreError, match="l: has changed; start the search anew"):
        find_similar(search, query)


def test_rows_that_are_equally_similar_keep_their_order(tmp_path):
    """Rounding depends on how many rows are compared at once."""
    row = np.random.default_rng(0).normal(size=(1, 512))
    for half, count in ((0, 4_097), (1, 7)):
        rows = {f"{half}/{number}.wav": row for number in range(count)}
        write_library(tmp_path / "l" / f"{half}.parquet", rows)
    for search in (FileSearch(tmp_path / "l"), ExactSearch(read_library(tmp_path / "l"))):
        found = find_similar(search, query_of_library(search, "1/3.wav"), 5_000)
        assert [match.row for match in found] == list(range(4_104))


def test_neighbours(random_library):
    vectors = random_library.vectors
    found = np.concatenate(list(neighbours(vectors, 4)))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -2)
    np.testing.assert_array_equal(found, np.argsort(-cosines, axis=1)[:, :4])


@pytest.fixture
def sounds(tmp_path, monkeypatch):
    """Six different sounds, and their library by the weights of the package."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "music").mkdir()
    sounds = {
        "low": tone(110, 130_000),
        "middle": tone(440, 130_000) + tone(660, 130_000),
        "high": tone(3000, 130_000),
        "noise": noise(130_000),
        "pulse": tone(220, 130_000) * (np.arange(130_000) % 5000 < 800),
        "sweep": (0.4 * np.sin(np.linspace(0, 170, 130_000) ** 2)).astype(np.float32),
    }
    for name, samples in sounds.items():
        soundfile.write(f"music/{name}.wav", samples, RATE)
    assert main(["embed", "music", "-o", "l.parquet", "--per", "window"]) == 0
    return sounds


@pytest.mark.filterwarnings("ignore::hear_tune.UntrainedWarning")
@pytest.mark.parametrize("name", ["middle", "noise", "pulse", "sweep"])
def test_a_copy_finds_its_original_first(sounds, name, capsys):
    samples = sounds[name]
    hiss = samples + 0.01 * noise(len(samples), 7)
    soundfile.write("re-encoded.ogg", samples, RATE)
    soundfile.write("shifted.wav", samples[301:], RATE)
    soundfile.write("noisy.wav", hiss, RATE)
    for copy in ("re-encoded.ogg", "shifted.wav", "noisy.wav"):
        capsys.readouterr()
        assert main(["similar", copy, "l.parquet", "--per-track"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].endswith(f"music/{name}.wav"), copy
        assert len(lines) == 7


@pytest.mark.filterwarnings("ignore::hear_tune.UntrainedWarning")
@pytest.mark.usefixtures("sounds")
def test_libraries_of_untrained_encoders_and_of_named_weights(capsys):
    shutil.copy("music/low.wav", "copy.wav")
    for number, (options, query) in enumerate(
        [
            (["--variant", "tune-vanilla-small"], []),
            (["--model", "tune+-acoustic"], ["--model", "tune+-acoustic"]),
        ]
    ):
        library = f"{number}.parquet"
        assert main(["embed", "music", "-o", library, *options]) == 0
        capsys.readouterr()
        assert main(["similar", "copy.wav", library, *query]) == 0
        assert capsys.readouterr().out.splitlines()[1].endswith("music/low.wav")


@pytest.mark.usefixtures("sounds")
def test_a_path_of_the_library_needs_no_model_and_is_left_out(capsys):
    capsys.readouterr()
    assert main(["similar", "music/low.wav", "l.parquet", "-n", "3", "--at", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()[1:]
    assert len(lines) == 3
    assert all("low.wav" not in line for line in lines)
    assert all("2.68-3.57" in line for line in lines)  # the moment of the query


@pytest.mark.parametrize(
    "spell",
    [
        "M/a.wav",
        "./M/a.wav",
        "M/../M/a.wav",
        "{root}/M/a.wav",
        "linked/a.wav",
        "again.wav",
        "file://{root}/M/a.wav",
    ],
)
@pytest.mark.parametrize("embedded", ["./M", "{root}/M", "linked", "file://{root}/M"])
def test_a_query_is_not_found_itself_however_it_is_spelt(
    small_model, tmp_path, monkeypatch, capsys, spell, embedded
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "M").mkdir()
    for number, name in enumerate("abc"):
        soundfile.write(f"M/{name}.wav", tone(300 + 40 * number, 9_000), RATE)
    os.symlink("M", "linked")
    os.symlink("M/a.wav", "again.wav")
    hear_tune.save_checkpoint(small_model.encoder, "x.safetensors")
    hear_tune.embed_folder([embedded.format(root=tmp_path)], "l.parquet", small_model)
    query = spell.format(root=tmp_path)
    assert main(["similar", query, "l.parquet", "--model", "x.safetensors"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert sorted(os.path.basename(row) for row in rows) == ["b.wav", "c.wav"]


def test_a_file_of_a_name_in_the_library_is_what_it_sounds_like(
    small_model, tmp_path, monkeypatch, capsys
):
    """The library's relative paths start in another folder."""
    for folder, frequencies in (("there", (300, 600)), ("here", (600,))):
        (tmp_path / folder).mkdir()
        for name, frequency in zip("ab", frequencies, strict=False):
            soundfile.write(tmp_path / folder / f"{name}.wav", tone(frequency, 9_000), RATE)
    hear_tune.save_checkpoint(small_model.encoder, tmp_path / "x.safetensors")
    monkeypatch.chdir(tmp_path / "there")
    hear_tune.embed_folder(["a.wav", "b.wav"], "l.parquet", small_model)
    monkeypatch.chdir(tmp_path / "here")
    library, model = "../there/l.parquet", "../x.safetensors"
    assert main(["similar", "./a.wav", library, "--model", model]) == 0
    (row,) = capsys.readouterr().out.splitlines()[1:]
    assert row.split()[0] == "1.0000"
    assert row.endswith("b.wav")


def test_archives_of_one_content_are_told_apart():
    paths = ["zip://a.wav::one.zip", "zip://a.wav::two.zip", "zip://a.wav::gone/x.zip"]
    library = LibraryRows(paths, np.zeros(3), np.ones(3), {})
    assert own_paths(library, "zip://a.wav::./two.zip") == ["zip://a.wav::two.zip"]


def test_a_query_in_a_store_of_objects(small_model, tmp_path, monkeypatch, capsys):
    store = fsspec.filesystem("memory")
    for number, name in enumerate(("a", "b")):
        soundfile.write(tmp_path / "x.wav", tone(300 + 40 * number, 9_000), RATE)
        store.pipe_file(f"/sounds/{name}.wav", (tmp_path / "x.wav").read_bytes())
    store.pipe_file("/elsewhere/c.wav", (tmp_path / "x.wav").read_bytes())
    monkeypatch.chdir(tmp_path)
    hear_tune.save_checkpoint(small_model.encoder, "x.safetensors")
    hear_tune.embed_folder(["memory://sounds"], "l.parquet", small_model)
    for query, found in (("memory://sounds/a.wav", 1), ("memory://elsewhere/c.wav", 2)):
        assert main(["similar", query, "l.parquet", "--model", "x.safetensors"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1 + found


# --- similar, by an index ---


@pytest.fixture
def large_library(tmp_path):
    """600 tracks of three rows around 20 centres."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 32))
    rows = {
        f"{n:03d}.wav": centres[n % 20] + 0.5 * rng.standard_normal((3, 32)) for n in range(600)
    }
    write_library(tmp_path / "l.parquet", rows)
    return tmp_path / "l.parquet"


@pytest.mark.parametrize("per_track", [True, False])
def test_an_index_finds_what_comparing_all_finds(large_library, per_track):
    exact, indexed = ExactSearch(read_library(large_library)), IndexSearch(large_library)
    found = 0
    for number in range(0, 600, 30):
        name = f"{number:03d}.wav"
        query = query_of_library(exact, name)
        looked_up = query_of_library(indexed, name)
        cosines = (unit(query.vectors) * looked_up.vectors).sum(axis=1)
        np.testing.assert_allclose(cosines, 1, atol=1e-3)
        wanted, matches = (
            find_similar(search, query, 10, leave_out=name, per_track=per_track)
            for search in (exact, indexed)
        )
        found += len({m.row for m in wanted} & {m.row for m in matches})
        assert name not in {match.path for match in matches}
        for match in matches:
            row = exact.vectors(np.array([match.row]))
            expected = unit(row) @ unit(query.vectors).T
            assert match.cosine == pytest.approx(expected.max(), abs=2e-3)
    assert found >= 0.95 * 200


def test_an_index_finds_what_is_near_one_of_many_moments(tmp_path):
    """Beside the near copies of another moment, which fill the first looks into the graph."""
    rng = np.random.default_rng(0)
    crowd, lonely = rng.standard_normal((2, 32))
    rows = {f"{n:03d}.wav": crowd + 0.01 * rng.standard_normal((4, 32)) for n in range(100)}
    rows |= {"far.wav": lonely + 0.5 * rng.standard_normal((200, 32)), "query.wav": [crowd, lonely]}
    write_library(tmp_path / "l.parquet", rows)
    exact, indexed = (
        ExactSearch(read_library(tmp_path / "l.parquet")),
        IndexSearch(tmp_path / "l.parquet"),
    )
    query = query_of_library(exact, "query.wav")
    wanted, found = (
        [match.cosine for match in find_similar(search, query, 90, leave_out="query.wav")]
        for search in (exact, indexed)
    )
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_an_index_is_searched_as_widely_when_it_is_opened_again(large_library):
    graph = {"connectivity": 12, "expansion_add": 48, "expansion_search": 256}
    for _ in ("built", "opened"):
        index = IndexSearch(large_library)._index
        assert {name: getattr(index, name) for name in graph} == graph


def test_an_index_gives_all_rows_if_they_are_asked_for(large_library):
    search = IndexSearch(large_library)
    query = query_of_library(search, "007.wav")
    rows = [match.row for match in find_similar(search, query, 5_000)]
    assert len(rows) == len(set(rows)) >= 0.95 * 1800  # a graph need not reach every row


def test_an_index_follows_its_library(large_library, capsys):
    arguments = ["similar", "007.wav", str(large_library), "--index", "--per-track", "-n", "3"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    index = large_library.with_name("l.parquet.usearch")
    made = index.stat().st_mtime_ns
    assert main(arguments) == 0
    assert capsys.readouterr().out == first
    assert index.stat().st_mtime_ns == made
    os.utime(index, ns=(0, 0))  # its age is of no account
    assert main(arguments) == 0
    assert index.stat().st_mtime_ns == 0
    index.write_bytes(index.read_bytes()[:-60])  # as one of an older version, or cut off
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith(first)
    assert index.stat().st_mtime_ns >= made


def test_an_index_of_another_library_is_not_believed(tmp_path):
    """Whichever of the two is newer."""
    rng = np.random.default_rng(0)
    library, other = tmp_path / "l.parquet", tmp_path / "other.parquet"
    for path, name in ((library, "old"), (other, "new")):
        write_library(path, {f"{name}{n}.wav": rng.normal(size=(3, 8)) for n in range(40)})
    os.utime(other, ns=(0, 0))
    IndexSearch(library)
    other.replace(library)
    exact, index = ExactSearch(read_library(library)), IndexSearch(library)
    query = query_of_library(exact, "new7.wav")
    wanted, found = (
        find_similar(search, query, 3, leave_out="new7.wav") for search in (exact, index)
    )
    assert [match.row for match in found] == [match.row for match in wanted]
    np.testing.assert_allclose([m.cosine for m in found], [m.cosine for m in wanted], atol=1e-3)


def test_an_index_that_cannot_be_written_is_kept_in_memory(large_library, capsys, monkeypatch):
    def read_only(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("usearch.index.Index.save", read_only)
    arguments = ["similar", "007.wav", str(large_library), "--per-track", "-n", "3"]
    assert main(arguments) == 0
    names = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert main([*arguments, "--index"]) == 0
    captured = capsys.readouterr()
    assert [line.split()[-1] for line in captured.out.splitlines()] == names
    (line,) = (line for line in captured.err.splitlines() if "warning" in line)
    assert "l.parquet.usearch: cannot be written" in line
    assert not large_library.with_name("l.parquet.usearch").exists()


def test_a_damaged_index_is_made_anew(large_library, capsys):
    arguments = ["similar", "007.wav", str(large_library), "--index", "-n", "3"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    index = large_library.with_name("l.parquet.usearch")
    index.write_bytes(_mark_of(index))
    assert main(arguments) == 0
    assert capsys.readouterr().out == first
    assert [path.name for path in large_library.parent.iterdir() if "partial" in path.name] == []


def test_the_making_of_an_index_goes_on_where_it_stopped(large_library, monkeypatch):
    from usearch.index import Index

    monkeypatch.setattr("hear_tune.embedding.rows._ROWS_PER_WRITE", 100)
    monkeypatch.setattr("hear_tune.explore.index._FIRST_SAVE_S", 0)
    monkeypatch.setattr("hear_tune.explore.index._BUILDING_PER_SAVING", 0)
    added, add = [], Index.add

    def interrupted(index, keys, vectors):
        if len(index) > 1000 and not added:
            raise KeyboardInterrupt
        return add(index, keys, vectors)

    with monkeypatch.context() as patch:
        patch.setattr(Index, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            IndexSearch(large_library)

    def counted(index, keys, vectors):
        added.extend(keys)
        return add(index, keys, vectors)

    monkeypatch.setattr(Index, "add", counted)
    search = IndexSearch(large_library)
    assert 0 < len(added) < 1800
    assert len(find_similar(search, query_of_library(search, "007.wav"), 5_000)) > 1750
    assert sorted(p.name for p in large_library.parent.iterdir()) == [
        "l.parquet",
        "l.parquet.usearch",
    ]


def test_an_index_is_saved_as_seldom_as_it_takes_long(large_library, monkeypatch):
    """Rows take a second each time, and a save ten: one for each 200 s of building."""
    from usearch.index import Index

    clock, saves = [0.0], []
    monkeypatch.setattr("hear_tune.embedding.rows._ROWS_PER_WRITE", 2)
    monkeypatch.setattr("hear_tune.explore.index.time", SimpleNamespace(monotonic=lambda: clock[0]))
    add = Index.add

    def adding(index, keys, vectors):
        clock[0] += 1
        return add(index, keys, vectors)

    def saving(index, *_):
        clock[0] += 10
        saves.append(len(index))

    monkeypatch.setattr(Index, "add", adding)
    monkeypatch.setattr("hear_tune.explore.index._save", saving)
    IndexSearch(large_library)
    parts = saves[:-1]  # the last is the index itself
    assert parts[0] == 2 * 30
    assert set(np.diff(parts)) == {2 * 200}


# --- The model of a query ---


def test_the_model_must_be_the_library_s(tmp_path, small_model, music, capsys):
    checkpoint, library = tmp_path / "small.safetensors", tmp_path / "l.parquet"
    hear_tune.save_checkpoint(small_model.encoder, checkpoint)
    hear_tune.embed_folder([music], library, small_model, "timestamp")
    copy = tmp_path / "copy.wav"
    shutil.copy(music / "a.wav", copy)
    query = ["similar", str(copy), str(library), "--at", "1"]
    assert main(query) == 2
    assert "give the checkpoint" in capsys.readouterr().err
    assert main([*query, "--model", str(checkpoint)]) == 0
    first = capsys.readouterr().out.splitlines()[1].split()
    assert (float(first[0]), first[3]) == (1.0, str(music / "a.wav"))
    assert first[1] == first[2]
    copy.write_bytes(copy.read_bytes()[:-9_000])
    assert main([*query, "--model", str(checkpoint)]) == 0
    assert "copy.wav: cut off: " in capsys.readouterr().err
    other = hear_tune.build_encoder(small_model.encoder.config)
    hear_tune.save_checkpoint(other, checkpoint)
    assert main([*query, "--model", str(checkpoint)]) == 2
    assert f"{checkpoint} is custom sha256:" in capsys.readouterr().err


def test_a_query_has_the_library_s_precision(tmp_path, music):
    model = hear_tune.load_model(precision="bfloat16")
    hear_tune.embed_folder([music], tmp_path / "l.parquet", model)
    asked = model_of_library(read_library(tmp_path / "l.parquet"))
    assert asked.identity == model.identity
    assert asked.inference.precision == "bfloat16"


def test_a_query_in_a_library_from_a_gpu_is_embedded_here(tmp_path, music):
    hear_tune.embed_folder([music], tmp_path / "l.parquet", hear_tune.load_model())
    library = read_library(tmp_path / "l.parquet")
    library.identity["model"] += " float16"
    query = embed_query(music / "a.wav", library)
    expected = library.vectors[library.paths.index(str(music / "a.wav"))]
    np.testing.assert_allclose(query.vectors[0], expected, atol=1e-5)


def test_trained_weights_of_a_variant_are_asked_for(tmp_path):
    library = write_library(tmp_path / "l.parquet", {"a.wav": [[1, 0]]})
    library.identity.update(model="tune-vanilla-small sha256:00ff", layers=None)
    with pytest.raises(ExploreError, match="give the checkpoint"):
        model_of_library(library)


def test_libraries_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such output"):
        read_library(tmp_path / "gone.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(StoreError, match="not a Parquet file"):
        read_library(tmp_path / "text.parquet")
    for name in ("l.npy", "l.h5", "l.hdf5"):
        (tmp_path / name).touch()
        with pytest.raises(StoreError, match=f"{name}: only Parquet can be searched"):
            FileSearch(tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["similar", "x.wav", "random.parquet"], "neither a file nor a path in the library"),
        (["similar", "0/0.wav", "random.parquet", "--at", "11"], "outside the query, 0 to 10 s"),
        (["map", "random.parquet", "-o", "gone/map.html"], "no such folder"),
        (["map", "random.parquet", "-o", "map.html", "--labels", "x.csv"], "no such file"),
        (["report", "x", "-o", "r.json"], "name it r.html"),
        (["report", "x", "-o", "."], ".: is a folder"),
    ],
)
@pytest.mark.usefixtures("random_library")
def test_what_cannot_be_done(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


# --- map ---


def test_pca_finds_the_plane_of_the_points():
    generator = np.random.default_rng(1)
    angles = generator.uniform(0, 2 * np.pi, 200)
    plane = np.linalg.qr(generator.normal(size=(9, 2)))[0]
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    points, described = project((circle @ plane.T).astype(np.float32), "pca")
    np.testing.assert_allclose(np.linalg.norm(points - points.mean(0), axis=1).std(), 0, atol=0.1)
    distances = np.linalg.norm(points[:1] - points, axis=1)
    np.testing.assert_allclose(distances, np.linalg.norm(circle[:1] - circle, axis=1), atol=1e-4)
    assert "100 % of the variance" in described


def test_few_points_are_laid_out_all_the_same():
    for count in (1, 2, 5):
        points, described = project(np.eye(5, 3, dtype=np.float32)[:count])
        assert points.shape == (count, 2)
        assert np.isfinite(points).all()
        assert "UMAP needs more than 15 points" in described
    with pytest.raises(ExploreError, match="more than 15"):
        project(np.eye(5, dtype=np.float32), "umap")


def two_clouds():
    generator = np.random.default_rng(2)
    centres = np.repeat([[1, 0, 0, 0], [0, 1, 0, 0]], [30, 20], axis=0)
    return (centres + 0.05 * generator.normal(size=(50, 4))).astype(np.float32)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("umap") is None, reason="umap-learn is not installed")
@pytest.mark.filterwarnings("ignore")
def test_umap_keeps_clouds_apart():
    points, described = project(two_clouds(), "umap")
    assert described.startswith("UMAP")
    first, second = points[:30], points[30:]
    distances = np.linalg.norm(first[:, None] - second, axis=2)
    assert distances.min() > max(np.ptp(first, axis=0).max(), np.ptp(second, axis=0).max()) / 4


def test_neighbours_in_a_graph_are_others():
    """Wherever the point itself is among its nearest, or if fewer were found."""
    rows = np.array([[0, 2, 1], [0, 1, 2], [2, -1, -1]], np.int32)
    graph = Graph(rows, np.zeros((3, 3), np.float32), None)
    np.testing.assert_array_equal(graph.neighbours(2), [[2, 1], [0, 2], [2, 2]])
    np.testing.assert_array_equal(graph.neighbours(1), [[2], [0], [2]])


def test_few_points_have_exact_neighbours():
    assert approximate_graph(two_clouds()) is None


@pytest.mark.slow
@pytest.mark.skipif(find_spec("umap") is None, reason="umap-learn is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("projection", ["umap", "pca"])
def test_many_points_have_approximate_neighbours(large_library, tmp_path, monkeypatch, projection):
    monkeypatch.setattr("hear_tune.explore.projection.EXACT_POINTS", 1_000)
    monkeypatch.setattr("hear_tune.explore.map.neighbours", None)  # all pairs are not compared
    library = read_library(large_library)
    pages = [tmp_path / f"{number}.html" for number in range(2)]
    for page in pages:
        about = write_map(library, page, title="", projection=projection)
        assert projection.upper() in about
    assert pages[0].read_bytes() == pages[1].read_bytes()
    content = pages[0].read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', content)[1])
    rows = np.frombuffer(base64.b64decode(data["neighbours"]["rows"]), "<u4").reshape(-1, 10)
    exact = np.concatenate(list(neighbours(library.vectors, 10)))
    assert np.isfinite(np.frombuffer(base64.b64decode(data["x"]), "<f4")).all()
    assert (rows != np.arange(len(rows))[:, None]).all()
    found = [len(set(some) & set(wanted)) / 10 for some, wanted in zip(rows, exact, strict=True)]
    assert np.mean(found) > 0.95


def test_an_unknown_projection_is_refused_before_the_library_is_read(tmp_path):
    with pytest.raises(ValueError, match="projection must be one of umap, pca, not 't-sne'"):
        write_map(tmp_path / "none", tmp_path / "m.html", title="", projection="t-sne")
    with pytest.raises(ValueError, match="projection must be one of umap, pca, not 't-sne'"):
        project(np.eye(5, dtype=np.float32), "t-sne")


def test_clusters_are_numbered_from_the_largest():
    assert cluster(two_clouds(), 2) == [0] * 30 + [1] * 20
    with pytest.raises(ExploreError, match="50 points cannot be in 51 clusters"):
        cluster(two_clouds(), 51)


def test_a_label_for_no_path_is_an_error(random_library, tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\nelsewhere.wav,x\n")
    with pytest.raises(ValueError, match="no label for any path of the library, such as 0/0"):
        write_map(random_library, tmp_path / "m.html", title="", labels=tmp_path / "labels.csv")


def test_a_large_library_is_sampled(random_library, tmp_path):
    about = write_map(
        random_library, tmp_path / "m.html", title="", projection="pca", max_points=30
    )
    assert about.startswith("30 of 100 windows of ")
    about_file = write_map(
        tmp_path / "random.parquet", tmp_path / "f.html", title="", projection="pca", max_points=30
    )
    assert about_file == about
    assert (tmp_path / "f.html").read_bytes() == (tmp_path / "m.html").read_bytes()


def test_a_map_holds_the_vectors_of_its_sample(folder_library, tmp_path, monkeypatch):
    held = []
    read = library_files.read_vectors_of
    monkeypatch.setattr(
        "hear_tune.explore.similar.read_vectors_of",
        lambda *arguments: held.append(read(*arguments)) or held[-1],
    )
    options = ["--points", "30", "--projection", "pca"]
    assert main(["map", str(folder_library), "-o", str(tmp_path / "m.html"), *options]) == 0
    assert [vectors.shape for vectors in held] == [(30, 6)]


# --- map, in a browser ---


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


HOSTILE = "b/</script><script>document.title='broken'</script> #1?%.wav"
TRACKS = ["a/one.wav", "a/two.wav", HOSTILE, "c/three.wav"]


@pytest.fixture
def page(browser, tmp_path):
    """The map of four tracks of two windows, at the corners of a rectangle."""
    corners = {"a/one.wav": [2, 1], "a/two.wav": [2, -1], HOSTILE: [-2, 1], "c/three.wav": [-2, -1]}
    rows = {name: [[9, *at], [9, at[0], 0.94 * at[1]]] for name, at in corners.items()}
    for name in TRACKS:
        (tmp_path / "my music" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "my music" / name, noise(4 * RATE), RATE, format="WAV")
    (tmp_path / "labels.csv").write_text("path,label\na/one.wav,<b>good</b>\n")
    library = write_library(tmp_path / "l.parquet", rows)
    (tmp_path / "pages").mkdir()
    write_map(
        library,
        tmp_path / "pages" / "map.html",
        title="Four & more",
        music=tmp_path / "my music",
        labels=tmp_path / "labels.csv",
        clusters=2,
        projection="pca",
    )
    page = browser.new_context(viewport={"width": 1000, "height": 700}).new_page()
    complaints = []
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.goto((tmp_path / "pages" / "map.html").as_uri())
    wait_until(page, "canvas.width > 300 && !waiting")
    yield page
    page.context.close()
    assert complaints == []


def place(page, point):
    """Pixels of a point on the page."""
    box = page.locator("#map").bounding_box()
    x, y = page.evaluate(f"[screenX({point}), screenY({point})]")
    return box["x"] + x, box["y"] + y


def colours_at(page, point):
    """Colours on the canvas around a point's place."""
    return page.evaluate(
        """([point, size]) => {
            const ratio = devicePixelRatio;
            const corner = [screenX(point) - size / 2, screenY(point) - size / 2];
            const { data } = pen.getImageData(...corner.map((v) => v * ratio), size, size);
            return [...new Set(Array.from({ length: size * size }, (_, i) =>
                data.slice(4 * i, 4 * i + 3).join()))];
        }""",
        [point, DOT_PIXELS],
    )


def wait_until(page, condition):
    """Playwright's own wait evaluates text in the page, which the page forbids."""
    deadline = time.monotonic() + 30
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"never {condition}"
        page.wait_for_timeout(20)


def settled(page):
    wait_until(page, "!waiting")


def test_page_says_what_it_shows_and_draws_it(page):
    assert page.title() == "Four & more"
    about = page.locator("header p").inner_text()
    assert "8 windows of 4 files" in about
    assert "custom (00ff)" in about
    assert "PCA" in about
    drawn = [colours_at(page, point) for point in range(8)]
    assert drawn[0] == drawn[1] == drawn[2]  # of one folder
    assert len({tuple(drawn[point]) for point in (0, 4, 6)}) == 3
    assert all("255,255,255" not in colours for colours in drawn)


def test_search(page):
    page.keyboard.press("/")
    page.keyboard.type("thr")
    settled(page)
    assert "2 of 8 points marked" in page.locator("#count").inner_text()
    assert page.locator("#marked .name").all_inner_texts() == ["three.wav", "three.wav"]
    assert colours_at(page, 0) == colours_at(page, 4) != colours_at(page, 6)
    page.keyboard.press("Enter")
    assert page.locator("#chosen").inner_text().startswith("c/three.wav · 0:00.0")
    page.keyboard.type("x")
    assert page.locator("#count").inner_text() == "No name like that."
    page.keyboard.press("Escape")
    assert page.locator("#count").inner_text() == "No points marked."
    assert page.locator("#search").input_value() == ""


@pytest.mark.parametrize("point", [1, 5])  # the second has a name that must be quoted
def test_click_plays_the_moment(page, point):
    page.mouse.click(*place(page, point))
    wait_until(page, "audio.currentTime > 2.05 && !audio.paused")
    wait_until(page, "audio.paused")
    assert 3.9 < page.evaluate("audio.currentTime") < 4.1
    assert page.locator("#trouble").is_hidden()
    nearest = page.locator("#neighbours .name").all_inner_texts()
    assert len(nearest) == 7
    assert nearest[0] == TRACKS[point // 2].split("/")[-1]  # the track's other window


def test_keyboard(page):
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    seen = set()
    for key in ["ArrowLeft", *["ArrowUp"] * 3, "ArrowRight", *["ArrowDown"] * 3] * 2:
        page.keyboard.press(key)
        seen.add(page.evaluate("chosen") // 2)
    assert seen == {0, 1, 2, 3}
    assert page.evaluate("audio.paused")
    page.keyboard.press("Enter")
    wait_until(page, "!audio.paused")
    page.keyboard.press(" ")
    wait_until(page, "audio.paused")
    scale = page.evaluate("view.scale")
    page.keyboard.press("+")
    assert page.evaluate("view.scale") > scale
    left = page.evaluate("view.left")
    page.keyboard.press("Shift+ArrowLeft")
    assert page.evaluate("view.left") == left + 60
    page.keyboard.press("0")
    assert page.evaluate("view.scale") == scale
    page.keyboard.press("v")
    assert "8 of 8" in page.locator("#count").inner_text()


def test_lasso_and_list(page, tmp_path):
    page.keyboard.press("l")
    x, y = place(page, 0)
    page.mouse.move(x - 35, y - 35)
    page.mouse.down()
    for dx, dy in [(35, -35), (35, 35), (-35, 35)]:
        page.mouse.move(x + dx, y + dy, steps=4)
    page.mouse.up()
    assert "2 of 8" in page.locator("#count").inner_text()
    with page.expect_download() as download:
        page.locator("#save").click()
    download.value.save_as(tmp_path / "list.csv")
    with (tmp_path / "list.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"path": "a/one.wav", "start": "0", "end": "2"},
        {"path": "a/one.wav", "start": "2", "end": "4"},
    ]


def test_colour_by(page):
    page.locator("#colour").select_option(label="label")
    names = page.locator("#legend .name").all_inner_texts()
    assert names == ["(no label)", "<b>good</b>"]
    settled(page)
    assert colours_at(page, 0) != colours_at(page, 2) == colours_at(page, 4)
    page.locator("#legend button").nth(1).focus()
    page.keyboard.press("Enter")
    assert "2 of 8" in page.locator("#count").inner_text()
    page.keyboard.press("Enter")  # still on it
    assert page.locator("#count").inner_text() == "No points marked."
    page.locator("#colour").select_option(label="cluster")
    assert page.locator("#legend .note").all_inner_texts() == ["4", "4"]


def test_wheel_zooms_at_the_mouse_and_a_drag_moves(page):
    x, y = place(page, 3)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -400)
    wait_until(page, "view.scale > 1.5 * fitted")
    assert place(page, 3) == pytest.approx((x, y), abs=2)  # the mouse is on a whole pixel
    page.mouse.move(x + 40, y + 60)
    page.mouse.down()
    page.mouse.move(x + 60, y + 90, steps=3)
    page.mouse.up()
    assert place(page, 3) == pytest.approx((x + 20, y + 30), abs=2)


def test_light_and_dark(page):
    settled(page)
    light = page.evaluate("[...pen.getImageData(2, 2, 1, 1).data]")
    page.emulate_media(color_scheme="dark")
    wait_until(page, "pen.getImageData(2, 2, 1, 1).data[0] < 60")
    assert light[:3] == [255, 255, 255]


def test_music_that_is_gone_is_named(browser, random_library, tmp_path):
    write_map(random_library, tmp_path / "m.html", title="Gone", projection="pca")
    page = browser.new_page()
    page.goto((tmp_path / "m.html").as_uri())
    page.locator("#map").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_selector("#trouble:visible")
    assert "Cannot be played from" in page.locator("#trouble").inner_text()
    page.close()


@pytest.mark.usefixtures("sounds")
def test_command(tmp_path, capsys):
    capsys.readouterr()
    assert main(["map", "l.parquet", "-o", "map.html", "--projection", "pca"]) == 0
    captured = capsys.readouterr().out
    assert captured.startswith("map.html: 42 windows of 6 files · tune+ (")
    assert "music/pulse.wav" in (tmp_path / "map.html").read_text(encoding="utf-8")


# --- report ---


def metrics(path, lines):
    path.parent.mkdir(parents=True)
    path.write_text("epoch,probe/accuracy,step,train/loss\n" + lines)


def test_runs_that_were_interrupted(tmp_path):
    """The second log restarts at a step that the first had passed; its last line is cut off."""
    metrics(tmp_path / "run/logs/version_2/metrics.csv", ",0.5,0,\n0,,49,3\n0,,99,2.5\n1,,149,9\n")
    metrics(tmp_path / "run/logs/version_10/metrics.csv", "1,,149,2\n,0.75,150,\n2,,199,1\n2,,24")
    run = read_run(tmp_path / "run")
    steps, values = run.curves["train/loss"]
    np.testing.assert_array_equal(steps, [49, 99, 149, 199])
    np.testing.assert_array_equal(values, [3, 2.5, 2, 1])
    np.testing.assert_array_equal(run.curves["probe/accuracy"][1], [0.5, 0.75])
    assert (run.steps, run.epochs) == (200, 3)


def test_a_probe_after_a_step_is_of_that_step(tmp_path):
    """Rows of training number steps from 0; the first probe is before any."""
    metrics(tmp_path / "a/logs/version_0/metrics.csv", ",0.5,0,\n0,,49,3\n,0.75,50,\n")
    assert read_run(tmp_path / "a").steps == 50
    metrics(tmp_path / "b/logs/version_0/metrics.csv", ",0.5,0,\n")
    assert read_run(tmp_path / "b").steps == 0


def test_layers_are_reported_from_input_to_output(tmp_path):
    names = ["contractive.0", "contractive.1", "expansive.1", "expansive.0", "tail.1", "tail.2"]
    for name in sorted(names):
        (tmp_path / f"{name}.json").write_text(json.dumps(result("m", name, 0.5)))
    write_report([tmp_path], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    image = re.search(r'alt="Scores of each layer" src="data:image/svg\+xml;base64,([^"]+)"', page)
    drawn = base64.b64decode(image[1]).decode()
    places = [drawn.index(f"<!-- {name} -->") for name in names]
    assert places == sorted(places)


def test_urls_of_music_stay_urls(tmp_path):
    write_library(tmp_path / "l.parquet", {f"https://host/a {n}.mp3": [[n, 1]] for n in range(20)})
    library = read_library(tmp_path / "l.parquet")
    write_map(library, tmp_path / "m.html", title="", projection="pca")
    assert "https://host/a%200.mp3" in (tmp_path / "m.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("lines", ["0,,49\n", "0,,x,1\n", "0,,49,much\n"])
def test_damaged_logs_are_named(tmp_path, lines):
    metrics(tmp_path / "logs/version_0/metrics.csv", lines)
    with pytest.raises(ValueError, match=rf"{tmp_path}.*damaged"):
        read_run(tmp_path)


def test_a_run_without_logs_is_named(tmp_path):
    (tmp_path / "logs/version_0").mkdir(parents=True)
    with pytest.raises(ExploreError, match=rf"{tmp_path}: .* has logged nothing yet"):
        read_run(tmp_path)


def result(model, layer, accuracy, **changes):
    """A saved result of a probe."""
    entry = {"mean": accuracy, "interval": [accuracy - 0.1, accuracy + 0.05], "deviation": 0.0}
    return {
        "format": "hear-tune probe 1",
        "task": "loudness",
        "kind": "multiclass",
        "split": "",
        "classes": ["loud", "soft & low"],
        "model": model,
        "identity": model,
        "layers": [layer],
        "embedding_size": 8,
        "protocol": "clmr-linear",
        "seeds": [0],
        "scores": {"accuracy": entry, "macro_f1": entry},
        "per_class": {"loud": {"f1": 0.9}, "soft & low": {"f1": accuracy}},
        "confusion": [[9, 1], [3, 7]],
        **changes,
    }


def test_report_of_everything(tmp_path, capsys):
    for name in ("first", "second"):
        metrics(tmp_path / name / "logs/version_0/metrics.csv", "0,,49,3\n0,,99,2.125\n")
        (tmp_path / name / "logs/version_0/config.yaml").write_text("title: <none>\n")
    results = tmp_path / "results"
    results.mkdir()
    for model, layer, accuracy in [
        ("<i>mine</i>", "tail.10", 0.875),
        ("<i>mine</i>", "tail.9", 0.75),
        ("mfcc", "statistics", 0.5),
    ]:
        saved = result(model, layer, accuracy)
        (results / f"{layer}.json").write_text(json.dumps(saved))
    runs = [str(tmp_path / "first"), str(tmp_path / "second")]
    output = tmp_path / "report.html"
    assert main(["report", *runs, str(results), "-o", str(output)]) == 0
    assert "2 training runs, 3 results" in capsys.readouterr().out
    page = output.read_text(encoding="utf-8")
    assert "<i>" not in page
    assert "<td>2.125</td>" in page
    assert "title: &lt;none&gt;" in page
    assert "<td>0.875 [0.775, 0.925]</td>" in page
    image = r'<img alt="([^"]+)" src="data:image/svg\+xml;base64,([^"]+)"'
    pictures = dict(re.findall(image, page))
    of_mfcc = "mfcc, statistics, clmr-linear"
    assert list(pictures) == [
        "Training curves over steps",
        "Scores side by side",
        "Scores of each layer",
        f"Scores of each class: {of_mfcc}",
        f"Confusion matrix: {of_mfcc}",
    ]
    for picture in pictures.values():
        assert ElementTree.fromstring(base64.b64decode(picture)).tag.endswith("svg")


def test_nothing_to_report_on(tmp_path):
    with pytest.raises(ValueError, match="neither a training run nor a folder of results"):
        write_report([tmp_path], tmp_path / "report.html")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"other.json: not a result"):
        write_report([tmp_path], tmp_path / "report.html")
