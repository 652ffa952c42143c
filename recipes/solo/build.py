#!/usr/bin/env python3
"""Solo instruments of free General MIDI soundfonts: single notes and phrases, rendered at random.

For each preset of each soundfont writes tracks that strike one note at several lengths and
strengths, and phrases (melodies and chords):

    OUT/music/note/<pitch>/<soundfont>-<program>.flac
    OUT/music/phrase/<number>/<soundfont>-<program>.flac
    OUT/manifest.csv             file, soundfont, licence, program, kind, seconds

Notes that lie together differ in timbre alone. A seed decides all of it.
Interrupted, it goes on where it stopped. Needs fluidsynth, the soundfonts of soundfonts.tsv, and
the Python package mido.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import mido
import numpy as np
import numpy.typing as npt
import soundfile
from tqdm import tqdm

from hear_tune.config import SAMPLE_RATE_HZ
from hear_tune.files import write_whole
from hear_tune.framing import pad_end

HERE = Path(__file__).parent
COLUMNS = ["file", "soundfont", "licence", "program", "kind", "seconds"]
PROGRAMS = 128
NOTE, PHRASE = "note", "phrase"
SECONDS = {NOTE: 5.0, PHRASE: 10.0}
GAP_SECONDS = 1.0  # silence after a track, where its last note fades
LOWEST_PITCH, HIGHEST_PITCH = 33, 96
PHRASE_REACH = 12  # semitones about the phrase's centre
CHORDS = [(0,), (0,), (0,), (0,), (0, 12), (0, 7), (0, 4, 7), (0, 3, 7)]
TICKS_PER_SECOND = 960  # mido's default: 480 ticks per beat, 120 beats per minute
QUIETEST_PEAK = 0.003  # a preset that has no sample for a note is left out
PEAK = 0.9
LOAD_LITTLE = ["-o", "synth.dynamic-sample-loading=1"]  # compressed soundfonts are slow to read


@dataclass(frozen=True)
class Preset:
    """An instrument of a soundfont."""

    soundfont: Path
    licence: str
    program: int

    @property
    def name(self) -> str:
        """Of its files or folder."""
        return f"{self.soundfont.stem}-{self.program:03d}"

    @property
    def seed(self) -> list[int]:
        """Of everything that is drawn for it."""
        return [*map(ord, self.soundfont.stem), self.program]


@dataclass(frozen=True)
class Note:
    """Start and length in seconds, MIDI pitch and velocity."""

    start: float
    length: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Track:
    """A file of the corpus, and what is played in it."""

    file: str
    kind: str
    notes: tuple[Note, ...]


def main() -> int:
    """Build the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--notes", type=int, default=24, help="single notes per preset")
    parser.add_argument("--phrases", type=int, default=24, help="phrases per preset")
    parser.add_argument("--programs", type=int, default=PROGRAMS, help="only the first so many")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if shutil.which("fluidsynth") is None:
        parser.error("fluidsynth is needed and not there: apt-get install fluidsynth")
    presets = list(find_presets(options.programs))

    def build(preset: Preset) -> list[list[str]]:
        tracks = tuple(plan(preset, options.notes, options.phrases))
        return build_preset(preset, tracks, options.output)

    with ThreadPoolExecutor(options.workers) as pool:
        rows = list(tqdm(pool.map(build, presets), total=len(presets), unit="preset"))
    kept = list(itertools.chain.from_iterable(rows))
    write_table(options.output / "manifest.csv", [COLUMNS, *kept])
    hours = sum(float(seconds) for *_, seconds in kept) / 3600
    print(f"{options.output}: {len(kept)} tracks, {hours:.1f} h")
    return 0


