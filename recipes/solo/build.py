#!/usr/bin/env python3
"""Render instruments of free General MIDI soundfonts: random notes, phrases and unisons.

For each preset of each soundfont, writes tracks that repeat one note at several lengths and
velocities, and phrases (melodies and chords). For ensembles of five presets, writes tracks that
pass one note from preset to preset; for each instrument, from soundfont to soundfont:

    OUT/music/note/<pitch>/<soundfont>-<program>.flac
    OUT/music/phrase/<number>/<soundfont>-<program>.flac
    OUT/music/unison/<ensemble>/<pitch>.flac
    OUT/music/instrument/<program>/<pitch>.flac
    OUT/manifest.csv             file, soundfonts, licences, programs, kind, seconds

Notes of one folder differ in timbre alone, unisons of one folder in pitch alone. The corpus is
reproducible from fixed seeds. Run it again to resume. Needs fluidsynth, the soundfonts of
soundfonts.tsv and the Python package mido.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import mido
import numpy as np
import numpy.typing as npt
import soundfile
from tqdm import tqdm

from hear_tune.common.files import write_whole
from hear_tune.common.samples import pad_end
from hear_tune.networks.config import SAMPLE_RATE_HZ

HERE = Path(__file__).parent
COLUMNS = ["file", "soundfonts", "licences", "programs", "kind", "seconds"]
PROGRAMS = 128
PITCHED_PROGRAMS = 96  # later ones are effects, percussion and noises
NOTE, PHRASE, UNISON, INSTRUMENT = "note", "phrase", "unison", "instrument"
SECONDS = {NOTE: 5.0, PHRASE: 10.0, UNISON: 10.0, INSTRUMENT: 10.0}
GAP_SECONDS = 1.0  # after a track, for its last note to fade
LOWEST_PITCH, HIGHEST_PITCH = 33, 96
REACH = 12  # semitones around the centre of a phrase, or of an ensemble's unisons
VOICES, UNISONS = 5, 8  # presets of an ensemble, and pitches that it plays
TURNS = 2  # per soundfont, in a track of an instrument
CHORDS = [(0,), (0,), (0,), (0,), (0, 12), (0, 7), (0, 4, 7), (0, 3, 7)]
TICKS_PER_SECOND = 960  # mido's default: 480 ticks per beat, 120 beats per minute
QUIETEST_PEAK = 0.003  # quieter tracks are excluded: the preset has no sample for the note
PEAK = 0.9
LOAD_LITTLE = ["-o", "synth.dynamic-sample-loading=1"]  # compressed soundfonts are slow to read


@dataclass(frozen=True)
class Preset:
    """A General MIDI program of a soundfont."""

    soundfont: Path
    licence: str
    program: int


@dataclass(frozen=True)
class Players:
    """Presets that play the same tracks: one alone, an ensemble, or one program of all soundfonts.

    `name` is the stem of a preset's files, or the folder of an ensemble or instrument.
    """

    presets: tuple[Preset, ...]
    name: str

    @property
    def soundfonts(self) -> list[Path]:
        """The soundfonts of the presets, each once."""
        return list(dict.fromkeys(preset.soundfont for preset in self.presets))

    @property
    def programs(self) -> list[int]:
        """The program of each preset."""
        return [preset.program for preset in self.presets]

    @property
    def origin(self) -> list[str]:
        """Soundfonts, licences and programs, as in the manifest."""
        licences = dict.fromkeys(preset.licence for preset in self.presets)
        fonts = " ".join(font.stem for font in self.soundfonts)
        return [fonts, "; ".join(licences), " ".join(map(str, self.programs))]

    @property
    def seed(self) -> list[int]:
        """Seed of everything drawn for these players."""
        stems = "".join(font.stem for font in self.soundfonts)
        return [*map(ord, stems), *self.programs]


@dataclass(frozen=True)
class Note:
    """Start and length in seconds, MIDI pitch and velocity, and the number of its player."""

    start: float
    length: float
    pitch: int
    velocity: int
    player: int = 0


@dataclass(frozen=True)
class Track:
    """A file of the corpus, its kind and its notes."""

    file: str
    kind: str
    notes: tuple[Note, ...]


def main() -> int:
    """Build the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--notes", type=int, default=24, help="single notes per preset")
    parser.add_argument("--phrases", type=int, default=24, help="phrases per preset")
    parser.add_argument("--ensembles", type=int, default=2400, help="ensembles that play unisons")
    parser.add_argument("--programs", type=int, default=PROGRAMS, help="only the first N programs")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if shutil.which("fluidsynth") is None:
        parser.error("fluidsynth is needed but not installed: apt-get install fluidsynth")
    presets = list(find_presets(options.programs))
    jobs = [(one, tuple(plan(one, options.notes, options.phrases))) for one in alone(presets)]
    for ensemble in find_ensembles(presets, options.ensembles):
        jobs.append((ensemble, tuple(plan_unisons(ensemble))))
    for instrument in find_instruments(presets):
        jobs.append((instrument, tuple(plan_instrument(instrument))))

    def build(job: tuple[Players, tuple[Track, ...]]) -> list[list[str]]:
        return build_tracks(*job, options.output)

    with ThreadPoolExecutor(options.workers) as pool:
        rows = list(tqdm(pool.map(build, jobs), total=len(jobs), unit="preset"))
    kept = list(itertools.chain.from_iterable(rows))
    write_table(options.output / "manifest.csv", [COLUMNS, *kept])
    hours = sum(float(seconds) for *_, seconds in kept) / 3600
    print(f"{options.output}: {len(kept)} tracks, {hours:.1f} h")
    return 0


