"""Data sets of HEAR's tasks, as they are published and as a table of folds."""

import json
from collections import defaultdict

import numpy as np
import pytest
import soundfile
from conftest import noise

from hear_tune.cli import main
from hear_tune.datasets import fsdd, gtzan_music_speech, mridangam, nsynth
from hear_tune.datasets.catalog import get_data_set
from hear_tune.datasets.check import check_task
from hear_tune.datasets.task import Clip, Task, TaskError
from hear_tune.datasets.validate import validate

RATE = 22_050


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def folds_of(task, key):
    """Folds that each group of clips stands in."""
    found = defaultdict(set)
    for clip in task.clips:
        found[key(clip)].add(clip.split)
    return found


# --- NSynth ---

FAMILIES = ("bass", "brass", "flute")


def nsynth_set(root, name, instruments):
    rows = {}
    for instrument in instruments:
        for pitch in (20, 60, 84, 108):
            stem = f"{instrument}-{pitch:03d}-100"
            rows[stem] = {
                "instrument_str": instrument,
                "instrument_family_str": instrument.split("_")[0],
                "pitch": pitch,
                "velocity": 100,
            }
    write(root / f"nsynth-{name}" / "examples.json", json.dumps(rows))


@pytest.fixture
def published_nsynth(tmp_path):
    numbers = [f"{number:03d}" for number in range(5)]
    tested = [f"{family}_acoustic_{number}" for family in FAMILIES for number in numbers]
    nsynth_set(tmp_path, "test", [*tested, nsynth.REPEATED])
    nsynth_set(tmp_path, "valid", tested[:2])
    nsynth_set(tmp_path, "train", ["brass_acoustic_100"])
    return tmp_path


def test_nsynth_in_folds_of_instruments(published_nsynth):
    task = nsynth.load(published_nsynth)
    assert set(task.splits) == {f"fold{number:02d}" for number in range(5)}
    assert all(len(found) == 1 for found in folds_of(task, lambda c: c.group).values())
    families = nsynth.load(published_nsynth, "family")
    assert families.classes == FAMILIES
    for fold in families.splits:  # each has its share of every family
        assert {clip.labels[0] for clip in families.of(fold)} == set(FAMILIES)
    path = published_nsynth / "nsynth-test" / "audio" / "bass_acoustic_000-060-100.wav"
    assert path in {clip.path for clip in task.clips}


def test_nsynth_pitches_are_those_of_hear_without_repeated_notes(published_nsynth):
    task = nsynth.load(published_nsynth)
    assert task.classes == ("60", "84", "108")  # by number, not by text
    assert {c.labels for c in task.clips if c.group == nsynth.REPEATED} == {("60",)}
    families = nsynth.load(published_nsynth, "family")
    assert len(families.clips) == 4 * 16


def test_nsynth_published_split(published_nsynth):
    task = nsynth.load(published_nsynth, "family", "published")
    assert {split: len(task.of(split)) for split in task.splits} == {
        "train": 4,
        "valid": 8,
        "test": 64,
    }


def test_nsynth_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nsynth-test/examples.json: no such file"):
        nsynth.load(tmp_path)
    index = write(tmp_path / "nsynth-test" / "examples.json", '{"a": {"pitch": "x"}}')
    with pytest.raises(TaskError, match=f"{index}: not NSynth's index"):
        nsynth.load(tmp_path)
    with pytest.raises(TaskError, match="no split 'mine'"):
        nsynth.load(tmp_path, split="mine")
    write(tmp_path / "labels.csv", "file,label,pitch,instrument,fold\na.ogg,bass,x,b_1,fold00\n")
    with pytest.raises(TaskError, match=r"a\.ogg: its pitch is 'x'"):
        nsynth.load(tmp_path)


# --- Mridangam ---


def test_mridangam_through_mirdata(tmp_path):
    pytest.importorskip("mirdata", reason="needs the extra data")
    tracks = {}
    for tonic, spelled in (("B", "b"), ("C#", "csh")):
        for stroke in ("bheem", "tha"):
            for number in range(10):
                track = f"{tonic}{stroke}{number}"
                name = f"{track}__akshaylaya__{stroke}-{spelled}-{number:03d}.wav"
                tracks[track] = {"audio": [f"mridangam_stroke_1.5/{tonic}/{name}", None]}
    index = {"version": "1.5", "tracks": tracks}
    write(tmp_path / "mridangam_stroke_index_1.5.json", json.dumps(index))
    strokes, tonics = mridangam.load(tmp_path), mridangam.load(tmp_path, "tonic")
    assert (strokes.classes, tonics.classes) == (("bheem", "tha"), ("B", "C#"))
    assert {clip.group for clip in strokes.clips} == {"B", "C#"}
    assert [c.split for c in strokes.clips] == [c.split for c in tonics.clips]
    for fold in strokes.splits:  # every stroke of every tonic, twice
        assert sorted((c.labels[0], c.group) for c in strokes.of(fold)) == sorted(
            [("bheem", "B"), ("bheem", "C#"), ("tha", "B"), ("tha", "C#")] * 2
        )


