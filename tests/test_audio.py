import os

import numpy as np
import pytest
import soundfile
from conftest import noise, tone

from hear_tune import AudioError
from hear_tune.audio import read_blocks, to_mono

RATE = 22_050


def read(path):
    return np.concatenate(list(read_blocks(path)))


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_a_tone_keeps_its_frequency_and_level(tmp_path, rate):
    soundfile.write(tmp_path / "x.wav", tone(1000, 2 * rate, rate), rate, subtype="FLOAT")
    samples = read(tmp_path / "x.wav")
    assert abs(len(samples) - 2 * RATE) <= 1
    middle = samples[RATE // 2 : RATE // 2 + RATE]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(RATE))) / (RATE / 4)
    assert spectrum.argmax() == 1000
    assert spectrum.max() == pytest.approx(0.4, rel=1e-3)
    assert np.delete(spectrum, slice(990, 1011)).max() < 1e-4


def test_what_lies_above_the_band_does_not_fold_back(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(15_000, 96_000, 48_000), 48_000)
    assert np.abs(read(tmp_path / "x.wav")[2000:-2000]).max() < 1e-3


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3", "x.aiff"])
def test_formats(tmp_path, name):
    soundfile.write(tmp_path / name, np.stack([tone(500, 30_000), tone(900, 30_000)], 1), RATE)
    samples = read(tmp_path / name)
    assert samples.dtype == np.float32
    expected = (tone(500, 30_000) + tone(900, 30_000)) / 2
    np.testing.assert_allclose(samples[:30_000], expected, atol=0.03)


def test_channels_are_averaged(tmp_path):
    channels = np.stack([noise(1000, seed) for seed in range(8)], 1)
    soundfile.write(tmp_path / "x.wav", channels, RATE, subtype="FLOAT")
    np.testing.assert_allclose(read(tmp_path / "x.wav"), channels.mean(1), atol=1e-6)


def test_long_files_come_in_small_blocks(tmp_path):
    soundfile.write(tmp_path / "x.wav", noise(3_000_000), 44_100)
    blocks = list(read_blocks(tmp_path / "x.wav"))
    assert max(map(len, blocks)) < 500_000
    assert abs(sum(map(len, blocks)) - 1_500_000) <= 1


@pytest.mark.parametrize("rate", [RATE, 44_100, 48_000])
def test_arrays_and_files_agree(tmp_path, rate):
    stereo = np.stack([noise(900_000), noise(900_000, 1)], 1)
    soundfile.write(tmp_path / "x.wav", stereo, rate, subtype="FLOAT")
    np.testing.assert_allclose(read(tmp_path / "x.wav"), to_mono(stereo, rate), atol=2e-6)


def test_integers_are_scaled():
    np.testing.assert_allclose(
        to_mono(np.array([0, -(2**15), 2**14], np.int16), RATE), [0, -1, 0.5]
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(0), "no audio"),
        (np.zeros((2, 3, 4)), r"must be \(samples,\) or"),
        (np.zeros((2, 9000)), "transpose it"),
        (np.array([0.0, np.nan]), "NaN or infinite"),
        (np.array([1, 2]), "floating point, int16 or int32, not int64"),
    ],
)
def test_arrays_that_are_no_audio(array, message):
    with pytest.raises(AudioError, match=message):
        to_mono(array, RATE)


def bad_files(folder):
    soundfile.write(folder / "nan.wav", np.array([0, np.nan, 0]), RATE, subtype="FLOAT")
    soundfile.write(folder / "inf.wav", np.array([0, np.inf, 0]), RATE, subtype="FLOAT")
    soundfile.write(folder / "no samples.wav", np.zeros(0), RATE)
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
        "huge.wav": "far beyond any full scale",
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


def test_files_that_are_no_audio(tmp_path):
    for name, message in bad_files(tmp_path).items():
        with pytest.raises(AudioError, match=message):
            read(tmp_path / name)
