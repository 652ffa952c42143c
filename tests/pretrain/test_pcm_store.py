import json

import numpy as np
import pytest
import soundfile
from conftest import noise, tone

from hear_tune.audio import files
from hear_tune.cli import main
from hear_tune.embedding.workers import FileReport
from hear_tune.pretrain.pcm_store import AudioStore, AudioStoreError, build_store, to_pcm

RATE = 22_050


def test_a_store_holds_the_decoded_audio(music, tmp_path):
    assert build_store([music], tmp_path / "store", workers=2) == FileReport()
    store = AudioStore(tmp_path / "store")
    assert [track.path for track in store.tracks] == [
        str(music / name) for name in ("a.wav", "b.flac", "deeper/c.ogg", "deeper/d.mp3")
    ]
    samples, _ = soundfile.read(music / "a.wav", dtype="int16")
    track = store.tracks[0]
    assert track.samples == 70_000
    np.testing.assert_array_equal(store.crop(track, 0, track.samples), samples)
    np.testing.assert_array_equal(store.crop(track, 123, 1000), samples[123:1123])
    assert len(store.crop(track, 69_990, 1000)) == 10
    assert store.tracks[2].samples == pytest.approx(30_000, abs=1)
    assert store.verify() == []


def test_full_scale_is_clipped_not_wrapped():
    floats = np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5], np.float32)
    pcm = [-32_768, -32_768, -16_384, 0, 16_384, 32_767, 32_767]
    assert to_pcm(floats).tolist() == pcm


def test_new_files_are_added_and_old_ones_kept(music, tmp_path):
    store = tmp_path / "store"
    build_store([music], store, workers=1)
    before = {path: path.stat().st_mtime_ns for path in store.glob("0*")}
    soundfile.write(music / "new.wav", noise(500), RATE)
    build_store([music], store, workers=1)
    assert len(AudioStore(store).tracks) == 5
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_an_interrupted_build_resumes(music, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "GROUP_FILES", 1)
    store = tmp_path / "store"
    build_store([music], store, workers=1)
    whole = {path.name: path.read_bytes() for path in store.glob("0*")}
    (store / "000002.json").unlink()  # killed before the third part was complete
    (store / "000003.json").rename(store / "000003.json.partial")
    build_store([music], store, workers=1)
    tracks = AudioStore(store).tracks
    assert sorted(track.path for track in tracks) == sorted(
        entry["path"]
        for name in whole
        if name.endswith("json")
        for entry in json.loads(whole[name])["tracks"]
    )
    assert AudioStore(store).verify() == []