def test_mridangam_errors(tmp_path):
    write(tmp_path / "labels.csv", "file,label,tonic,fold\na.flac,tha,x,fold00\n")
    with pytest.raises(TaskError, match=r"a\.flac: 'x' is no tonic"):
        mridangam.load(tmp_path)
    table = write(tmp_path / "labels.csv", "file,label,tonic,fold\na.flac,tha,csh,train\n")
    with pytest.raises(TaskError, match=f"{table}: fold is 'train', not fold00"):
        mridangam.load(tmp_path)


# --- GTZAN Music/Speech ---


def test_music_and_speech_as_published(tmp_path):
    for label in ("music", "speech"):
        for number in range(20):
            write(tmp_path / "music_speech" / f"{label}_wav" / f"{label}{number}.wav", "")
    task = gtzan_music_speech.load(tmp_path)
    assert task.classes == ("music", "speech")
    assert len(task.splits) == 10
    for fold in task.splits:
        assert sorted(clip.labels[0] for clip in task.of(fold)) == ["music"] * 2 + ["speech"] * 2
    with pytest.raises(FileNotFoundError, match=r"music_wav: no \.wav files"):
        gtzan_music_speech.load(tmp_path / "music_speech")


# --- Free Spoken Digits ---


def test_digits_of_disjoint_speakers(tmp_path):
    for speaker in ("ann", "bob", "cyd"):
        for digit in range(2):
            for number in range(12):
                write(tmp_path / "recordings" / f"{digit}_{speaker}_{number}.wav", "")
    task = fsdd.load(tmp_path, split="speakers")
    assert folds_of(task, lambda clip: clip.path.stem.split("_")[1]) == {
        "ann": {"fold00"},
        "bob": {"fold01"},
        "cyd": {"fold02"},
    }
    official = fsdd.load(tmp_path)
    assert {split: len(official.of(split)) for split in official.splits} == {
        "test": 30,
        "train": 12,
        "valid": 30,
    }
    with pytest.raises(TaskError, match="fsdd-speaker has no split 'speakers'"):
        fsdd.load(tmp_path, "speaker", "speakers")


# --- Real recordings ---


@pytest.mark.parametrize(
    ("name", "folder", "split", "clips", "classes", "folds", "groups"),
    [
        ("nsynth-pitch", "nsynth_test", None, 4_019, 88, 5, 53),
        ("nsynth-family", "nsynth_test", None, 4_096, 10, 5, 53),
        ("mridangam-stroke", "mridangam", None, 2_879, 9, 5, 6),
        ("mridangam-tonic", "mridangam", None, 2_879, 6, 5, None),
        ("gtzan-music-speech", "gtzan_music_speech", None, 128, 2, 10, None),
        ("fsdd-digit", "fsdd", "speakers", 3_000, 10, 6, 6),
    ],
)
def test_real_data_sets(shared_data, name, folder, split, clips, classes, folds, groups):
    root = shared_data / folder
    if not root.is_dir():
        pytest.skip(f"no recordings at {root}")
    task = get_data_set(name).load(root, split)
    assert (len(task.clips), len(task.classes), len(task.splits)) == (clips, classes, folds)
    assert len({clip.group for clip in task.clips if clip.group}) == (groups or 0)
    remarks = check_task(task, content=False)  # no fault
    if groups and name != "mridangam-stroke":  # whose folds are random, as HEAR's
        assert not any("groups in two splits" in remark for remark in remarks)


def test_repeated_notes_of_nsynth_are_one_recording(shared_data):
    root = shared_data / "nsynth_test"
    if not root.is_dir():
        pytest.skip(f"no recordings at {root}")
    whole = nsynth.load(root, "family")
    repeated = [clip for clip in whole.clips if clip.group == nsynth.REPEATED]
    pitched = tuple(Clip(c.path, c.split, (c.path.stem.split("-")[1],)) for c in repeated)
    (alike,) = validate(Task("brass", "multiclass", (), pitched)).contradictory
    left = {clip.path for clip in nsynth.load(root).clips}
    assert set(alike) == {clip.path for clip in repeated} - left
    assert len(alike) == 41


# --- The same audio under different labels ---


def test_validate_names_audio_with_different_labels(tmp_path, capsys):
    for folder, name, seed in (
        ("cat", "one.wav", 0),
        ("dog", "copy.flac", 0),  # other bytes, the same samples
        ("cat", "two.wav", 1),
        ("cat", "three.wav", 1),  # the same label
        ("dog", "four.wav", 2),
        ("dog", "five.wav", 3),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        samples = (30_000 * noise(RATE, seed)).astype(np.int16)
        soundfile.write(tmp_path / folder / name, samples, RATE)
    assert main(["data", "validate", "labelled", "--root", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "same audio" in line]
    assert [line.rpartition("/")[2] for line in lines] == ["one.wav", "copy.flac"]


def test_the_default_split_of_nsynth_can_be_downloaded():
    """One file serves both targets."""
    pitch, family = (get_data_set(f"nsynth-{target}").all_downloads() for target in nsynth.TARGETS)
    assert pitch == family
    (download,) = pitch
    assert download.archive
    assert download.files[0][0].endswith("/nsynth-test.jsonwav.tar.gz")
    assert len(download.digest) == 32


def test_a_data_set_lies_in_data_unless_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_set = get_data_set("gtzan-music-speech")
    assert data_set.root(None) == data_set.root("data/gtzan_music_speech")
    with pytest.raises(FileNotFoundError, match=r"^data.gtzan_music_speech: no such folder"):
        data_set.load()
