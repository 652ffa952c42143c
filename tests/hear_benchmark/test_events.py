"""Event tasks of the HEAR recipe: sounds stand where their labels say."""

import csv
import json
from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from conftest import ROOT, tone

pytest.importorskip("pandas", reason='needs pip install "hear-tune[hear]"')

from hear_tune.networks.config import SAMPLE_RATE_HZ

LEAD = 0.05  # seconds of silence before a recording's onset


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "recipes" / "hear")
    return import_module("recordings")


def test_sounds_start_where_their_events_do(recipe):
    def click(_, samples):
        return np.r_[50.0, np.zeros(min(samples, 10_000) - 1)]

    rng = np.random.default_rng(0)
    samples, events = recipe.strung(["a", "b"], click, 2.0, rng)
    clicks = np.flatnonzero(samples > 0.5)
    starts = [round(event["start"] * SAMPLE_RATE_HZ / 1000) for event in events]
    assert clicks.tolist() == starts
    assert len(events) > 8
    for label in "ab":  # the next one begins after the end of the last
        own = [event for event in events if event["label"] == label]
        assert all(a["end"] < b["start"] for a, b in pairwise(own))
    lengths = {round((event["end"] - event["start"]) * SAMPLE_RATE_HZ / 1000) for event in events}
    assert max(lengths) <= 10_001  # what sounds, not what there was room for


def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_recording(path, frequency):
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = np.r_[np.zeros(round(LEAD * SAMPLE_RATE_HZ)), tone(frequency, 11_025)]
    soundfile.write(path, sound, SAMPLE_RATE_HZ)


def test_recordings_become_tasks(recipe, tmp_path, monkeypatch):
    notes = [
        ["file", "instrument", "midi_pitch", "articulation", "split_instrument", "split_pitch"]
    ]
    strokes = [["file", "label", "tonic", "fold"]]
    for split in ("train", "valid", "test"):
        for pitch in (60, 72):
            notes.append([f"{split}{pitch}.wav", split, pitch, "normal", "", split])
            write_recording(tmp_path / "philharmonia" / notes[-1][0], pitch * 10)
    for fold in range(3):
        for label, frequency in (("cha", 300), ("tha", 3_000)):
            for tonic in ("b", "csh"):
                name = f"{label}-{tonic}-{fold}.wav"
                strokes.append([name, label, tonic, f"fold{fold:02d}"])
                write_recording(tmp_path / "mridangam" / name, frequency)
    write_table(tmp_path / "philharmonia" / "metadata.csv", notes)
    write_table(tmp_path / "mridangam" / "labels.csv", strokes)
    command = ["recordings", str(tmp_path), str(tmp_path / "tasks"), "--clips", "2"]
    monkeypatch.setattr("sys.argv", command)
    recipe.main()

    folder = tmp_path / "tasks" / "philharmonia-events-1.0-full"
    metadata = json.loads((folder / "task_metadata.json").read_text())
    assert metadata["splits"] == ["train", "valid", "test"]
    assert metadata["split_mode"] == "trainvaltest"
    assert (folder / "labelvocabulary.csv").read_text().split() == ["idx,label", "0,60", "1,72"]
    name, events = next(iter(json.loads((folder / "test.json").read_text()).items()))
    samples, _ = soundfile.read(folder / str(SAMPLE_RATE_HZ) / "test" / name)
    first = round(events[0]["start"] * SAMPLE_RATE_HZ / 1000)
    assert np.abs(samples[: first - 1]).max() < 0.05  # the noise alone
    assert np.abs(samples[first : first + 100]).max() > 0.2  # no silence is left before the sound

    folder = tmp_path / "tasks" / "mridangam-events-1.0-full"
    metadata = json.loads((folder / "task_metadata.json").read_text())
    assert metadata["splits"] == ["fold00", "fold01", "fold02"]
    assert metadata["split_mode"] == "presplit_kfold"
