"""Recipes' own code: corpora that are made up or rendered."""

import importlib.util
import shutil
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT


def recipe(name):
    """A recipe's script as a module."""
    path = ROOT / "recipes" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(name.replace("/", "_"), path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def solo():
    pytest.importorskip("mido")
    return recipe("solo/build")


def test_solo_tracks_are_one_note_or_a_phrase(solo):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        note, phrase = solo.single_notes(rng), solo.phrase(rng)
        assert len({n.pitch for n in note}) == 1
        assert len({n.pitch for n in phrase}) > 4
        for notes, kind in ((note, solo.NOTE), (phrase, solo.PHRASE)):
            assert all(n.length > 0 and 1 <= n.velocity <= 127 for n in notes)
            assert max(n.start + n.length for n in notes) <= solo.SECONDS[kind]
            assert max(n.start for n in notes) > solo.SECONDS[kind] / 2


def test_midi_holds_the_notes(solo, tmp_path):
    import mido

    notes = [solo.Note(0.5, 1.0, 60, 100), solo.Note(1.5, 0.25, 60, 50)]
    solo.write_midi(notes, 40, tmp_path / "notes.mid")
    now, found = 0.0, []
    for message in mido.MidiFile(tmp_path / "notes.mid"):
        now += message.time
        found.append((round(now, 3), message.type))
    # a note ends before the next one of its pitch begins
    assert found == [
        (0, "program_change"),
        (0.5, "note_on"),
        (1.5, "note_off"),
        (1.5, "note_on"),
        (1.75, "note_off"),
        (1.75, "end_of_track"),
    ]


def test_rendered_notes_sound(solo, tmp_path, monkeypatch):
    fonts = [track.soundfont for track in installed(solo)]
    if shutil.which("fluidsynth") is None or not fonts:
        pytest.skip("fluidsynth or its soundfonts are not installed")
    monkeypatch.setattr(solo, "SECONDS", {solo.NOTE: 2.0, solo.PHRASE: 2.0})
    track = solo.Track(fonts[0], "MIT", 0, solo.NOTE, 0)
    assert solo.render(track, tmp_path) == pytest.approx(3.0, abs=0.2)
    sound, rate = soundfile.read(tmp_path / track.file)
    assert rate == solo.SAMPLE_RATE_HZ
    assert np.abs(sound).max() == pytest.approx(solo.PEAK, abs=0.01)


def installed(solo):
    try:
        return list(solo.plan({solo.NOTE: 1}, 1))
    except SystemExit:
        return []