def find_presets(programs: int) -> Iterator[Preset]:
    """Yield all presets of the soundfonts; exit if one is not installed."""
    with (HERE / "soundfonts.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            path = Path(row["file"])
            if not path.exists():
                sys.exit(f"{path} does not exist: apt-get install {row['package']}")
            for program in range(programs):
                yield Preset(path, row["licence"], program)


def alone(presets: Iterable[Preset]) -> Iterator[Players]:
    """Yield each preset by itself."""
    for preset in presets:
        yield Players((preset,), f"{preset.soundfont.stem}-{preset.program:03d}")


def find_ensembles(presets: Iterable[Preset], count: int) -> Iterator[Players]:
    """Draw groups of presets at random, each from one soundfont, the soundfonts in turn."""
    fonts: dict[Path, list[Preset]] = {}
    for preset in presets:
        if preset.program < PITCHED_PROGRAMS:
            fonts.setdefault(preset.soundfont, []).append(preset)
    rng = np.random.default_rng(0)
    for number, font in zip(range(count), itertools.cycle(fonts.values()), strict=False):
        voices = rng.choice(len(font), VOICES, replace=len(font) < VOICES)
        yield Players(tuple(font[voice] for voice in voices), f"{number:04d}")


def find_instruments(presets: Sequence[Preset]) -> Iterator[Players]:
    """Yield the presets of each pitched program that more than one soundfont has."""
    for program in range(PITCHED_PROGRAMS):
        versions = tuple(preset for preset in presets if preset.program == program)
        if len(versions) > 1:
            yield Players(versions, f"{program:03d}")


def plan(preset: Players, notes: int, phrases: int) -> Iterator[Track]:
    """Plan what a preset plays alone: notes of several pitches, and phrases."""
    rng = np.random.default_rng(preset.seed)
    pitches = rng.permutation(np.arange(LOWEST_PITCH, HIGHEST_PITCH + 1))[:notes]
    for pitch in pitches.tolist():
        file = f"music/{NOTE}/{pitch}/{preset.name}.flac"
        yield Track(file, NOTE, tuple(strikes(rng, pitch)))
    for number in range(phrases):
        file = f"music/{PHRASE}/{number:02d}/{preset.name}.flac"
        yield Track(file, PHRASE, tuple(phrase(rng)))


def plan_unisons(ensemble: Players) -> Iterator[Track]:
    """Plan an ensemble's unisons: several pitches around a centre."""
    rng = np.random.default_rng(ensemble.seed)
    centre = rng.integers(LOWEST_PITCH + REACH, HIGHEST_PITCH - REACH + 1)
    pitches = centre + rng.permutation(np.arange(-REACH, REACH + 1))[:UNISONS]
    return _pass_on(rng, UNISON, ensemble.name, pitches.tolist(), range(VOICES))


def plan_instrument(instrument: Players) -> Iterator[Track]:
    """Plan an instrument's tracks: every pitch, passed between all soundfonts."""
    rng = np.random.default_rng(instrument.seed)
    pitches = range(LOWEST_PITCH, HIGHEST_PITCH + 1)
    turns = list(range(len(instrument.presets))) * TURNS
    return _pass_on(rng, INSTRUMENT, instrument.name, pitches, turns)


def _pass_on(
    rng: np.random.Generator, kind: str, name: str, pitches: Iterable[int], turns: Sequence[int]
) -> Iterator[Track]:
    for pitch in pitches:
        notes = unison(rng, pitch, turns, SECONDS[kind] / len(turns))
        yield Track(f"music/{kind}/{name}/{pitch}.flac", kind, tuple(notes))


def build_tracks(players: Players, tracks: Sequence[Track], output: Path) -> list[list[str]]:
    """Render the players' tracks unless done already; return their rows of the manifest."""
    done = output / "presets" / f"{players.name}.csv"
    if done.exists():
        with done.open(newline="") as file:
            return list(csv.reader(file))
    rows = []
    for track, audio in zip(tracks, synthesise(players, tracks), strict=True):
        peak = np.abs(audio).max(initial=0)
        if peak < QUIETEST_PEAK:
            continue
        target = output / track.file
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, audio * PEAK / peak, SAMPLE_RATE_HZ)
        seconds = f"{len(audio) / SAMPLE_RATE_HZ:.2f}"
        rows.append([track.file, *players.origin, track.kind, seconds])
    write_table(done, rows)
    return rows


