#!/usr/bin/env python3
"""Solo instruments of free General MIDI soundfonts: single notes and phrases, rendered at random.

For each preset of each soundfont writes phrases (melodies and chords), and tracks that repeat one
note at several lengths and strengths:

    OUT/music/<soundfont>/<program>-<kind>-<number>.flac
    OUT/manifest.csv             file, soundfont, licence, program, kind, seconds

A seed decides all of it. Interrupted, it goes on where it stopped. Needs fluidsynth, the soundfonts
of soundfonts.tsv, and the Python package mido.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import mido
import numpy as np
import soundfile
from tqdm import tqdm

HERE = Path(__file__).parent
COLUMNS = ["file", "soundfont", "licence", "program", "kind", "seconds"]
SAMPLE_RATE_HZ = 22_050
PROGRAMS = 128
NOTE, PHRASE = "note", "phrase"
SECONDS = {NOTE: 12.0, PHRASE: 40.0}
LOWEST_PITCH, HIGHEST_PITCH = 33, 93
PHRASE_REACH = 12  # semitones about the phrase's centre
CHORDS = [(0,), (0,), (0,), (0,), (0, 12), (0, 7), (0, 4, 7), (0, 3, 7)]
TICKS_PER_SECOND = 960  # mido's default: 480 ticks per beat, 120 beats per minute
TAIL_SECONDS = 1.0  # after the last note
QUIETEST_PEAK = 0.003  # a preset that has no sample for a note is left out
PEAK = 0.9
LOAD_LITTLE = ["-o", "synth.dynamic-sample-loading=1"]  # compressed soundfonts are slow to read


@dataclass(frozen=True)
class Track:
    """What to render."""

    soundfont: Path
    licence: str
    program: int
    kind: str
    number: int

    @property
    def file(self) -> str:
        """Its place in the corpus."""
        name = f"{self.program:03d}-{self.kind}-{self.number:02d}.flac"
        return f"music/{self.soundfont.stem}/{name}"


@dataclass(frozen=True)
class Note:
    """Start and length in seconds, MIDI pitch and velocity."""

    start: float
    length: float
    pitch: int
    velocity: int


def main() -> int:
    """Build the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--notes", type=int, default=6, help="single-note tracks per preset")
    parser.add_argument("--phrases", type=int, default=2, help="phrases per preset")
    parser.add_argument("--programs", type=int, default=PROGRAMS, help="only the first so many")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if shutil.which("fluidsynth") is None:
        parser.error("fluidsynth is needed and not there: apt-get install fluidsynth")
    counts = {NOTE: options.notes, PHRASE: options.phrases}
    tracks = list(plan(counts, options.programs))
    with ThreadPoolExecutor(options.workers) as pool:
        rendered = pool.map(lambda track: render(track, options.output), tracks)
        seconds = list(tqdm(rendered, total=len(tracks), unit="track"))
    kept = [(track, s) for track, s in zip(tracks, seconds, strict=True) if s > 0]
    write_manifest(options.output, kept)
    hours = sum(s for _, s in kept) / 3600
    print(f"{options.output}: {len(kept)} tracks, {hours:.1f} h, {len(tracks) - len(kept)} silent")
    return 0


def plan(counts: dict[str, int], programs: int) -> Iterator[Track]:
    """All tracks, of the soundfonts that are installed."""
    with (HERE / "soundfonts.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            path = Path(row["file"])
            if not path.exists():
                sys.exit(f"{path} is not there: apt-get install {row['package']}")
            for program in range(programs):
                for kind, count in counts.items():
                    for number in range(count):
                        yield Track(path, row["licence"], program, kind, number)


def render(track: Track, output: Path) -> float:
    """Render a track, unless it is there; returns its seconds, 0 if it is silent."""
    target = output / track.file
    if target.exists():
        return float(soundfile.info(target).duration)
    kinds = sorted(SECONDS)
    name = [ord(c) for c in track.soundfont.stem]
    rng = np.random.default_rng([*name, track.program, kinds.index(track.kind), track.number])
    notes = single_notes(rng) if track.kind == NOTE else phrase(rng)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "track.mid"), Path(folder, "track.wav")
        write_midi(notes, track.program, midi)
        options = ["-ni", "-q", "-g", "0.5", "-r", str(SAMPLE_RATE_HZ), "-T", "wav", "-F", wav]
        effects = ["-R", str(rng.integers(2)), "-C", str(rng.integers(2))]
        command = ["fluidsynth", *effects, *options, *LOAD_LITTLE, track.soundfont, midi]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        audio, _ = soundfile.read(wav, dtype="float32", always_2d=True)
    mono = audio.mean(axis=1)[: round((SECONDS[track.kind] + TAIL_SECONDS) * SAMPLE_RATE_HZ)]
    peak = np.abs(mono).max(initial=0)
    if peak < QUIETEST_PEAK:
        return 0.0
    partial = target.with_suffix(".partial")
    soundfile.write(partial, mono * PEAK / peak, SAMPLE_RATE_HZ, format="FLAC")
    partial.replace(target)
    return len(mono) / SAMPLE_RATE_HZ


def single_notes(rng: np.random.Generator) -> list[Note]:
    """One pitch again and again."""
    pitch = int(rng.integers(LOWEST_PITCH, HIGHEST_PITCH + 1))
    return list(_line(rng, SECONDS[NOTE], lambda: (pitch,)))


def phrase(rng: np.random.Generator) -> list[Note]:
    """A walk of notes and chords about a centre."""
    centre = int(rng.integers(LOWEST_PITCH + PHRASE_REACH, HIGHEST_PITCH - PHRASE_REACH))
    chords = CHORDS if rng.random() < 0.5 else CHORDS[:1]
    pitch = centre

    def step() -> tuple[int, ...]:
        nonlocal pitch
        pitch += int(rng.integers(-5, 6))
        pitch = int(np.clip(pitch, centre - PHRASE_REACH, centre + PHRASE_REACH))
        return tuple(pitch + interval for interval in chords[rng.integers(len(chords))])

    return list(_line(rng, SECONDS[PHRASE], step))


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


def write_midi(notes: list[Note], program: int, path: Path) -> None:
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


def write_manifest(output: Path, tracks: list[tuple[Track, float]]) -> None:
    """Where every track comes from."""
    with (output / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for track, seconds in tracks:
            values = (track.soundfont.stem, track.licence, track.program, track.kind)
            writer.writerow([track.file, *values, f"{seconds:.2f}"])


if __name__ == "__main__":
    sys.exit(main())
