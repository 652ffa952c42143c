"""Embedding arrays, files and folders; interruptions and bad files."""

import copy
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from conftest import noise
from models import CrashingModel
from sound_files import bad_files, odd_files

import hear_tune
from hear_tune.audio import files
from hear_tune.common.files import InUseError
from hear_tune.embedding import folder as embed
from hear_tune.embedding import groups, workers
from hear_tune.embedding.framing import PER_CHOICES
from hear_tune.embedding.library import read_library
from hear_tune.embedding.rows import StoreError

RATE = 22_050


def table(path):
    return pq.read_table(path).to_pydict()


def vectors(path):
    return np.array(table(path)["embedding"])


# --- Arrays and files ---


@pytest.mark.parametrize("per", PER_CHOICES)
def test_file_array_and_tensor_agree(small_model, tmp_path, per):
    samples = noise(200_000)
    soundfile.write(tmp_path / "x.wav", samples, RATE, subtype="FLOAT")
    from_file = hear_tune.embed_file(tmp_path / "x.wav", small_model, per)
    from_array = hear_tune.embed_array(samples, RATE, small_model, per)
    np.testing.assert_array_equal(from_file.vectors, from_array.vectors)
    np.testing.assert_array_equal(from_file.start, from_array.start)
    assert len(from_file.start) == len(from_file.end) == len(from_file.vectors)
    assert from_file.start[0] == 0
    assert from_file.end[-1] == pytest.approx(200_000 / RATE, abs=0.034)
    tensor = torch.from_numpy(samples)[None]
    if per == "track":
        expected = hear_tune.get_scene_embeddings(tensor, small_model)
        np.testing.assert_allclose(from_file.vectors, expected, rtol=1e-5)
    if per == "timestamp":
        expected, timestamps = hear_tune.get_timestamp_embeddings(tensor, small_model)
        np.testing.assert_allclose(from_file.vectors, expected[0], rtol=1e-5)
        np.testing.assert_allclose(500 * (from_file.start + from_file.end), timestamps[0])


def test_windows_say_what_they_cover(small_model):
    rows = hear_tune.embed_array(noise(150_000), RATE, small_model, "window")
    np.testing.assert_allclose(rows.start * RATE, [0, 59_049, 90_951])
    np.testing.assert_allclose(rows.end * RATE, [59_049, 118_098, 150_000])


def test_a_bad_file_is_named(small_model, tmp_path):
    (tmp_path / "x.wav").write_text("no sound")
    with pytest.raises(hear_tune.AudioError, match=r"x\.wav: it is a text file"):
        hear_tune.embed_file(tmp_path / "x.wav", small_model)


# --- Folders ---


def test_a_folder(small_model, music, tmp_path):
    report = hear_tune.embed_folder([music], tmp_path / "out.parquet", small_model)
    assert (report.embedded, report.skipped, report.failed) == (4, 0, {})
    rows = table(tmp_path / "out.parquet")
    names = ["a.wav", "b.flac", "deeper/c.ogg", "deeper/d.mp3"]
    assert rows["path"] == [str(music / name) for name in names]
    assert rows["start"] == [0] * 4
    np.testing.assert_allclose(
        rows["end"][:3], [70_000 / RATE, 30_000 / RATE, 60_000 / 44_100], 1e-4
    )
    assert set(rows["model"]) == {small_model.identity}
    for name, row in zip(names, rows["embedding"], strict=True):
        alone = hear_tune.embed_file(music / name, small_model).vectors[0]
        np.testing.assert_allclose(row, alone, rtol=1e-4, atol=1e-6)
    assert not (tmp_path / "out.parquet.parts").exists()


@pytest.mark.parametrize("per", PER_CHOICES)
def test_formats_hold_the_same(small_model, music, tmp_path, per):
    for name in ("out.parquet", "out.npy", "out.h5"):
        hear_tune.embed_folder([music], tmp_path / name, small_model, per)
    expected = vectors(tmp_path / "out.parquet")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected.astype(np.float32))
    paths = table(tmp_path / "out.parquet")["path"]
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "path,start,end,model"
    assert [line.split(",")[0] for line in lines[1:]] == paths
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["embedding"], expected.astype(np.float32))
        assert [name.decode() for name in file["path"]] == paths