def synthesise(players: Players, tracks: Sequence[Track]) -> list[npt.NDArray[np.float32]]:
    """Render all tracks in one run of fluidsynth; return the audio of each."""
    lengths = [SECONDS[track.kind] + GAP_SECONDS for track in tracks]
    starts = [0.0, *itertools.accumulate(lengths)]
    notes = [
        replace(note, start=note.start + start)
        for track, start in zip(tracks, starts, strict=False)
        for note in track.notes
    ]
    rng = np.random.default_rng([*players.seed, 1])
    effects = ["-R", str(rng.integers(2)), "-C", str(rng.integers(2))]  # reverb, chorus
    with tempfile.TemporaryDirectory() as folder:
        midi, channels, wav = (Path(folder, name) for name in ("take.mid", "channels", "take.wav"))
        write_midi(notes, midi)
        channels.write_text("".join(_select(players)))
        options = ["-ni", "-q", "-g", "0.5", "-r", str(SAMPLE_RATE_HZ), "-T", "wav", "-F", wav]
        setting = [*LOAD_LITTLE, "-f", channels]
        command = ["fluidsynth", *effects, *options, *setting, *players.soundfonts, midi]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        audio, _ = soundfile.read(wav, dtype="float32", always_2d=True)
    edges = [round(start * SAMPLE_RATE_HZ) for start in starts]
    mono = pad_end(audio.mean(axis=1)[: edges[-1]], edges[-1])
    return [mono[begin:end] for begin, end in itertools.pairwise(edges)]


def _select(players: Players) -> Iterator[str]:
    """Yield fluidsynth's commands to give each preset a channel; soundfonts count from 1."""
    numbers = {font: number for number, font in enumerate(players.soundfonts, 1)}
    for channel, preset in enumerate(players.presets):
        yield f"select {channel} {numbers[preset.soundfont]} 0 {preset.program}\n"


def strikes(rng: np.random.Generator, pitch: int) -> Iterator[Note]:
    """Repeat one pitch."""
    return _line(rng, SECONDS[NOTE], lambda: (pitch,))


def phrase(rng: np.random.Generator) -> Iterator[Note]:
    """Draw a random walk of notes and chords around a centre."""
    centre = int(rng.integers(LOWEST_PITCH + REACH, HIGHEST_PITCH - REACH))
    chords = CHORDS if rng.random() < 0.5 else CHORDS[:1]
    pitch = centre

    def step() -> tuple[int, ...]:
        nonlocal pitch
        pitch += int(rng.integers(-5, 6))
        pitch = int(np.clip(pitch, centre - REACH, centre + REACH))
        return tuple(pitch + interval for interval in chords[rng.integers(len(chords))])

    return _line(rng, SECONDS[PHRASE], step)


def unison(
    rng: np.random.Generator, pitch: int, turns: Sequence[int], seconds: float
) -> Iterator[Note]:
    """Pass one pitch from player to player in random order, for `seconds` each turn."""
    for place, player in enumerate(rng.permutation(turns).tolist()):
        for note in _line(rng, seconds, lambda: (pitch,)):
            yield replace(note, start=note.start + place * seconds, player=player)


def _line(
    rng: np.random.Generator, seconds: float, next_pitches: Callable[[], tuple[int, ...]]
) -> Iterator[Note]:
    pace = np.exp(rng.uniform(np.log(0.15), np.log(1.2)))  # seconds per note in this track
    place = 0.0
    while place < seconds:
        step = float(pace * np.exp(rng.normal(0, 0.5)))
        length = min(step * rng.uniform(0.3, 1.1), seconds - place)
        velocity = int(rng.integers(35, 128))
        for pitch in next_pitches():
            yield Note(place, length, pitch, velocity)
        place += step


def write_midi(notes: Sequence[Note], path: Path) -> None:
    """Write the notes as a MIDI file, one channel per player."""
    events = [(note.start, "note_on", note) for note in notes]
    events += [(note.start + note.length, "note_off", note) for note in notes]
    track = mido.MidiTrack()
    now = 0
    for seconds, kind, note in sorted(events, key=lambda event: event[:2]):
        tick = round(seconds * TICKS_PER_SECOND)
        message = mido.Message(kind, note=note.pitch, velocity=note.velocity, time=tick - now)
        track.append(message.copy(channel=note.player))
        now = tick
    mido.MidiFile(tracks=[track]).save(path)


def write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_whole(path, text.getvalue())


if __name__ == "__main__":
    sys.exit(main())
