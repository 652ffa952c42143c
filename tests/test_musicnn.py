"""musicnn: the authors' numbers, from the weights in their package; and the checkpoints' reader."""

import json
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noise

from hear_tune import EmbeddingModel
from hear_tune.baselines import musicnn as module
from hear_tune.baselines.musicnn import Musicnn, MusicnnNetwork
from hear_tune.baselines.tf_checkpoint import TfCheckpointError, read_tf_checkpoint
from hear_tune.checkpoints import CheckpointError
from hear_tune.networks.config import WINDOW_SAMPLES

REFERENCE = json.loads((Path(__file__).parent / "fixtures/musicnn_reference.json").read_text())
SECONDS = 7


@pytest.fixture(scope="module")
def folder():
    """The checkpoint in the authors' package."""
    try:
        return Path(distribution("musicnn").locate_file("musicnn/MTT_musicnn"))
    except PackageNotFoundError:
        pytest.skip("needs musicnn's weights: pip install --no-deps musicnn==0.1.0")


@pytest.fixture(scope="module")
def encoder(folder):
    assert folder.is_dir()
    return Musicnn()


def plucked(rate):
    """The signal of fixtures/make_musicnn_reference.py."""
    time = np.arange(SECONDS * rate) / rate
    phase = 2 * np.pi * (220 * time + 15 * time**2)
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 9))
    return (0.1 * harmonics * np.exp(-4 * (time % 0.5))).astype(np.float32)


# --- The network ---


def test_tags_are_those_of_the_original(encoder):
    tags = encoder.taggram(plucked(module.RATE_HZ))
    np.testing.assert_allclose(tags, REFERENCE["tags"], rtol=0, atol=2e-6)
    rounded = REFERENCE["tags_in_half_precision"]
    np.testing.assert_allclose(tags, rounded, rtol=0, atol=1e-4)


def test_less_than_a_patch_is_refused(encoder):
    shortest = 256 * (module.PATCH_FRAMES - 1)
    assert encoder.taggram(noise(shortest)).shape == (1, 50)
    with pytest.raises(ValueError, match="less than a patch of 3 s"):
        encoder.taggram(noise(shortest - 1))


def test_timestamps_are_interpolated_between_windows(encoder):
    audio = torch.from_numpy(noise(2 * WINDOW_SAMPLES))
    model = EmbeddingModel(encoder)
    (stamps,) = model.embed_timestamps(audio[None])
    first, second = model.embed_windows(audio.reshape(2, -1))
    assert stamps.shape == (2 * 81, 200)
    torch.testing.assert_close(stamps[0], first)
    torch.testing.assert_close(stamps[-1], second)


def test_penultimate_features_are_those_of_the_original(encoder):
    log_mel = encoder.log_mel(torch.from_numpy(plucked(module.RATE_HZ))[None])
    with torch.no_grad():
        found = encoder.network(log_mel[:, : module.PATCH_FRAMES])["penultimate"]
    np.testing.assert_allclose(found[0], REFERENCE["penultimate"][0], rtol=0, atol=1e-4)


def test_windows_at_the_encoders_rate_are_tagged_alike(encoder):
    """Resampled, and 2.68 s instead of 3: the probabilities move little."""
    audio = torch.from_numpy(plucked(22_050)[:WINDOW_SAMPLES])
    (tags,) = EmbeddingModel(encoder, "tags").embed_windows(audio[None])
    np.testing.assert_allclose(tags, REFERENCE["tags"][0], rtol=0, atol=0.03)


def test_penultimate_embeds_and_other_layers_have_names(encoder):
    audio = torch.from_numpy(noise(2 * 2 * WINDOW_SAMPLES)).reshape(2, -1)
    model = EmbeddingModel(encoder)
    assert model.layers == ["penultimate"]
    assert model.embed_windows(audio[:, :WINDOW_SAMPLES]).shape == (2, 200)
    with torch.no_grad():
        features = encoder.features(audio[:, None], ["pooled", "penultimate", "tags"])
    assert {name: tuple(f.shape) for name, f in features.items()} == {
        "pooled": (2, 1506, 2),
        "penultimate": (2, 200, 2),
        "tags": (2, 50, 2),
    }
    alone = model.embed_windows(audio[:1, WINDOW_SAMPLES:])
    torch.testing.assert_close(alone[0], features["penultimate"][0, :, 1])


def test_pooled_features_are_maxima_and_means():
    torch.manual_seed(0)
    with torch.no_grad():
        pooled = MusicnnNetwork().eval()(torch.rand(1, 20, module.MEL_BANDS))["pooled"]
    maxima, means = pooled[0].reshape(-1, 2).T
    assert (maxima >= means).all()
    assert (maxima > means).any()


