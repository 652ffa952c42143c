"""Files of every format, written by ffmpeg and sox, are decoded whole, as by ffmpeg."""

import shutil
import struct
import subprocess
from itertools import product

import numpy as np
import pytest
import soundfile

from hear_tune import AudioError
from hear_tune.audio.reading import read_blocks

RATE = 22_050
SECONDS = 3.0
RATES = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000]
LAYOUTS = ["mono", "stereo", "5.1"]

# name: file name, arguments of ffmpeg, rates and layouts that the encoder takes
FORMATS = {
    "WAV, 16 bit": ("x.wav", "-c:a pcm_s16le", RATES, LAYOUTS),
    "WAV, 24 bit": ("x.wav", "-c:a pcm_s24le", RATES, LAYOUTS),
    "WAV, 8 bit": ("x.wav", "-c:a pcm_u8", RATES, LAYOUTS),
    "WAV, float": ("x.wav", "-c:a pcm_f32le", RATES, LAYOUTS),
    "WAV, A-law": ("x.wav", "-c:a pcm_alaw", RATES, LAYOUTS),
    "WAV, ADPCM": ("x.wav", "-c:a adpcm_ms", RATES[:7], LAYOUTS[:2]),
    "WAV, MP3": ("x.wav", "-c:a libmp3lame", RATES[:7], LAYOUTS[:2]),
    "WAV, 64 bit": ("x.wav", "-c:a pcm_s64le", RATES[5:7], LAYOUTS),
    "RF64": ("x.wav", "-c:a pcm_s16le -rf64 always", RATES, LAYOUTS),
    "W64": ("x.w64", "-c:a pcm_s16le", RATES, LAYOUTS),
    "AIFF": ("x.aiff", "-c:a pcm_s24be", RATES, LAYOUTS),
    "AU": ("x.au", "-c:a pcm_s16be", RATES, LAYOUTS),
    "CAF": ("x.caf", "-c:a pcm_s16be", RATES, LAYOUTS),
    "CAF, ALAC": ("x.caf", "-c:a alac", RATES, LAYOUTS),
    "FLAC, 16 bit": ("x.flac", "-sample_fmt s16", RATES, LAYOUTS),
    "FLAC, 24 bit": ("x.flac", "-sample_fmt s32", RATES, LAYOUTS),
    "Ogg FLAC": ("x.oga", "-c:a flac", RATES, LAYOUTS),
    "Ogg Vorbis": ("x.ogg", "-c:a libvorbis", RATES[:9], LAYOUTS),
    "Opus": ("x.opus", "-c:a libopus", [8_000, 16_000, 48_000], LAYOUTS),
    "Speex": ("x.spx", "-c:a libspeex", [8_000, 16_000, 32_000], LAYOUTS[:2]),
    "MP3, CBR": ("x.mp3", "-c:a libmp3lame", RATES[:7], LAYOUTS[:2]),
    "MP3, VBR": ("x.mp3", "-c:a libmp3lame -q:a 4", RATES[:7], LAYOUTS[:2]),
    "MP3, no Xing": ("x.mp3", "-c:a libmp3lame -q:a 4 -write_xing 0", RATES[:7], LAYOUTS[:2]),
    "MP2": ("x.mp2", "-c:a mp2", [16_000, 22_050, 32_000, 44_100, 48_000], LAYOUTS[:2]),
    "AAC in MPEG-4": ("x.m4a", "-c:a aac", RATES[:9], LAYOUTS),
    "AAC, fragmented": (
        "x.mp4",
        "-c:a aac -movflags frag_keyframe+empty_moov",
        RATES[5:7],
        LAYOUTS,
    ),
    "AAC, ADTS": ("x.aac", "-c:a aac", RATES[:9], LAYOUTS),
    "ALAC": ("x.m4a", "-c:a alac", RATES, LAYOUTS),
    "AC-3": ("x.ac3", "-c:a ac3", [32_000, 44_100, 48_000], LAYOUTS),
    "E-AC-3": ("x.eac3", "-c:a eac3", [32_000, 44_100, 48_000], LAYOUTS),
    "DTS": ("x.dts", "-c:a dca -strict -2", [32_000, 44_100, 48_000], LAYOUTS),
    "TrueHD": ("x.thd", "-c:a truehd -strict -2", [44_100, 48_000, 96_000], LAYOUTS[:2]),
    "WMA 1": ("x.wma", "-c:a wmav1", RATES[:7], LAYOUTS[:2]),
    "WMA 2": ("x.wma", "-c:a wmav2", RATES[:7], LAYOUTS[:2]),
    "WebM, Opus": ("x.webm", "-c:a libopus", [48_000], LAYOUTS),
    "WebM, Vorbis": ("x.webm", "-c:a libvorbis", [44_100, 48_000], LAYOUTS),
    "Matroska, FLAC": ("x.mka", "-c:a flac", RATES, LAYOUTS),
    "Matroska, AAC": ("x.mkv", "-c:a aac", RATES[:9], LAYOUTS),
    "WavPack": ("x.wv", "-c:a wavpack", RATES, LAYOUTS),
    "TTA": ("x.tta", "-c:a tta", RATES, LAYOUTS),
    "AVI, PCM": ("x.avi", "-c:a pcm_s16le", RATES[5:7], LAYOUTS[:2]),
    "AVI, MP3": ("x.avi", "-c:a libmp3lame", RATES[5:7], LAYOUTS[:2]),
    "MPEG-PS": ("x.mpg", "-c:a mp2", RATES[5:7], LAYOUTS[:2]),
    "MPEG-TS": ("x.ts", "-c:a aac", RATES[5:7], LAYOUTS),
    "LOAS": ("x.loas", "-c:a aac -f latm", RATES[5:7], LAYOUTS),
}
DELAYED = [  # by their encoders, whose files do not tell
    *("WAV, MP3", "MP3, no Xing", "AAC, ADTS", "Matroska, AAC", "WMA 1", "WMA 2"),
    *("AVI, MP3", "MPEG-TS", "LOAS"),
]


