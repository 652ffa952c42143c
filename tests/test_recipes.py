"""Recipes' own code: corpora that are made up or rendered."""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

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


def preset(solo, font=Path("font.sf2"), program=40):
    (player,) = solo.alone([solo.Preset(font, "MIT", program)])
    return player


def test_a_preset_plays_single_notes_and_phrases(solo):
    tracks = list(solo.plan(preset(solo), notes=8, phrases=3))
    assert [track.kind for track in tracks] == [solo.NOTE] * 8 + [solo.PHRASE] * 3
    for track in tracks:
        pitches = {note.pitch for note in track.notes}
        assert len(pitches) > 4 if track.kind == solo.PHRASE else len(pitches) == 1
        assert all(note.length > 0 and 1 <= note.velocity <= 127 for note in track.notes)
        assert max(note.start + note.length for note in track.notes) <= solo.SECONDS[track.kind]
        assert max(note.start for note in track.notes) > solo.SECONDS[track.kind] / 2
    assert len({note.pitch for track in tracks[:8] for note in track.notes}) == 8


def test_notes_of_one_pitch_lie_together(solo):
    (track,) = solo.plan(preset(solo), notes=1, phrases=0)
    (pitch,) = {note.pitch for note in track.notes}
    assert track.file == f"music/note/{pitch}/font-040.flac"