def test_silence_is_finite(encoder):
    silence = torch.zeros(1, WINDOW_SAMPLES)
    assert torch.isfinite(EmbeddingModel(encoder, "all").embed_windows(silence)).all()


def test_without_the_package_the_remedy_is_named(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "distribution", absent)
    with pytest.raises(CheckpointError, match=r"pip install --no-deps musicnn==0\.1\.0"):
        Musicnn()


def test_other_weights_are_refused(monkeypatch, folder, tmp_path):
    copy = tmp_path / "musicnn/MTT_musicnn"
    shutil.copytree(folder, copy)
    data = copy / ".data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"\0")

    class Elsewhere:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(module, "distribution", lambda _: Elsewhere())
    with pytest.raises(CheckpointError, match=r"data-00000.*not the file of version 0.1.0"):
        Musicnn()


# --- The reader of checkpoints ---


def varint(value):
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries, compression=0):
    """A block of a table: a key that begins with the previous one shares it."""
    content, previous = b"", b""
    for key, value in entries:
        shared = len(previous) if key.startswith(previous) else 0
        content += varint(shared) + varint(len(key) - shared) + varint(len(value))
        content += key[shared:] + value
        previous = key
    restarts = bytes(4) + (1).to_bytes(4, "little")
    return content + restarts + bytes([compression]) + bytes(4)  # and a checksum


def entry(array, offset, dtype=1):
    shape = b"".join(field(2, field(1, size)) for size in array.shape)
    return (
        field(1, dtype)
        + field(2, shape)
        + field(4, offset)
        + field(5, array.nbytes)
        + varint(6 << 3 | 5)
        + bytes(4)
    )


def write_checkpoint(prefix, arrays, compression=0, dtype=1, shards=1):
    """A checkpoint as TensorFlow writes it, each array in a block of its own."""
    data, blocks = b"", [block([(b"", field(1, shards))])]
    keys = [b""]
    for name, array in arrays.items():
        header = entry(array, len(data), dtype)
        blocks.append(block([(name.encode(), header), (name.encode() + b"/copy", header)]))
        keys.append(name.encode() + b"/copy")
        data += array.tobytes()
    table, places = b"", []
    for content in [*blocks, block([])]:
        places.append(varint(len(table)) + varint(len(content) - 5))
        table += content
    index = block(zip(keys, places, strict=False), compression)
    footer = places[-1] + varint(len(table)) + varint(len(index) - 5)
    table += index + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    Path(f"{prefix}.index").write_bytes(table)
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)


ARRAYS = {
    "conv/kernel": np.arange(600, dtype=np.float32).reshape(2, 300),
    "step": np.array(7, np.float32),
}


def test_arrays_are_read_back(tmp_path):
    write_checkpoint(tmp_path / "model", ARRAYS)
    found = read_tf_checkpoint(str(tmp_path / "model"))
    assert set(found) == {"conv/kernel", "conv/kernel/copy", "step", "step/copy"}
    for name, array in found.items():
        np.testing.assert_array_equal(array, ARRAYS[name.removesuffix("/copy")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": 1}, r"model\.index: compressed"),
        ({"dtype": 7}, r"data-00000-of-00001: conv/kernel: type 7"),
        ({"dtype": 2}, r"conv/kernel: damaged: 2400 bytes for the shape \[2, 300\]"),
        ({"shards": 2}, "in one shard"),
    ],
)
def test_what_is_not_supported_is_named(options, message, tmp_path):
    write_checkpoint(tmp_path / "model", ARRAYS, **options)
    with pytest.raises(TfCheckpointError, match=message):
        read_tf_checkpoint(str(tmp_path / "model"))


def test_a_file_cut_off_is_named(tmp_path):
    for suffix in (".data-00000-of-00001", ".index"):
        path = tmp_path / f"model{suffix}"
        write_checkpoint(tmp_path / "model", ARRAYS)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(TfCheckpointError, match=f"{path.name}.*cut off"):
            read_tf_checkpoint(str(tmp_path / "model"))
    path.unlink()
    with pytest.raises(FileNotFoundError, match="index"):
        read_tf_checkpoint(str(tmp_path / "model"))


@pytest.mark.parametrize("wrong", [0x00, 0x7F, 0xFF])
def test_damage_anywhere_never_crashes(wrong, tmp_path):
    write_checkpoint(tmp_path / "model", ARRAYS)
    path = tmp_path / "model.index"
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([wrong]) + whole[place + 1 :])
        try:
            read_tf_checkpoint(str(tmp_path / "model"))
        except TfCheckpointError:
            refused += 1
    assert refused > len(whole) // 4