def test_bad_files_are_named(music, tmp_path):
    (music / "bad.wav").write_text("no sound")
    flac = (music / "b.flac").read_bytes()
    (music / "cut.flac").write_bytes(flac[: len(flac) // 2])
    report = build_store([music], tmp_path / "store", workers=1)
    cut = str(music / "cut.flac")
    assert list(report.failed) == [str(music / "bad.wav")]
    assert report.incomplete == [cut]
    assert report.remarks[cut][0].startswith("cut off: ")
    tracks = AudioStore(tmp_path / "store").tracks
    assert len(tracks) == 5
    assert [track.path for track in tracks if track.missing] == [cut]
    assert build_store([music], tmp_path / "store", workers=1) == report
    assert build_store([music / "b.flac"], tmp_path / "store", workers=1) == FileReport()


def test_odd_files_are_kept_and_remarked(music, tmp_path, capsys):
    soundfile.write(music / "silent.wav", np.zeros(30_000), 22_050)
    soundfile.write(music / "large.wav", np.full(30_000, 5_000.0), 22_050, "FLOAT")
    report = build_store([music], tmp_path / "store", workers=1)
    silent, large = str(music / "silent.wav"), str(music / "large.wav")
    assert report.silent == [silent]
    assert report.remarks[large] == ["not at the scale of audio: it peaks at 5000; full scale is 1"]
    assert not report.failed
    assert not report.incomplete
    assert build_store([music], tmp_path / "store", workers=1) == report
    assert not any(track.missing for track in AudioStore(tmp_path / "store").tracks)
    assert main(["store", str(music), "-o", str(tmp_path / "store")]) == 0
    assert f"silent: {silent}: every sample is zero" in capsys.readouterr().err


def test_all_that_is_wrong_with_a_file_is_kept(music, tmp_path, capsys):
    data = bytearray((music / "b.flac").read_bytes()[:-3_000])
    data[len(data) // 2] ^= 0xFF
    (music / "b.flac").write_bytes(data)
    report = build_store([music], tmp_path / "store", workers=1)
    kinds = [remark.partition(": ")[0] for remark in report.remarks[str(music / "b.flac")]]
    assert sorted(kinds) == ["cut off", "damaged"]
    assert build_store([music], tmp_path / "store", workers=1) == report
    assert main(["store", str(music), "-o", str(tmp_path / "store")]) == 1
    said = capsys.readouterr().err
    assert all(f"{kind}: {music / 'b.flac'}: " in said for kind in kinds)
    assert "failed" not in said


def test_an_older_store_has_what_is_missing(music, tmp_path):
    build_store([music], tmp_path / "store", workers=1)
    index = tmp_path / "store/000000.json"
    old = index.read_text().replace('"samples": 70000', '"samples": 70000, "missing": "cut off: x"')
    index.write_text(old)
    assert AudioStore(tmp_path / "store").tracks[0].missing == "cut off: x"
    report = build_store([music], tmp_path / "store", workers=1)
    assert report.incomplete == [str(music / "a.wav")]


@pytest.mark.parametrize("workers", [-1, -2])
def test_no_store_without_workers(music, tmp_path, workers):
    with pytest.raises(ValueError, match="workers must be at least 1"):
        build_store([music], tmp_path / "store", workers=workers)


def test_damage_is_found(music, tmp_path):
    store = tmp_path / "store"
    build_store([music], store, workers=1)
    data = store / "000000.pcm"
    content = bytearray(data.read_bytes())
    content[150_000] ^= 1
    data.write_bytes(content)
    assert [track.path for track in AudioStore(store).verify()] == [str(music / "b.flac")]
    data.write_bytes(content[:-2])
    with pytest.raises(AudioStoreError, match=r"000000\.pcm: .* bytes where its index says"):
        AudioStore(store)
    (store / "000000.json").write_text("{")
    with pytest.raises(AudioStoreError, match=r"000000\.json: damaged"):
        AudioStore(store)
    with pytest.raises(AudioStoreError, match="no audio store"):
        AudioStore(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"samples": 70000', '"samples": -1'),
        ('"samples": 70000', '"samples": "70000"'),
        ('"samples": 70000', '"samples": 70000, "missing": 1'),
        ('"samples": 70000', '"samples": 70000, "remarks": [1]'),
        ('"samples": 70000', '"samples": 70000, "remarks": [["silent", 0]]'),
        ('"crc32"', '"crc"'),
        ('"tracks": [', '"tracks": [3,'),
        ('"tracks": [', '"tracks": 3, "x": ['),
        ('"format"', '"form\xff"'),
    ],
)
def test_damaged_indices_are_named(music, tmp_path, old, new):
    build_store([music], tmp_path / "store", workers=1)
    index = tmp_path / "store/000000.json"
    text = index.read_text()
    assert old in text
    index.write_text(text.replace(old, new), "latin-1")
    with pytest.raises(AudioStoreError, match=r"000000\.json: damaged"):
        AudioStore(tmp_path / "store")


def test_the_command(music, tmp_path, capsys):
    assert main(["store", str(music), "-o", str(tmp_path / "s"), "--verify"]) == 0
    assert "4 tracks, 0.00 h" in capsys.readouterr().out
    (music / "bad.wav").write_text("no sound")
    assert main(["store", str(music), "-o", str(tmp_path / "s")]) == 1
    assert "bad.wav: it is a text file" in capsys.readouterr().err
    assert main(["store", "-o", str(tmp_path / "nothing")]) == 2


def test_listening_to_augmentations(tmp_path, capsys):
    soundfile.write(tmp_path / "x.wav", tone(440, 66_150), RATE)
    out = tmp_path / "views"
    arguments = ["augment", str(tmp_path / "x.wav"), "-o", str(out), "--views", "2"]
    assert main([*arguments, "--seconds", "1"]) == 0
    sounds = sorted(out.glob("*.wav"))
    assert len(sounds) == 1 + 2 + 7
    assert {soundfile.info(sound).frames for sound in sounds} == {RATE}
    original, _ = soundfile.read(sounds[0])
    np.testing.assert_allclose(original, tone(440, RATE), atol=1e-4)
    flipped, _ = soundfile.read(out / "03 PolarityInversion alone (p = 0.8).wav")
    np.testing.assert_allclose(flipped, -original, atol=1e-6)
    assert (out / "spectrograms.png").read_bytes().startswith(b"\x89PNG")
    data = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
    arguments[1] = str(tmp_path / "cut.wav")
    assert main([*arguments, "--seconds", "1"]) == 0  # the part in use is complete
    assert main([*arguments, "--seconds", "2"]) == 1
    assert "cut.wav: cut off: " in capsys.readouterr().err
    assert main(["augment", str(tmp_path / "no.wav"), "-o", str(out)]) == 2
    assert "no.wav: no such file" in capsys.readouterr().err


def test_input_that_is_all_unusable_is_named(tmp_path, capsys):
    assert main(["store", str(tmp_path / "nope"), "-o", str(tmp_path / "x.store")]) == 1
    assert f"failed: {tmp_path / 'nope'}: no such file" in capsys.readouterr().err
