"""Names of the 24 keys, with one spelling each."""

from __future__ import annotations

from .task import TaskError

TONICS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS)

_NATURAL_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTAL_SEMITONES = {"#": 1, "b": -1}


def tonic_name(text: str) -> str:
    """Spell a tonic with sharps (``"eb"`` is ``"D#"``); a `TaskError` if it is none."""
    letter, accidentals = text[:1].upper(), text[1:]
    if letter not in _NATURAL_SEMITONES or set(accidentals) - set(_ACCIDENTAL_SEMITONES):
        raise TaskError(f"{text!r} is no tonic such as C# or Eb")
    shift = sum(_ACCIDENTAL_SEMITONES[accidental] for accidental in accidentals)
    return TONICS[(_NATURAL_SEMITONES[letter] + shift) % len(TONICS)]


def key_name(text: str) -> str:
    """Spell a key as in `KEYS` (``"eb minor"`` is ``"D# minor"``); a `TaskError` if it is none."""
    words = text.split()
    if len(words) != 2 or words[1].lower() not in ("major", "minor"):
        raise TaskError(f"{text!r} is no key such as 'Eb minor'")
    return f"{tonic_name(words[0])} {words[1].lower()}"