def cases():
    """Each format at each rate and layout; in stereo at the highest common rate by default."""
    for name, (_, _, rates, layouts) in FORMATS.items():
        usual = max(rate for rate in rates if rate <= 48_000), "stereo"
        for case in product(rates, layouts):
            yield pytest.param(name, *case, marks=() if case == usual else pytest.mark.slow)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.fixture(scope="module", autouse=True)
def ffmpeg():
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg, which makes the files, is not installed")


def chirp(rate, seconds=SECONDS):
    """From 200 Hz up to 2 kHz at constant level."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 + 900 * time / seconds) * time)).astype(np.float32)


def make(folder, name, rate=44_100, layout="stereo"):
    file, arguments, _, _ = FORMATS[name]
    soundfile.write(folder / "source.wav", chirp(rate), rate, "FLOAT")
    source = ["-i", str(folder / "source.wav"), "-af", f"aformat=channel_layouts={layout}"]
    target = folder / file
    try:
        run("ffmpeg", "-v", "error", *source, *arguments.split(), str(target))
    except subprocess.CalledProcessError as error:
        if b"Unknown encoder" not in error.stderr:
            raise
        pytest.skip(f"this ffmpeg does not make it ({error.stderr[-200:]})")
    return target


def read(path):
    remarks = []
    samples = np.concatenate([*read_blocks(path, remarks), np.zeros(0, np.float32)])
    return samples, [str(remark) for remark in remarks]


def seconds_by_ffmpeg(path):
    output = ["-f", "s16le", "-ac", "1", "-ar", "8000", "-"]
    return len(run("ffmpeg", "-v", "quiet", "-i", str(path), *output)) / 16_000


@pytest.mark.parametrize(("name", "rate", "layout"), list(cases()))
def test_a_file_is_decoded_whole(tmp_path, name, rate, layout):
    path = make(tmp_path, name, rate, layout)
    samples, remarks = read(path)
    assert remarks == []
    assert len(samples) / RATE == pytest.approx(seconds_by_ffmpeg(path), abs=0.05)
    assert len(samples) / RATE == pytest.approx(SECONDS, abs=0.3)  # some are padded
    expected = chirp(RATE)
    overlap = np.correlate(samples[3_000:40_000], expected[6_000:36_000])
    shift = abs(overlap).argmax() - 3_000
    delay = 0.05 if name not in DELAYED else max(0.05, 2_400 / rate)
    assert abs(shift) <= delay * RATE
    if max(rate, 11_025) == rate:
        heard, known = samples[6_000 + shift :][:30_000], expected[6_000:36_000]
        assert abs(np.corrcoef(heard, known)[0, 1]) > 0.95


GAPLESS = [
    "WAV, 16 bit",
    "FLAC, 16 bit",
    "Ogg Vorbis",
    "Opus",
    "MP3, VBR",
    "ALAC",
    "WavPack",
    "TTA",
]


@pytest.mark.parametrize("name", GAPLESS)
def test_neither_padding_nor_delay_is_left(tmp_path, name):
    samples, _ = read(make(tmp_path, name, 48_000))
    assert abs(len(samples) - SECONDS * RATE) <= 1
    start = chirp(RATE)[: RATE // 10]
    assert np.corrcoef(samples[: len(start)], start)[0, 1] > 0.99


# --- Headers with no length or a wrong one ---


def put(data, place, number, size=4, order="little"):
    return data[:place] + number.to_bytes(size, order) + data[place + size :]


def without_a_length(data, kind):
    if kind == "FLAC":  # the number of samples, after the block's length and 13 bytes
        return put(data, 22, 0)[:21] + bytes([data[21] & 0xF0]) + put(data, 22, 0)[22:]
    place = data.index(b"data") + 4
    return put(put(data, 4, kind), place, kind)


@pytest.mark.parametrize("size", [0, 0x7F00_0004, 0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFF])
def test_wav_written_to_a_pipe(tmp_path, size):
    path = make(tmp_path, "WAV, 16 bit")
    path.write_bytes(without_a_length(path.read_bytes(), size))
    samples, remarks = read(path)
    assert len(samples) == SECONDS * RATE
    assert remarks == []


def test_flac_written_to_a_pipe(tmp_path):
    path = make(tmp_path, "FLAC, 16 bit")
    path.write_bytes(without_a_length(path.read_bytes(), "FLAC"))
    samples, remarks = read(path)
    assert len(samples) == SECONDS * RATE
    assert remarks == []


@pytest.mark.parametrize(
    ("kind", "coding"),
    [("wav", "pcm_s16le"), ("mp3", "libmp3lame"), ("webm", "libopus"), ("flac", "flac")],
)
def test_files_that_ffmpeg_writes_to_a_pipe(tmp_path, kind, coding):
    source = make(tmp_path, "WAV, 16 bit", 48_000)
    arguments = f"-c:a {coding} -f {kind} -".split()
    (tmp_path / "piped").write_bytes(run("ffmpeg", "-v", "error", "-i", str(source), *arguments))
    samples, remarks = read(tmp_path / "piped")
    assert len(samples) / RATE == pytest.approx(seconds_by_ffmpeg(tmp_path / "piped"), abs=0.05)
    assert len(samples) / RATE > SECONDS - 0.05
    assert remarks == []


def test_vbr_without_a_count_that_begins_densely(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4 * 44_100)
    soundfile.write(tmp_path / "x.wav", np.concatenate([noise, chirp(44_100, 16)]), 44_100)
    arguments = ["-c:a", "libmp3lame", "-q:a", "4", "-write_xing", "0"]
    run("ffmpeg", "-v", "error", "-i", str(tmp_path / "x.wav"), *arguments, str(tmp_path / "x.mp3"))
    samples, remarks = read(tmp_path / "x.mp3")
    assert len(samples) / RATE == pytest.approx(20, abs=0.06)
    assert remarks == []


@pytest.mark.parametrize("name", ["Ogg Vorbis", "Opus", "Ogg FLAC", "MP3, VBR", "FLAC, 16 bit"])
def test_files_that_were_joined(tmp_path, name):
    first = make(tmp_path, name, 48_000).read_bytes()
    (tmp_path / "2").mkdir()
    other = make(tmp_path / "2", name, 48_000, "mono" if "FLAC, 16" not in name else "stereo")
    (tmp_path / "both").write_bytes(first + other.read_bytes())
    samples, remarks = read(tmp_path / "both")
    assert len(samples) / RATE == pytest.approx(2 * SECONDS, abs=0.06)
    assert remarks == []
    for part in (samples[: 2 * RATE], samples[len(samples) - 3 * RATE :][: 2 * RATE]):
        overlap = np.correlate(part[3_000:], chirp(RATE)[6_000:30_000])
        shift = overlap.argmax() - 3_000  # of the second, where padding of the first may be left
        assert abs(shift) < 0.05 * RATE
        heard, known = part[6_000 + shift :][:24_000], chirp(RATE)[6_000:30_000]
        assert np.corrcoef(heard, known)[0, 1] > 0.95


def test_joined_files_of_which_the_last_was_cut_are_named(tmp_path):
    content = make(tmp_path, "MP3, VBR", 48_000).read_bytes()
    (tmp_path / "both.mp3").write_bytes(content + content[: int(len(content) * 0.61)])
    _, remarks = read(tmp_path / "both.mp3")
    assert remarks == ["cut off: in the middle of its last frame"]


def test_links_of_a_radio_recording_may_differ(tmp_path):
    places = {"Ogg Vorbis": 44_100, "Ogg FLAC": 96_000, "Opus": 48_000}
    content = b""
    for name, rate in places.items():
        folder = tmp_path / name
        folder.mkdir()
        content += make(folder, name, rate, "mono" if rate == 44_100 else "stereo").read_bytes()
    (tmp_path / "radio.ogg").write_bytes(content)
    samples, remarks = read(tmp_path / "radio.ogg")
    assert len(samples) == pytest.approx(9 * RATE, abs=3)
    assert remarks == []
    for part in np.split(samples[: 9 * RATE], 3):
        assert np.corrcoef(part, chirp(RATE))[0, 1] > 0.95


# --- Incomplete files ---

CUT = [
    *("WAV, 16 bit", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC, 16 bit", "Ogg FLAC", "Ogg Vorbis"),
    *("Opus", "MP3, CBR", "MP3, VBR", "MP3, no Xing", "MP2", "AAC in MPEG-4", "AAC, fragmented"),
    *("AAC, ADTS", "WMA 2", "WebM, Opus", "Matroska, FLAC", "WavPack", "TTA"),
    *("AC-3", "E-AC-3", "DTS", "TrueHD", "AVI, PCM", "AVI, MP3", "MPEG-PS", "MPEG-TS", "LOAS"),
]


@pytest.mark.parametrize("name", CUT)
def test_a_cut_file_is_read_as_far_as_it_goes_and_named(tmp_path, name):
    path = make(tmp_path, name, 48_000)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.61)])
    by_ffmpeg = 0.0 if name == "AAC in MPEG-4" else seconds_by_ffmpeg(path)
    if by_ffmpeg == 0:
        with pytest.raises(AudioError, match=r"cut off|none of the"):
            read(path)
        return
    samples, remarks = read(path)
    assert len(samples) / RATE == pytest.approx(by_ffmpeg, abs=0.05)
    assert len(remarks) == 1
    assert remarks[0].startswith("cut off: ")


def test_a_flac_without_a_length_that_was_cut_is_named(tmp_path):
    path = make(tmp_path, "FLAC, 16 bit")
    data = without_a_length(path.read_bytes(), "FLAC")
    path.write_bytes(data[: int(len(data) * 0.61)])
    samples, remarks = read(path)
    assert 1 < len(samples) / RATE < 2
    assert remarks == ["cut off: in the middle of its last frame"]


@pytest.mark.parametrize(
    "name",
    [
        *("MP3, no Xing", "MP2", "AAC, ADTS", "WMA 2", "AC-3", "E-AC-3", "DTS", "TrueHD"),
        *("MPEG-TS", "LOAS", "AVI, MP3", "WebM, Opus", "FLAC, 16 bit"),
    ],
)
def test_a_file_whose_second_half_was_never_written_is_named(tmp_path, name):
    path = make(tmp_path, name, 48_000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))
    samples, remarks = read(path)
    assert 1 < len(samples) / RATE < 2
    assert remarks[0].startswith("cut off: ")


@pytest.mark.parametrize(
    "name",
    [
        *("FLAC, 16 bit", "Ogg Vorbis", "Opus", "MP3, VBR", "MP3, no Xing", "AAC in MPEG-4"),
        *("AAC, ADTS", "AC-3", "LOAS"),
    ],
)
def test_damage_is_skipped_and_named(tmp_path, name):
    path = make(tmp_path, name, 48_000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 600] = bytes(range(200)) * 3
    path.write_bytes(data)
    samples, remarks = read(path)
    assert 0.5 < len(samples) / RATE < SECONDS + 0.1
    assert len(remarks) == 1
    assert remarks[0].startswith("damaged: ")


@pytest.mark.parametrize(
    "tail",
    [b"TAG" + bytes(125), b"APETAGEX" + bytes(500), bytes(2_000)],
    ids=["ID3", "APE", "zeros"],
)
@pytest.mark.parametrize(
    "name",
    [
        *("MP3, VBR", "MP3, no Xing", "AAC, ADTS", "AAC in MPEG-4", "FLAC, 16 bit", "WavPack"),
        *("TTA", "AC-3", "E-AC-3", "DTS", "TrueHD"),
    ],
)
def test_tags_after_the_audio_are_no_damage(tmp_path, name, tail):
    path = make(tmp_path, name, 48_000)
    path.write_bytes(path.read_bytes() + tail)
    samples, remarks = read(path)
    assert len(samples) / RATE == pytest.approx(SECONDS, abs=0.06)
    assert remarks == []


# --- Reasons for refusals ---


def test_files_of_other_kinds_are_identified(tmp_path):
    audio = make(tmp_path, "AAC in MPEG-4").read_bytes()
    picture = ["-f", "lavfi", "-i", "color=c=red:s=64x64:d=0.2", "-an"]
    run("ffmpeg", "-v", "error", *picture, str(tmp_path / "mute.mp4"))
    run("ffmpeg", "-v", "error", *picture, "-frames:v", "1", str(tmp_path / "x.png"))
    id3, id3v1 = b"ID3\x04\0\0\0\0\x07\x76" + bytes(1014), b"TAG" + b"Song".ljust(125)
    ape = b"".join(
        b"APETAGEX" + struct.pack("<IIII", 2000, 332, 1, flags) + bytes(8) + text
        for flags, text in ((0xA000_0000, b"x" * 300), (0x8000_0000, b""))
    )
    contents = {
        "an HTML page": b"\n<!DOCTYPE html><html><body>404</body></html>",
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "a JSON file": b'{"error": "not found"}',
        "a text file": "Fehler: nicht gefunden, schade für dich".encode(),
        "a playlist": b"#EXTM3U\nsource.wav\n",
        "tags without audio": id3 + bytes(20_000) + ape + id3v1,
        "tags without audio$": id3v1,
        "an HTML page$": b"<!-- saved -->\n<!-- twice --><html><body>404</body></html>",
        "an XML document": b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>',
        "an HTML page.?$": b'<?xml version="1.0"?><!DOCTYPE html><html></html>',
        "nothing but zero bytes": bytes(5_000),
        "a PNG image": (tmp_path / "x.png").read_bytes(),
        "a ZIP archive": b"PK\x03\x04" + np.random.default_rng(0).bytes(3_000_000),
        "a MIDI file": b"MThd\0\0\0\x06\0\0\0\1\0\x60",
        "no audio stream, only video": (tmp_path / "mute.mp4").read_bytes(),
        "protected against copying": audio.replace(b"mp4a", b"drms"),
        "without its index": audio[: len(audio) // 2],
    }
    for reason, content in contents.items():
        (tmp_path / "song.mp3").write_bytes(content)
        with pytest.raises(AudioError, match=reason) as caught:
            read(tmp_path / "song.mp3")
        assert "possibly a pipe" not in str(caught.value)


def test_the_content_counts_and_not_the_name(tmp_path):
    make(tmp_path, "AAC in MPEG-4").rename(tmp_path / "song.mp3")
    samples, remarks = read(tmp_path / "song.mp3")
    assert len(samples) / RATE == pytest.approx(SECONDS, abs=0.05)
    assert remarks == []


def test_no_other_file_is_opened(tmp_path):
    soundfile.write(tmp_path / "secret.wav", chirp(RATE), RATE)
    (tmp_path / "list.mp3").write_text(f"ffconcat version 1.0\nfile {tmp_path / 'secret.wav'}\n")
    with pytest.raises(AudioError, match="a playlist"):
        read(tmp_path / "list.mp3")


# --- Hostile files ---


@pytest.mark.parametrize("name", ["AAC in MPEG-4", "Ogg Vorbis", "WMA 2", "WebM, Opus", "MP3, VBR"])
def test_damage_anywhere_never_ends_in_another_error(tmp_path, name):
    data = make(tmp_path, name, 48_000).read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(data), 8):
        damaged = data[:place] + rng.bytes(40) + data[place + 40 :]
        for content in (data[:place], damaged):
            (tmp_path / "x").write_bytes(content)
            try:
                samples, _ = read(tmp_path / "x")
            except AudioError:
                continue
            assert len(samples) / RATE < SECONDS + 1