def test_new_files_extend_a_parquet_output(small_model, music, tmp_path):
    out = tmp_path / "out.parquet"
    hear_tune.embed_folder([music], out, small_model)
    before = table(out)
    soundfile.write(music / "new.wav", noise(5000), RATE)
    report = hear_tune.embed_folder([music], out, small_model)
    assert (report.embedded, report.skipped) == (1, 4)
    after = table(out)
    assert after["path"] == [*before["path"], str(music / "new.wav")]
    assert after["embedding"][:4] == before["embedding"]
    unchanged = out.stat().st_mtime_ns
    assert hear_tune.embed_folder([music], out, small_model).embedded == 0
    assert out.stat().st_mtime_ns == unchanged


def test_other_outputs_are_only_overwritten_on_request(small_model, music, tmp_path):
    out = tmp_path / "out.npy"
    hear_tune.embed_folder([music], out, small_model)
    with pytest.raises(StoreError, match="only Parquet output can be extended"):
        hear_tune.embed_folder([music], out, small_model)
    assert hear_tune.embed_folder([music], out, small_model, overwrite=True).embedded == 4


def test_one_output_never_mixes_models_or_options(small_model, music, tmp_path):
    out = tmp_path / "out.parquet"
    hear_tune.embed_folder([music], out, small_model)
    with pytest.raises(StoreError, match=r"begun with .*per 'track', not 'window'"):
        hear_tune.embed_folder([music], out, small_model, "window")
    changed = copy.deepcopy(small_model)
    changed.encoder.tail["3"].conv.bias.data += 1
    with pytest.raises(StoreError, match="begun with model 'custom sha256:"):
        hear_tune.embed_folder([music], out, changed)
    dense = hear_tune.EmbeddingModel(small_model.encoder, hop_ms=500)
    with pytest.raises(StoreError, match="begun with hop_samples"):
        hear_tune.embed_folder([music], out, dense)
    other = hear_tune.EmbeddingModel(small_model.encoder, layers="tail.1")
    with pytest.raises(StoreError, match=r"begun with layers \['tail.3'\], not \['tail.1'\]"):
        hear_tune.embed_folder([music], out, other)
    assert hear_tune.embed_folder([music], out, other, overwrite=True).embedded == 4


def test_outputs_that_cannot_be_written(small_model, music, tmp_path):
    (tmp_path / "text.parquet").write_text("not parquet")
    (tmp_path / "file").write_text("")
    for name, message in {
        "out.xlsx": "must end in one of",
        "text.parquet": "not a Parquet file",
        "file/out.parquet": "cannot be written",
    }.items():
        with pytest.raises(StoreError, match=message):
            hear_tune.embed_folder([music], tmp_path / name, small_model)
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pq.read_table(write_any_parquet(foreign)).remove_column(0), foreign)
    with pytest.raises(StoreError, match="not written by hear-tune"):
        hear_tune.embed_folder([music], foreign, small_model)


def write_any_parquet(path):
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1], "b": [2]}), path)
    return path


def test_damage_is_found_and_named(small_model, music, tmp_path):
    """In every column, before any row is used."""
    out = tmp_path / "out.parquet"
    hear_tune.embed_folder([music], out, small_model)
    group = pq.ParquetFile(out).metadata.row_group(0)
    for column in range(group.num_columns):
        data = bytearray(out.read_bytes())
        chunk = group.column(column)
        if chunk.path_in_schema == "model":
            continue
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        data[start + chunk.total_compressed_size - 1] ^= 1
        (tmp_path / "bad.parquet").write_bytes(data)
        with pytest.raises(StoreError, match=r"bad\.parquet: damaged"):
            read_library(tmp_path / "bad.parquet")


def test_nothing_to_embed(small_model, tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "cover.jpg").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"no audio files in .*music \(looked for .*\.wav"):
        hear_tune.embed_folder([tmp_path / "music"], tmp_path / "out.parquet", small_model)


