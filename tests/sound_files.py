"""Files that cannot be used, and files that are used with a remark."""

import os

import numpy as np
import soundfile
from conftest import noise

RATE = 22_050


def bad_files(folder):
    soundfile.write(folder / "nan.wav", np.array([0, np.nan, 0]), RATE, subtype="FLOAT")
    soundfile.write(folder / "inf.wav", np.array([0, np.inf, 0]), RATE, subtype="FLOAT")
    soundfile.write(folder / "no samples.wav", np.zeros(0), RATE)
    soundfile.write(folder / "whole.flac", noise(200_000), RATE)
    (folder / "empty.mp3").write_bytes(b"")
    (folder / "text.wav").write_text("I am not a sound")
    (folder / "headless.ogg").write_bytes(b"OggS" + bytes(100))
    soundfile.write(folder / "huge.wav", np.array([0, 3e38, 0]), RATE, subtype="FLOAT")
    soundfile.write(folder / "once.aiff", noise(500), RATE, subtype="DWVW_16")
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    soundfile.write(folder / "slow.wav", noise(5000), 1)
    return {
        "nan.wav": "NaN or infinite",
        "inf.wav": "NaN or infinite",
        "huge.wav": "far beyond full scale",
        "once.aiff": "cannot decode",  # a coding without random access
        "no samples.wav": "no audio",
        "empty.mp3": "empty",
        "text.wav": "it is a text file",
        "headless.ogg": "cannot decode",
        "folder.wav": "not a regular file",
        "pipe.wav": "not a regular file",
        "slow.wav": "its sample rate is 1 Hz",
        "missing.wav": "no such file",
    }


def odd_files(folder):
    """Usable files with a remark, by name."""
    sound = noise(60_000)
    soundfile.write(folder / "opposite.wav", np.stack([sound, -sound], 1), RATE)
    soundfile.write(folder / "residue.flac", np.stack([sound, -0.98 * sound], 1), 44_100)
    soundfile.write(folder / "integers.wav", 20_000 * sound, RATE, subtype="FLOAT")
    for name in ("cut.wav", "cut.flac", "cut.ogg", "cut.mp3"):
        soundfile.write(folder / name, sound, RATE)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * 0.6)])
    return {
        "opposite.wav": "channels cancel: ",
        "residue.flac": "channels cancel: ",
        "integers.wav": "not at the scale of audio: it peaks at 1e+04",
        **dict.fromkeys(("cut.wav", "cut.flac", "cut.ogg", "cut.mp3"), "cut off: "),
    }
