import numpy as np
import pytest
import soundfile
from conftest import noise, tone
from fsspec.implementations.local import LocalFileOpener
from sound_files import bad_files, odd_files

from hear_tune import AudioError
from hear_tune.audio import decoding, headers
from hear_tune.audio.reading import SILENT, read_blocks, to_mono

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


def test_frequencies_above_the_band_do_not_alias(tmp_path):
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


def test_remarks_on_odd_files(tmp_path):
    for name, expected in odd_files(tmp_path).items():
        remarks = []
        assert sum(map(len, read_blocks(tmp_path / name, remarks))) > 10_000
        assert len(remarks) == 1
        assert remarks[0].text.startswith(expected)
        assert remarks[0].incomplete == name.startswith("cut")


@pytest.mark.parametrize("other", [0.5, 0.0, -0.9])
def test_no_remark_if_channels_do_not_cancel(tmp_path, other):
    sound = noise(60_000)
    soundfile.write(tmp_path / "x.wav", np.stack([sound, other * sound], 1), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros((9_000, 2)), RATE)
    soundfile.write(tmp_path / "loud.wav", 3 * sound, RATE, subtype="FLOAT")
    for name in ("x.wav", "silent.wav", "loud.wav"):
        remarks = []
        list(read_blocks(tmp_path / name, remarks))
        assert remarks == ([SILENT] if name == "silent.wav" else [])


def test_a_wav_of_more_than_2_gb_that_was_cut_is_named(tmp_path):
    soundfile.write(tmp_path / "x.wav", noise(9_000), RATE)
    data = bytearray((tmp_path / "x.wav").read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = (0x7F80_0000).to_bytes(4, "little")
    (tmp_path / "x.wav").write_bytes(data)
    remarks = []
    assert sum(map(len, read_blocks(tmp_path / "x.wav", remarks))) == 9_000
    assert [remark.incomplete for remark in remarks] == [True]


@pytest.mark.parametrize("name", ["x.wav", "x.aiff"])
def test_a_header_that_a_recorder_did_not_update_is_named(tmp_path, name):
    soundfile.write(tmp_path / name, noise(40_000), RATE)
    whole = bytearray((tmp_path / name).read_bytes())
    order, mark, offset = ("little", b"data", 0) if name == "x.wav" else ("big", b"SSND", 8)
    data = whole.copy()
    place = data.index(mark) + 4
    data[place : place + 4] = (offset + 20_000).to_bytes(4, order)
    chunk = b"LIST" + (2_000).to_bytes(4, order) + bytes(range(200)) * 10
    for content, count in ((data, 1), (whole + chunk, 0), (whole + bytes(9_000), 0)):
        (tmp_path / name).write_bytes(content)
        remarks = []
        assert sum(map(len, read_blocks(tmp_path / name, remarks))) == (10_000 if count else 40_000)
        assert [remark.text[:13] for remark in remarks] == count * ["read in part:"]
        assert all(remark.incomplete for remark in remarks)


def test_a_disk_that_fails_costs_no_more_than_the_file(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    soundfile.write(tmp_path / "x.wav", noise(9_000), RATE)
    monkeypatch.setattr(headers, "_read_at", fail)
    with pytest.raises(AudioError, match=r"cannot be read \(Input/output error\)"):
        read(tmp_path / "x.wav")


@pytest.mark.parametrize("good_blocks", [0, 1])
def test_an_error_within_a_decoder_costs_no_more_than_the_file(tmp_path, monkeypatch, good_blocks):
    soundfile.write(tmp_path / "x.flac", noise(300_000), RATE)
    taken, take = [], decoding._take

    def flawed(waiting):
        taken.append(waiting)
        if len(taken) > good_blocks + 1:  # the first has no samples
            raise KeyError("s65")
        return take(waiting)

    monkeypatch.setattr(decoding, "_take", flawed)
    monkeypatch.setattr(decoding, "_by_libsndfile", lambda *_: iter(()))
    remarks = []
    if good_blocks == 0:
        with pytest.raises(AudioError, match=r"cannot decode it .*s65"):
            list(read_blocks(tmp_path / "x.flac", remarks))
    else:
        assert sum(map(len, read_blocks(tmp_path / "x.flac", remarks))) < 200_000
        assert [remark.text[:9] for remark in remarks] == ["cut off: "]


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3", "x.pvf"])
def test_streams_and_urls_are_read_as_files_are(tmp_path, name):
    soundfile.write(tmp_path / name, np.stack([noise(90_000), noise(90_000, 1)], 1), 44_100)
    expected = read(tmp_path / name)
    with (tmp_path / name).open("rb") as file:
        np.testing.assert_allclose(read(file), expected, atol=1e-6)
    np.testing.assert_allclose(read(f"file://{tmp_path / name}"), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["x.wav", "x.ogg", "x.mp3"])
def test_a_failing_download_is_not_taken_for_the_end(tmp_path, name, monkeypatch):
    soundfile.write(tmp_path / name, noise(900_000), 44_100)
    read_file = LocalFileOpener.read

    def flaky(self, size=-1):
        if self.f.tell() > 40_000:
            raise ConnectionError("reset")
        return read_file(self, min(size, 20_000) if size > 0 else size)

    monkeypatch.setattr(LocalFileOpener, "read", flaky)
    monkeypatch.setattr(LocalFileOpener, "__getattr__", lambda self, name: getattr(self.f, name))
    with pytest.raises(AudioError, match=r"cannot be fetched \(ConnectionError: reset\)"):
        read(f"file://{tmp_path / name}")


def test_files_that_are_no_audio(tmp_path):
    for name, message in bad_files(tmp_path).items():
        with pytest.raises(AudioError, match=message):
            read(tmp_path / name)


def test_channels_before_samples_are_refused():
    """They would pass for a few samples of many channels."""
    for shape in ((1, 1_000), (2, 3), (1, 2)):
        with pytest.raises(AudioError, match="more channels than samples: transpose it"):
            to_mono(np.zeros(shape, np.float32), RATE)
    assert len(to_mono(np.zeros((2, 2), np.float32), RATE)) == 2
    for shape in ((0,), (0, 2), (2, 0)):
        with pytest.raises(AudioError, match="no audio"):
            to_mono(np.zeros(shape, np.float32), RATE)