@pytest.mark.parametrize("per", PER_CHOICES)
def test_bad_files_do_not_end_the_job(small_model, tmp_path, per):
    folder = tmp_path / "music"
    folder.mkdir()
    expected = bad_files(folder)
    expected.pop("folder.wav")  # a folder is searched, not read
    odd = odd_files(folder)
    soundfile.write(folder / "silent.wav", np.zeros(50_000), RATE)
    soundfile.write(folder / "one.wav", np.array([0.5]), RATE)
    soundfile.write(folder / "one 192k.wav", np.array([0.5]), 192_000)
    soundfile.write(folder / "eight.wav", np.stack([noise(9_000)] * 8, 1), 192_000)
    soundfile.write(folder / "späce ümlaut\nnewline.wav", noise(30_000), RATE)
    undecodable = os.fsdecode(os.fsencode(folder) + b"/latin\xe9.wav")
    soundfile.write(os.fsencode(undecodable), noise(30_000), RATE, format="WAV")
    inputs = [folder, folder / "missing.wav", folder / "whole.flac"]
    report = hear_tune.embed_folder(inputs, tmp_path / "out.parquet", small_model, per)
    expected["one 192k.wav"] = "shorter than one sample"
    reasons = {os.path.basename(path): reason for path, reason in report.failed.items()}
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in reasons[name]
    assert [os.path.basename(path) for path in report.silent] == ["silent.wav"]
    paths = table(tmp_path / "out.parquet")["path"]
    names = {path.removeprefix(f"{folder}/") for path in paths}
    good = {"silent.wav", "one.wav", "eight.wav", "whole.flac", "späce ümlaut\nnewline.wav"}
    assert names == good | {"latin\\xe9.wav"} | odd.keys()
    odd["silent.wav"] = "silent"
    remarks = {os.path.basename(path): remark for path, (remark,) in report.remarks.items()}
    assert remarks.keys() == odd.keys()
    assert all(remarks[name].startswith(start) for name, start in odd.items())
    assert {os.path.basename(path) for path in report.incomplete} == {
        name for name in odd if name.startswith("cut")
    }
    again = hear_tune.embed_folder(inputs, tmp_path / "out.parquet", small_model, per)
    assert again.embedded == 0
    assert again.remarks == report.remarks
    assert sorted(again.incomplete) == sorted(report.incomplete)
    assert np.isfinite(vectors(tmp_path / "out.parquet")).all()


def test_only_bad_files_leave_no_output(small_model, tmp_path):
    (tmp_path / "x.wav").write_text("no sound")
    report = hear_tune.embed_folder([tmp_path / "x.wav"], tmp_path / "out.parquet", small_model)
    assert list(report.failed) == [str(tmp_path / "x.wav")]
    assert not (tmp_path / "out.parquet").exists()
    assert not (tmp_path / "out.parquet.parts").exists()


def test_links_loops_and_hidden_files(music, tmp_path):
    (music / "loop").symlink_to(music)
    (tmp_path / "elsewhere").mkdir()
    soundfile.write(tmp_path / "elsewhere" / "e.wav", noise(500), RATE)
    (music / "linked").symlink_to(tmp_path / "elsewhere")
    (music / "once more").symlink_to(tmp_path / "elsewhere")
    (music / "alias").symlink_to(music / "real")
    (music / "real").mkdir()
    soundfile.write(music / "real" / "f.wav", noise(500), RATE)
    (music / "._a.wav").write_bytes(b"resource fork")
    found = files.find_audio([music, music / "a.wav"])
    names = [path.name for path in found.paths]
    assert sorted(names) == ["a.wav", "b.flac", "c.ogg", "d.mp3", "e.wav", "f.wav"]
    assert music / "real" / "f.wav" in found.paths  # and not by its other name
    assert found.ignored == {".txt": 1}
    assert files.find_audio(str(music)).paths == found.paths


def test_a_wrong_per_is_refused(small_model, music, tmp_path):
    for call in (
        lambda: hear_tune.embed_folder(music, tmp_path / "out.parquet", small_model, "windows"),
        lambda: hear_tune.embed_file(music / "a.wav", small_model, "windows"),
        lambda: hear_tune.embed_array(noise(500), RATE, small_model, "windows"),
    ):
        with pytest.raises(ValueError, match="per must be one of track, window, timestamp"):
            call()