def test_an_ensemble_passes_each_note_through_all_its_presets(solo):
    presets = [solo.Preset(Path("font.sf2"), "MIT", program) for program in range(128)]
    first, second = solo.find_ensembles(presets, 2)
    assert len(set(first.programs)) == solo.VOICES
    assert max(first.programs) < solo.PITCHED_PROGRAMS
    assert first.programs != second.programs
    tracks = list(solo.plan_unisons(first))
    pitches = {note.pitch for track in tracks for note in track.notes}
    assert len(pitches) == len(tracks) == solo.UNISONS
    assert {track.file for track in tracks} == {f"music/unison/0000/{p}.flac" for p in pitches}
    for track in tracks:
        assert len({note.pitch for note in track.notes}) == 1
        turns = sorted({(note.start // 2, note.player) for note in track.notes})
        assert sorted(player for _, player in turns) == list(range(solo.VOICES))
        assert [turn for turn, _ in turns] == list(range(solo.VOICES))


def test_an_instrument_passes_each_note_through_all_soundfonts(solo):
    presets = [
        solo.Preset(Path(f"{font}.sf2"), licence, program)
        for font, licence in (("a", "MIT"), ("b", "GPL-2"), ("c", "MIT"))
        for program in (40, 41, 120)
    ]
    violin, viola = solo.find_instruments([*presets, solo.Preset(Path("a.sf2"), "MIT", 42)])
    assert (violin.programs, viola.programs) == ([40] * 3, [41] * 3)
    assert violin.origin == ["a b c", "MIT; GPL-2", "40 40 40"]
    tracks = list(solo.plan_instrument(violin))
    pitches = [{note.pitch for note in track.notes} for track in tracks]
    assert pitches == [{pitch} for pitch in range(solo.LOWEST_PITCH, solo.HIGHEST_PITCH + 1)]
    assert tracks[0].file == f"music/instrument/040/{solo.LOWEST_PITCH}.flac"
    for track in tracks:
        turn = solo.SECONDS[solo.INSTRUMENT] / 6
        turns = {(int((note.start + 1e-9) / turn), note.player) for note in track.notes}
        assert sorted(player for _, player in turns) == [0, 0, 1, 1, 2, 2]


def test_midi_holds_the_notes(solo, tmp_path):
    import mido

    notes = [solo.Note(0.5, 1.0, 60, 100), solo.Note(1.5, 0.25, 60, 50)]
    solo.write_midi(notes, tmp_path / "notes.mid")
    now, found = 0.0, []
    for message in mido.MidiFile(tmp_path / "notes.mid"):
        now += message.time
        found.append((round(now, 3), message.type))
    # a note ends before the next one of its pitch begins
    assert found == [
        (0.5, "note_on"),
        (1.5, "note_off"),
        (1.5, "note_on"),
        (1.75, "note_off"),
        (1.75, "end_of_track"),
    ]


def test_rendered_tracks_sound_and_are_rendered_once(solo, tmp_path):
    font = installed(solo)
    tracks = list(solo.plan(preset(solo, font), notes=2, phrases=1))
    rows = solo.build_tracks(preset(solo, font), tracks, tmp_path)
    assert [row[0] for row in rows] == [track.file for track in tracks]
    for track, row in zip(tracks, rows, strict=True):
        sound, rate = soundfile.read(tmp_path / track.file)
        assert rate == solo.SAMPLE_RATE_HZ
        assert len(sound) / rate == pytest.approx(solo.SECONDS[track.kind] + solo.GAP_SECONDS)
        assert float(row[-1]) == pytest.approx(len(sound) / rate, abs=0.01)
        assert np.abs(sound).max() == pytest.approx(solo.PEAK, abs=0.01)
        first = round(track.notes[0].length * rate)
        assert np.abs(sound[:first]).max() > 0.01  # each begins with its own first note
    (tmp_path / tracks[0].file).unlink()
    assert solo.build_tracks(preset(solo, font), tracks, tmp_path) == rows
    assert not (tmp_path / tracks[0].file).exists()


def test_a_rendered_note_has_its_pitch(solo, tmp_path):
    font = installed(solo)
    flute = preset(solo, font, 73)
    track = solo.Track("note.flac", solo.NOTE, (solo.Note(0.0, 4.0, 81, 100),))
    (row,) = solo.build_tracks(flute, [track], tmp_path)
    sound, rate = soundfile.read(tmp_path / row[0])
    middle = sound[rate : 3 * rate] * np.hanning(2 * rate)
    spectrum = np.abs(np.fft.rfft(middle))
    assert np.argmax(spectrum[1600:1920]) + 1600 == pytest.approx(2 * 880, abs=25)  # bins of 0.5 Hz


def test_each_soundfont_sounds_in_its_turn(solo):
    installed(solo)
    presets = list(solo.find_presets(1))
    notes = tuple(solo.Note(2.0 * turn, 1.0, 60, 100, turn) for turn in range(len(presets)))
    pianos = solo.Players(tuple(presets), "pianos")
    (together,) = solo.synthesise(pianos, [solo.Track("", solo.UNISON, notes)])
    apart = [
        spectrum(solo.synthesise(player, [solo.Track("", solo.UNISON, notes[:1])])[0])
        for player in solo.alone(presets)
    ]
    for turn in range(len(presets)):
        heard = spectrum(together[2 * turn * solo.SAMPLE_RATE_HZ :])
        assert np.argmax([np.corrcoef(heard, one)[0, 1] for one in apart]) == turn


def spectrum(sound, samples=16_384):
    """Of its first moment, in decibels."""
    return 20 * np.log10(1e-4 + np.abs(np.fft.rfft(sound[:samples] * np.hanning(samples))))


def installed(solo):
    """A soundfont of the recipe; the test is skipped without one."""
    try:
        presets = list(solo.find_presets(1))
    except SystemExit as error:
        pytest.skip(str(error))
    if shutil.which("fluidsynth") is None:
        pytest.skip("fluidsynth is not installed")
    return presets[0].soundfont


@pytest.fixture(scope="module")
def score():
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    return recipe("weights/score")


def test_pairs_of_all_runs_are_counted(score):
    assert score.pairs_seen({}) == 0
    record = {"pairs": 3, "before": {"pairs": 40, "before": {"pairs": 500}}}
    assert score.pairs_seen(record) == 543


def test_what_is_scored_is_of_no_test_fold(score, shared_data):
    tasks = {name: score.learnable(shared_data, name) for name in score.TASKS}
    assert len(tasks["philharmonia-instrument"].clips) == 2752
    assert len(tasks["philharmonia-pitch"].clips) == 1906
    for name, task in tasks.items():
        folder, split = score.TASKS[name]
        whole = score.get_data_set(name).load(shared_data / folder, split)
        assert {clip.split for clip in whole.clips} - {clip.split for clip in task.clips}
        assert not {clip.split for clip in task.clips} & {"test"}


def test_a_model_gets_three_scores_for_each_task(score, shared_data, tmp_path, monkeypatch, capsys):
    task = score.learnable(shared_data, "fsdd-digit")
    kept = tuple(clip for clip in task.clips if clip.path.stem.endswith(("_20", "_21")))
    monkeypatch.setattr(score, "learnable", lambda *_: replace(task, clips=kept))
    command = [
        str(shared_data),
        "mfcc",
        "--tasks",
        "fsdd-digit",
        "--cache",
        str(tmp_path / "cache"),
    ]
    monkeypatch.setattr(sys, "argv", ["score", *command, "--json", str(tmp_path / "scores.json")])
    score.main()
    line = json.loads((tmp_path / "scores.json").read_text())
    assert (line["model"], line["pairs"]) == ("mfcc", 0)
    assert all(0.15 < value < 0.9 for value in line["fsdd-digit"])
    assert len(line["fsdd-digit"]) == 3
    assert "mfcc: fsdd-digit" in capsys.readouterr().out


# HEAR


def test_the_hear_recipe_goes_on_after_a_failure(tmp_path):
    """With programs that only write down how they are called."""
    log = tmp_path / "calls"
    for name, exits in (("hear-tune", '[[ "$*" != *musicnn* ]]'), ("python", "exit 1")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/bash\necho "{name} $*" >> {log}\n{exits}\n')
        program.chmod(0o755)
    (tmp_path / "data" / "mridangam").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    arguments = [
        "tasks",
        "out",
        "--data",
        "data",
        "--model",
        "Mine=mine.pt",
        "--",
        "--grid-points",
        "1",
    ]
    done = subprocess.run(
        [shutil.which("bash"), ROOT / "recipes" / "hear" / "run.sh", *arguments],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "nsynth-pitch is left out: there is no data/nsynth" in done.stderr
    assert "CREPE tiny is left out: peers.crepe cannot be imported" in done.stderr
    calls = log.read_text().splitlines()
    made = [call for call in calls if "make-task" in call]
    assert [call.split()[3] for call in made] == ["mridangam-stroke", "mridangam-tonic"]
    runs = [call for call in calls if call.startswith("hear-tune hear run")]
    assert len(runs) == 7
    ending = "--tasks-dir tasks --embeddings-dir out --grid-points 1"
    assert all(call.endswith(ending) for call in runs)
    assert any("hear_tune --model mine.pt" in call and "--name Mine" in call for call in runs)
    assert calls[-1] == "hear-tune hear table out --views --json out/scores.json"


def test_the_comparison_shows_the_last_and_the_best_layer_over_seeds():
    def result(model, layer, accuracy):
        scores = {"accuracy": {"mean": accuracy}}
        return {"model": model, "task": "notes", "layers": [layer], "scores": scores}

    results = [
        result("tune+ clmr 1", "tail.8", 0.5),
        result("tune+ clmr 1", "tail.9", 0.25),
        result("tune+ clmr 2", "tail.8", 0.7),
        result("tune+ clmr 2", "tail.9", 0.35),
        result("tune+ untrained", "tail.9", 0.125),
        result("mfcc", "mfcc", 0.75),
    ]
    assert recipe("comparison/table").table(results).splitlines()[2:] == [
        "| mfcc |  | 0.750 |",
        "| TUNE+ clmr | 2 | 0.300, 0.600 (`tail.8`) |",
        "| TUNE+ untrained | 1 | 0.125, 0.125 (`tail.9`) |",
    ]
