"""Music in object stores, given by URL and embedded on this machine."""

import fsspec
import numpy as np
import pytest
import soundfile
from conftest import noise

import hear_tune
from hear_tune.audio import files
from hear_tune.cli import main
from hear_tune.embedding.library import read_library

RATE = 22_050


@pytest.fixture
def tracks(tmp_path):
    folder = tmp_path / "tracks"
    folder.mkdir()
    for number in range(3):
        soundfile.write(folder / f"{number:02d}.wav", noise(60_000, number), RATE)
    return folder


@pytest.fixture
def bucket(tracks):
    """The tracks in a store that is no disk, among other things."""
    store = fsspec.filesystem("memory")
    for name in ("00.wav", "deeper/01.wav", ".hidden/02.wav", "notes.txt"):
        source = tracks / name.rpartition("/")[2] if name.endswith(".wav") else tracks / "00.wav"
        store.pipe_file(f"/bucket/{name}", source.read_bytes())
    yield store
    store.rm("/bucket", recursive=True)


@pytest.mark.usefixtures("bucket")
def test_audio_is_found(tracks):
    found = files.find_audio("memory://bucket")
    assert found.paths == ["memory:///bucket/00.wav", "memory:///bucket/deeper/01.wav"]
    assert found.ignored == {".txt": 1}
    found = files.find_audio([f"file://{tracks}", f"file://{tracks}/0*.wav"])
    assert found.paths == [f"file://{path}" for path in sorted(tracks.iterdir())]
    with pytest.raises(ValueError, match=r"nowhere://x: cannot be searched"):
        files.find_audio("nowhere://x")


def test_a_file_is_embedded(bucket, tracks, small_model):
    rows = hear_tune.embed_file("memory:///bucket/deeper/01.wav", small_model)
    expected = hear_tune.embed_file(tracks / "01.wav", small_model)
    np.testing.assert_array_equal(rows.vectors, expected.vectors)
    bucket.pipe_file("/bucket/empty.wav", b"")
    with pytest.raises(hear_tune.AudioError, match=r"empty\.wav: the file is empty"):
        hear_tune.embed_file("memory:///bucket/empty.wav", small_model)
    with pytest.raises(hear_tune.AudioError, match=r"gone\.wav: cannot be fetched"):
        hear_tune.embed_file("memory:///bucket/gone.wav", small_model)


def test_a_bucket_is_embedded(bucket, tracks, small_model, tmp_path):
    bucket.pipe_file("/bucket/broken.wav", b"no sound")
    output = tmp_path / "music.parquet"
    report = hear_tune.embed_folder("memory://bucket", output, small_model, "window")
    assert list(report.failed) == ["memory:///bucket/broken.wav"]
    found = read_library(output)
    assert set(found.paths) == {"memory:///bucket/00.wav", "memory:///bucket/deeper/01.wav"}
    expected = [hear_tune.embed_file(tracks / f"0{n}.wav", small_model, "window") for n in (0, 1)]
    np.testing.assert_array_equal(found.vectors, np.concatenate([e.vectors for e in expected]))
    again = hear_tune.embed_folder("memory://bucket", output, small_model, "window")
    assert (again.embedded, again.skipped) == (0, 2)


def test_the_command_takes_urls(tracks, small_model, tmp_path):
    checkpoint, output = tmp_path / "model.safetensors", tmp_path / "music.parquet"
    hear_tune.save_checkpoint(small_model.encoder, checkpoint)
    options = ["-o", str(output), "--model", str(checkpoint)]
    assert main(["embed", f"file://{tracks}", *options]) == 0
    hear_tune.embed_folder(tracks, tmp_path / "local.parquet", small_model)
    found, local = read_library(output), read_library(tmp_path / "local.parquet")
    assert found.paths == [f"file://{path}" for path in local.paths]
    np.testing.assert_allclose(found.vectors, local.vectors, rtol=1e-4, atol=1e-6)