def test_overwriting_keeps_the_old_output_until_the_new_one_is_there(
    small_model, music, tmp_path, monkeypatch
):
    out = tmp_path / "out.parquet"
    hear_tune.embed_folder(music, out, small_model)
    before = out.read_bytes()
    (tmp_path / "bad.wav").write_text("no sound")
    hear_tune.embed_folder(tmp_path / "bad.wav", out, small_model, overwrite=True)
    assert out.read_bytes() == before
    monkeypatch.setattr(files, "GROUP_FILES", 2)
    read = embed.read_blocks

    def interrupted(path, remarks):
        if path.name == "d.mp3":
            raise KeyboardInterrupt
        return read(path, remarks)

    with monkeypatch.context() as patch:
        patch.setattr(groups, "read_blocks", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hear_tune.embed_folder(music, out, small_model, "window", overwrite=True)
    assert out.read_bytes() == before
    report = hear_tune.embed_folder(music, out, small_model, "window", overwrite=True)
    assert (report.embedded, report.skipped) == (2, 2)
    assert len(table(out)["path"]) == 5


def test_a_foreign_csv_is_not_overwritten(small_model, music, tmp_path):
    (tmp_path / "tracks.csv").write_text("precious")
    with pytest.raises(StoreError, match=r"tracks\.csv: exists"):
        hear_tune.embed_folder(music, tmp_path / "tracks.npy", small_model)
    assert (tmp_path / "tracks.csv").read_text() == "precious"


def test_rows_of_a_file_that_fails_late_are_removed(small_model, tmp_path, monkeypatch):
    monkeypatch.setattr("hear_tune.embedding.rows._ROWS_PER_WRITE", 100)
    soundfile.write(tmp_path / "whole.wav", noise(3_000_000), RATE)
    soundfile.write(tmp_path / "bad.wav", noise(3_000_000), RATE, subtype="FLOAT")
    data = bytearray((tmp_path / "bad.wav").read_bytes())
    position = len(data) - 40_000
    data[position - position % 4 : position - position % 4 + 4] = np.float32(np.nan).tobytes()
    (tmp_path / "bad.wav").write_bytes(data)
    inputs = [tmp_path / "bad.wav", tmp_path / "whole.wav"]
    report = hear_tune.embed_folder(inputs, tmp_path / "o.parquet", small_model, "timestamp")
    assert list(report.failed) == [str(tmp_path / "bad.wav")]
    assert set(table(tmp_path / "o.parquet")["path"]) == {str(tmp_path / "whole.wav")}
    assert report.seconds == pytest.approx(3_000_000 / RATE)


def test_a_part_of_an_earlier_version_with_dropped_rows_is_made_anew(small_model, music, tmp_path):
    out, parts = tmp_path / "out.parquet", tmp_path / "out.parquet.parts"
    hear_tune.embed_folder([music], out, small_model)
    rows = pq.read_table(out)
    parts.mkdir()
    out.unlink()
    dropped = {b"hear_tune.dropped": f'["{music}/a.wav"]', **rows.schema.metadata}
    pq.write_table(rows.replace_schema_metadata(dropped), parts / "000000.parquet")
    assert hear_tune.embed_folder([music], out, small_model).embedded == 4
    assert pq.read_table(out).equals(rows)


# --- Interruptions ---


@pytest.mark.parametrize("per", PER_CHOICES)
@pytest.mark.parametrize("break_at", [1, 7, 22])
def test_interrupted_and_resumed_equals_uninterrupted(
    small_model, library, tmp_path, monkeypatch, per, break_at
):
    monkeypatch.setattr(files, "GROUP_FILES", 4)
    hear_tune.embed_folder([library], tmp_path / "whole.parquet", small_model, per)
    read = embed.read_blocks

    def interrupted(path, remarks):
        if path.name == f"{break_at:02d}.wav":
            raise KeyboardInterrupt
        return read(path, remarks)

    out = tmp_path / "out.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(groups, "read_blocks", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hear_tune.embed_folder([library], out, small_model, per)
    assert not out.exists()
    report = hear_tune.embed_folder([library], out, small_model, per)
    assert report.skipped == 4 * (break_at // 4)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))


def test_killed_at_any_moment(library, tmp_path):
    """kill -9 only loses the current group, and the output is the same in the end."""
    arguments = ["embed", library, "--variant", "tune-vanilla-small", "--per", "window", "-o"]
    program = (
        "import sys; from hear_tune.audio import files; files.GROUP_FILES = 2; "
        "from hear_tune.cli import main; sys.exit(main(sys.argv[1:]))"
    )

    def start(out):
        command = [sys.executable, "-c", program, *map(str, arguments), str(out)]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    assert start(tmp_path / "whole.parquet").wait() == 0
    out, parts = tmp_path / "out.parquet", tmp_path / "out.parquet.parts"
    for finished in (2, 6):
        process = start(out)
        while process.poll() is None and len(list(parts.glob("0*.parquet"))) < finished:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists()
        assert len(list(parts.glob("0*.parquet"))) >= finished
    assert start(out).wait() == 0
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))