def find_presets(programs: int) -> Iterator[Preset]:
    """All presets of the soundfonts, which must be installed."""
    with (HERE / "soundfonts.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            path = Path(row["file"])
            if not path.exists():
                sys.exit(f"{path} is not there: apt-get install {row['package']}")
            yield from (Preset(path, row["licence"], program) for program in range(programs))


def plan(preset: Preset, notes: int, phrases: int) -> Iterator[Track]:
    """What a preset plays: notes of so many pitches, and phrases."""
    rng = np.random.default_rng(preset.seed)
    pitches = rng.permutation(np.arange(LOWEST_PITCH, HIGHEST_PITCH + 1))[:notes]
    for pitch in pitches.tolist():
        file = f"music/{NOTE}/{pitch}/{preset.name}.flac"
        yield Track(file, NOTE, tuple(strikes(rng, pitch)))
    for number in range(phrases):
        file = f"music/{PHRASE}/{number:02d}/{preset.name}.flac"
        yield Track(file, PHRASE, tuple(phrase(rng)))


def build_preset(preset: Preset, tracks: Sequence[Track], output: Path) -> list[list[str]]:
    """Render a preset's tracks, unless that was done; returns their rows of the manifest."""
    done = output / "presets" / f"{preset.name}.csv"
    if done.exists():
        with done.open(newline="") as file:
            return list(csv.reader(file))
    rows = []
    for track, audio in zip(tracks, synthesise(preset, tracks), strict=True):
        peak = np.abs(audio).max(initial=0)
        if peak < QUIETEST_PEAK:
            continue
        target = output / track.file
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, audio * PEAK / peak, SAMPLE_RATE_HZ)
        seconds = f"{len(audio) / SAMPLE_RATE_HZ:.2f}"
        origin = [preset.soundfont.stem, preset.licence, str(preset.program)]
        rows.append([track.file, *origin, track.kind, seconds])
    write_table(done, rows)
    return rows


def synthesise(preset: Preset, tracks: Sequence[Track]) -> list[npt.NDArray[np.float32]]:
    """Audio of each track, all rendered in one go."""
    lengths = [SECONDS[track.kind] + GAP_SECONDS for track in tracks]
    starts = [0.0, *itertools.accumulate(lengths)]
    notes = [
        replace(note, start=note.start + start)
        for track, start in zip(tracks, starts, strict=False)
        for note in track.notes
    ]
    rng = np.random.default_rng([*preset.seed, 1])
    effects = ["-R", str(rng.integers(2)), "-C", str(rng.integers(2))]  # reverb, chorus
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "take.mid"), Path(folder, "take.wav")
        write_midi(notes, preset.program, midi)
        options = ["-ni", "-q", "-g", "0.5", "-r", str(SAMPLE_RATE_HZ), "-T", "wav", "-F", wav]
        command = ["fluidsynth", *effects, *options, *LOAD_LITTLE, preset.soundfont, midi]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        audio, _ = soundfile.read(wav, dtype="float32", always_2d=True)
    edges = [round(start * SAMPLE_RATE_HZ) for start in starts]
    mono = pad_end(audio.mean(axis=1)[: edges[-1]], edges[-1])
    return [mono[begin:end] for begin, end in itertools.pairwise(edges)]


def strikes(rng: np.random.Generator, pitch: int) -> Iterator[Note]:
    """One pitch again and again."""
    return _line(rng, SECONDS[NOTE], lambda: (pitch,))


def phrase(rng: np.random.Generator) -> Iterator[Note]:
    """A walk of notes and chords about a centre."""
    centre = int(rng.integers(LOWEST_PITCH + PHRASE_REACH, HIGHEST_PITCH - PHRASE_REACH))
    chords = CHORDS if rng.random() < 0.5 else CHORDS[:1]
    pitch = centre

    def step() -> tuple[int, ...]:
        nonlocal pitch
        pitch += int(rng.integers(-5, 6))
        pitch = int(np.clip(pitch, centre - PHRASE_REACH, centre + PHRASE_REACH))
        return tuple(pitch + interval for interval in chords[rng.integers(len(chords))])

    return _line(rng, SECONDS[PHRASE], step)


def _line(
    rng: np.random.Generator, seconds: float, next_pitches: Callable[[], tuple[int, ...]]
) -> Iterator[Note]:
    pace = np.exp(rng.uniform(np.log(0.15), np.log(1.2)))  # seconds per note, of this track
    place = 0.0
    while place < seconds:
        step = float(pace * np.exp(rng.normal(0, 0.5)))
        length = min(step * rng.uniform(0.3, 1.1), seconds - place)
        velocity = int(rng.integers(35, 128))
        for pitch in next_pitches():
            yield Note(place, length, pitch, velocity)
        place += step


def write_midi(notes: Sequence[Note], program: int, path: Path) -> None:
    """One instrument's notes as a MIDI file."""
    events = [(note.start, "note_on", note) for note in notes]
    events += [(note.start + note.length, "note_off", note) for note in notes]
    track = mido.MidiTrack([mido.Message("program_change", program=program)])
    now = 0
    for seconds, kind, note in sorted(events, key=lambda event: event[:2]):
        tick = round(seconds * TICKS_PER_SECOND)
        track.append(mido.Message(kind, note=note.pitch, velocity=note.velocity, time=tick - now))
        now = tick
    mido.MidiFile(tracks=[track]).save(path)


def write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """A CSV file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_whole(path, text.getvalue())


if __name__ == "__main__":
    sys.exit(main())
