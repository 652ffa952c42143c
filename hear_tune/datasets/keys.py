"""Names of the 24 keys, one spelling for each."""

from __future__ import annotations

from .task import TaskError

TONICS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS)

_NATURAL_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTAL_SEMITONES = {"#": 1, "b": -1}


def tonic_name(text: str) -> str:
    """A tonic in sharps: ``"eb"`` is ``"D#"``.

    Raises
    ------
    TaskError
        If it is no tonic.
    """
    letter, accidentals = text[:1].upper(), text[1:]
    if letter not in _NATURAL_SEMITONES or set(accidentals) - set(_ACCIDENTAL_SEMITONES):
        raise TaskError(f"{text!r} is no tonic such as C# or Eb")
    shift = sum(_ACCIDENTAL_SEMITONES[accidental] for accidental in accidentals)
    return TONICS[(_NATURAL_SEMITONES[letter] + shift) % len(TONICS)]


def key_name(text: str) -> str:
    """A key as one of `KEYS`: ``"eb minor"`` is ``"D# minor"``.

    Raises
    ------
    TaskError
        If it is no key.
    """
    words = text.split()
    if len(words) != 2 or words[1].lower() not in ("major", "minor"):
        raise TaskError(f"{text!r} is no key such as 'Eb minor'")
    return f"{tonic_name(words[0])} {words[1].lower()}"