def test_killed_between_joining_and_cleaning(small_model, library, tmp_path, monkeypatch):
    out = tmp_path / "out.parquet"
    monkeypatch.setattr(files, "GROUP_FILES", 10)
    hear_tune.embed_folder([library], tmp_path / "whole.parquet", small_model)
    with monkeypatch.context() as patch:
        patch.setattr(
            "pathlib.Path.unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            hear_tune.embed_folder([library], out, small_model)
    assert out.exists()
    assert hear_tune.embed_folder([library], out, small_model).skipped == 23
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))
    assert not (tmp_path / "out.parquet.parts").exists()


def test_two_processes_cannot_write_one_output(small_model, music, tmp_path):
    out = tmp_path / "out.parquet"
    with (
        embed.EmbeddingOutput(out, {"model": "x"}),
        pytest.raises(InUseError, match="another process is writing it"),
    ):
        hear_tune.embed_folder([music], out, small_model)


@pytest.mark.slow
def test_real_recordings(model, shared_data, tmp_path):
    """Every note is embedded, and even random weights separate flutes from drums."""
    folders = [shared_data / "philharmonia/audio" / name for name in ("flute", "percussion")]
    report = hear_tune.embed_folder(folders, tmp_path / "out.parquet", model)
    assert report.embedded > 300
    assert not report.failed
    rows = vectors(tmp_path / "out.parquet")
    rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    flute = np.array(["/flute/" in path for path in table(tmp_path / "out.parquet")["path"]])
    known, unknown = slice(0, None, 2), slice(1, None, 2)
    flutes, drums = rows[known][flute[known]].mean(0), rows[known][~flute[known]].mean(0)
    nearer = np.linalg.norm(rows - flutes, axis=1) < np.linalg.norm(rows - drums, axis=1)
    assert (nearer == flute)[unknown].mean() > 0.7


# --- Workers ---


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_write_what_one_process_writes(
    small_model, library, tmp_path, monkeypatch, start_method
):
    monkeypatch.setattr(workers, "_start_method", lambda: start_method)
    monkeypatch.setattr(files, "GROUP_FILES", 12)  # two groups
    (library / "05.wav").write_text("no sound")
    soundfile.write(library / "06.wav", np.zeros(30_000), RATE)
    alone = hear_tune.embed_folder([library], tmp_path / "alone.parquet", small_model)
    shared = hear_tune.embed_folder([library], tmp_path / "shared.parquet", small_model, workers=3)
    assert sorted(shared.failed) == sorted(alone.failed) == [str(library / "05.wav")]
    assert shared.silent == alone.silent == [str(library / "06.wav")]
    assert shared.embedded == alone.embedded == 22
    assert shared.seconds == pytest.approx(alone.seconds)
    assert table(tmp_path / "shared.parquet") == table(tmp_path / "alone.parquet")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_rows_are_the_same_to_the_last_bit_however_they_are_computed(model, tmp_path, monkeypatch):
    """For any number of processes and of torch's threads, interrupted or not."""
    monkeypatch.setattr(files, "GROUP_FILES", 2)
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", noise(20_000, number), RATE)
    inputs = [tmp_path / f"{number}.wav" for number in range(4)]
    whole = tmp_path / "whole.parquet"
    hear_tune.embed_folder(inputs, whole, model, workers=2)
    hear_tune.embed_folder(inputs, tmp_path / "alone.parquet", model)
    read = groups.read_blocks

    def interrupted(path, remarks):
        if path == inputs[2]:
            raise KeyboardInterrupt
        return read(path, remarks)

    with monkeypatch.context() as patch:
        patch.setattr(groups, "read_blocks", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hear_tune.embed_folder(inputs, tmp_path / "resumed.parquet", model)
    report = hear_tune.embed_folder(inputs, tmp_path / "resumed.parquet", model, workers=2)
    assert report.skipped == 2
    for name in ("alone", "resumed"):
        assert pq.read_table(tmp_path / f"{name}.parquet").equals(pq.read_table(whole))
    assert torch.get_num_threads() == 2


def test_a_file_that_kills_its_worker_is_named_and_the_others_are_embedded(
    small_model, library, tmp_path, monkeypatch
):
    monkeypatch.setattr(files, "GROUP_FILES", 6)
    for name in ("02.wav", "03.wav", "17.wav"):
        soundfile.write(library / name, np.full(20_000, 0.25), RATE)
    model = CrashingModel(small_model.encoder)
    report = hear_tune.embed_folder([library], tmp_path / "o.parquet", model, workers=2)
    assert sorted(report.failed) == [str(library / f"{n}.wav") for n in ("02", "03", "17")]
    assert set(report.failed.values()) == {"the process that decoded it was killed by SIGSEGV"}
    assert report.embedded == 20
    names = [os.path.basename(path) for path in table(tmp_path / "o.parquet")["path"]]
    assert names == [f"{n:02d}.wav" for n in range(23) if n not in (2, 3, 17)]


@pytest.mark.parametrize("guarded", [False, True])
def test_a_worker_that_cannot_begin_ends_the_work(library, tmp_path, guarded):
    """A spawned worker runs the script again up to its guard, or may be killed at once."""
    body = f"hear_tune.embed_folder([{str(library)!r}], 'o.parquet', model, workers=2)"
    lines = [
        "import multiprocessing, sys, hear_tune",
        "from hear_tune.embedding import workers",
        "workers._start_method = lambda: 'spawn'",
        "model = hear_tune.load_model()",
        *(["if multiprocessing.parent_process(): sys.exit(3)"] if guarded else []),
        body,
    ]
    (tmp_path / "script.py").write_text("\n".join(lines))
    command = [sys.executable, "script.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert result.returncode == 1
    assert "WorkerError: a worker ended with exit code" in result.stderr
    assert 'if __name__ == "__main__":' in result.stderr


def test_a_worker_that_cannot_write_ends_the_work(small_model, library, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "GROUP_FILES", 4)
    monkeypatch.setattr(embed.EmbeddingOutput, "new_part", lambda *_: UnwritablePart())
    with pytest.raises(OSError, match="No space left"):
        hear_tune.embed_folder([library], tmp_path / "o.parquet", small_model, workers=2)


class UnwritablePart:
    def __enter__(self):
        raise OSError(28, "No space left on device")

    def __exit__(self, *_):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
@pytest.mark.parametrize("before", ["", "hear_tune.embed_array(sound, 22_050, model)"])
def test_a_process_that_is_forked_after_loading_or_embedding(tmp_path, before):
    """OpenMP's threads are not forked, and waiting for them would hang."""
    lines = [
        "from multiprocessing import get_context",
        "import numpy, hear_tune",
        "model = hear_tune.load_model()",
        "sound = numpy.float32(numpy.sin(numpy.arange(60_000)))",
        before,
        "def embed(sound): return hear_tune.embed_array(sound, 22_050, model).vectors.shape",
        "with get_context('fork').Pool(1) as pool: print(pool.map(embed, [sound]))",
    ]
    (tmp_path / "script.py").write_text("\n".join(lines))
    command = [sys.executable, tmp_path / "script.py"]
    threads = os.environ | {"OMP_NUM_THREADS": "2"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=threads)
    assert result.stdout.strip() == "[(1, 512)]"


def test_loading_starts_no_threads():
    """Torch starts none, so that a forked process can compute."""
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("needs /proc")
    program = (
        "import os; from hear_tune import load_model; before = os.listdir('/proc/self/task'); "
        "load_model(); print(set(os.listdir('/proc/self/task')) - set(before))"
    )
    threads = os.environ | {"OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=threads)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize("workers", [0, float("nan")])
def test_a_number_of_workers_out_of_range(small_model, library, tmp_path, workers):
    with pytest.raises(ValueError, match=rf"workers must be .*at least 1, not {workers}"):
        hear_tune.embed_folder([library], tmp_path / "o.parquet", small_model, workers=workers)
