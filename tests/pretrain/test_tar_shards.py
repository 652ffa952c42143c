"""Tar shards: written without loss, shared among readers, resumed anywhere."""

import json
import tarfile
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from conftest import noise

from hear_tune.cli import main
from hear_tune.networks.config import SAMPLE_RATE_HZ
from hear_tune.pretrain import tar_shards as shards_module
from hear_tune.pretrain.data import PretrainData
from hear_tune.pretrain.pairs import PairLoader, Share
from hear_tune.pretrain.pcm_store import AudioStore, build_store
from hear_tune.pretrain.tar_shards import (
    ShardError,
    StreamedPairs,
    index_shards,
    read_index,
    write_shards,
)

CROP = 1_000
CLIPS = 40


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Tracks of five clips of 4,000 samples each; every sample is the number of its clip."""
    folder = tmp_path_factory.mktemp("tracks")
    for track in range(8):
        pcm = np.repeat(np.arange(5) + 5 * track, 4_000).astype(np.int16)
        soundfile.write(folder / f"{track}.wav", pcm, SAMPLE_RATE_HZ)
    build_store([folder], folder / "store", workers=1)
    return folder / "store"


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards([store], folder, 4_000 / SAMPLE_RATE_HZ, clips_per_shard=4, workers=1)
    return folder


@pytest.fixture
def source(folder):
    return StreamedPairs(read_index(f"{folder}/shards.json"), CROP, seed=0)


def numbers(batches):
    """Clip number of each pair, by batch; checks that both crops come from one clip."""
    for batch in batches:
        assert batch.dtype == torch.int16
        assert torch.equal(batch[:, 0], batch[:, 1])
        assert (batch == batch[..., :1]).all()
    return [batch[:, 0, 0].tolist() for batch in batches]


def flat(batches):
    return [number for batch in batches for number in batch]


def read(source, share, first, last):
    return [batch.crops for batch in source.batches(share, first, last)]


def test_shards_hold_the_tracks_without_loss(store, folder):
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    place = json.load(tar.extractfile(member))
                    sound = tar.extractfile(member.name.replace(".json", ".flac"))
                    key = place["path"], round(place["start_seconds"] * SAMPLE_RATE_HZ)
                    found[key] = soundfile.read(sound, dtype="int16")
    assert len(found) == CLIPS
    tracks = AudioStore(store)
    for track in tracks.tracks:
        pieces = [found[key][0] for key in sorted(found) if key[0] == track.path]
        np.testing.assert_array_equal(np.concatenate(pieces), tracks.crop(track, 0, 20_000))


def test_a_pass_gives_each_clip_once_and_passes_differ(source):
    share = Share(batch_size=5)
    passes = [flat(numbers(read(source, share, 8 * i, 8 * i + 8))) for i in range(3)]
    assert all(sorted(clips) == list(range(CLIPS)) for clips in passes)
    assert len({tuple(clips) for clips in passes}) == 3


def test_batches_mix_shards(source, folder):
    order = flat(numbers(read(source, Share(5), 0, 8)))
    stored = {}
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".flac"):
                    clip, _ = soundfile.read(tar.extractfile(member), dtype="int16")
                    stored[int(clip[0])] = path
    assert len({stored[clip] for clip in order[:5]}) > 2


@pytest.mark.parametrize(("world", "workers"), [(2, 0), (1, 2), (2, 2)])
def test_readers_share_the_clips(source, world, workers):
    batches = []
    for rank in range(world):
        batches += numbers(read(source, Share(2, rank, world, workers), 0, 8 // world * 2))
    counts = Counter(flat(batches))
    assert max(counts.values()) == 1
    assert len(counts) == 32


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 5, 8, 13])
def test_resuming_from_a_checkpoint(source, workers, stop):
    share = Share(3, rank=1, world_size=2, workers=workers)
    expected = numbers(read(source, share, 0, 15))
    loader = PairLoader(source, share, pairs_per_epoch=30)
    loader.load_state_dict({"delivered": stop})
    rest = [batch.crops for _ in range(3) for batch in loader]
    assert numbers(rest)[: 15 - stop] == expected[stop:]


def test_a_seed_reproduces_the_crops(tmp_path):
    soundfile.write(tmp_path / "noise.wav", noise(60_000), SAMPLE_RATE_HZ)
    build_store([tmp_path / "noise.wav"], tmp_path / "store", workers=1)
    write_shards([tmp_path / "store"], tmp_path / "shards", clip_seconds=0.5, workers=1)
    index = read_index(f"{tmp_path}/shards/shards.json")
    first, same, other = (
        read(StreamedPairs(index, CROP, seed), Share(2), 0, 2) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][:, 0], first[0][:, 1])


def test_clips_too_short_to_use_do_not_count_as_audio(tmp_path):
    for length in (9_000, 12_000):
        soundfile.write(tmp_path / f"{length}.wav", noise(length), SAMPLE_RATE_HZ)
    build_store([tmp_path], tmp_path / "store", workers=1)
    write_shards([tmp_path / "store"], tmp_path / "shards", workers=1)
    index = read_index(f"{tmp_path}/shards/shards.json")
    lengths = [length for shard in index for length in shard.lengths]
    longest = max(lengths)
    assert min(lengths) < longest
    source = StreamedPairs(index, CROP, seed=0, shortest_samples=longest)
    assert source.seconds == lengths.count(longest) * longest / SAMPLE_RATE_HZ


def test_interrupted_writing_resumes(store, folder, tmp_path):
    write_shards([store], tmp_path, 4_000 / SAMPLE_RATE_HZ, clips_per_shard=4, workers=1)
    paths = sorted(tmp_path.glob("*.tar"))
    paths[0].unlink()
    kept = paths[1].stat().st_mtime_ns
    write_shards([store], tmp_path, 4_000 / SAMPLE_RATE_HZ, clips_per_shard=4, workers=1)
    assert paths[1].stat().st_mtime_ns == kept
    for path in paths:
        assert path.read_bytes() == (folder / path.name).read_bytes()


def foreign(path, sounds):
    """Write a tar of sounds by member name, as (samples, rate) or bytes."""
    with tarfile.open(path, "w") as tar:
        for name, sound in sounds.items():
            target = path.parent / "member"
            if isinstance(sound, bytes):
                target.write_bytes(sound)
            else:
                kind = name.rpartition(".")[2].upper()
                soundfile.write(target, *sound, format=kind)
            tar.add(target, f"./deep/{name}")


def test_foreign_shards_are_indexed(tmp_path, capsys):
    pitch = np.sin(2 * np.pi * 1_000 * np.arange(90_000) / 44_100).astype(np.float32)
    sounds = {
        "a.mp3": (np.stack([0.5 * pitch] * 2, 1), 44_100),
        "a.cls": b"7",
        "b.wav": (0.5 * pitch, 44_100),
        "broken.ogg": b"no music",
        "short.wav": (pitch[:100], 44_100),
    }
    foreign(tmp_path / "foreign.tar", sounds)
    assert main(["shards", str(tmp_path / "foreign.tar"), "-o", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert "1 shard of 4 clips" in output.out
    assert "deep/broken.ogg" in output.err
    source = StreamedPairs(read_index(f"{tmp_path}/shards.json"), 10_000, seed=0)
    assert (len(source), source.left_out) == (2, 2)
    for batch in read(source, Share(2), 0, 3):
        spectra = torch.fft.rfft(batch.float() * torch.hann_window(10_000)).abs()
        peaks = spectra.argmax(-1) * SAMPLE_RATE_HZ / 10_000
        assert (peaks - 1_000).abs().max() < 3
        assert batch.abs().max() > 14_000


def test_lengths_are_those_of_the_decoded_audio(tmp_path, capsys):
    links = []
    for seed in range(2):
        soundfile.write(tmp_path / "x.ogg", noise(44_100, seed), 44_100)
        links.append((tmp_path / "x.ogg").read_bytes())
    soundfile.write(tmp_path / "x.flac", noise(44_100), 44_100)
    flac = (tmp_path / "x.flac").read_bytes()
    sounds = {"a.ogg": b"".join(links), "b.ogg": links[0], "cut.flac": flac[: len(flac) // 2]}
    foreign(tmp_path / "foreign.tar", sounds)
    assert main(["shards", str(tmp_path / "foreign.tar"), "-o", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"cut off: {tmp_path}/foreign.tar: ./deep/cut.flac: 0.46 s of " in said
    (shard,) = read_index(f"{tmp_path}/shards.json")
    assert shard.lengths[:2] == [44_100, 22_050]
    assert 5_000 < shard.lengths[2] < 12_000
    source = StreamedPairs([shard], 20_000, seed=0)
    batch = read(source, Share(2), 0, 1)[0]
    assert (batch[:, :, -100:] != 0).any(-1).all()


def test_a_checksum_distinguishes_clips_of_equal_lengths(folder, tmp_path):
    """It covers the samples, whether the index is made from a store or from shards."""
    places = [shard.url for shard in read_index(f"{folder}/shards.json")]
    indexed, _ = index_shards(places, tmp_path)
    assert [s.crc32 for s in read_index(f"{folder}/shards.json")] == [s.crc32 for s in indexed]
    contents = set()
    for seed in range(2):
        foreign(tmp_path / "x.tar", {"a.wav": (noise(30_000, seed), 22_050)})
        index_shards([str(tmp_path / "x.tar")], tmp_path)
        data = PretrainData([f"{tmp_path}/shards.json"], batch_size=2, pairs_per_epoch=2)
        contents.add(data.content["audio"])
    assert len(contents) == 2


def test_an_index_without_checksums_is_read(folder, tmp_path):
    content = json.loads((folder / "shards.json").read_text())
    for shard in content["shards"]:
        del shard["crc32"]
    (tmp_path / "shards.json").write_text(json.dumps(content))
    assert {shard.crc32 for shard in read_index(f"{tmp_path}/shards.json")} == {None}


def test_an_index_names_tracks_and_clips_with_missing_audio(tmp_path, capsys):
    soundfile.write(tmp_path / "x.wav", noise(40_000), SAMPLE_RATE_HZ)
    soundfile.write(tmp_path / "cut.wav", noise(60_000), SAMPLE_RATE_HZ)
    cut = (tmp_path / "cut.wav").read_bytes()[:80_000]
    (tmp_path / "cut.wav").write_bytes(cut)
    build_store([tmp_path / "x.wav", tmp_path / "cut.wav"], tmp_path / "store", workers=1)
    for _ in range(2):  # the second time with existing shards
        places = [str(tmp_path / "store"), "-o", str(tmp_path / "shards")]
        assert main(["shards", *places, "--clip-seconds", "1", "--workers", "1"]) == 1
        assert f"cut off: {tmp_path / 'cut.wav'}: " in capsys.readouterr().err
        (shard,) = read_index(f"{tmp_path}/shards/shards.json")
        assert list(shard.missing) == [str(tmp_path / "cut.wav")]
    foreign(tmp_path / "foreign.tar", {"whole.wav": noise(100).tobytes(), "cut.wav": cut})
    index_shards([str(tmp_path / "foreign.tar")], tmp_path)
    (shard,) = read_index(f"{tmp_path}/shards.json")
    assert list(shard.missing) == ["./deep/cut.wav"]
    assert shard.missing["./deep/cut.wav"].startswith("cut off: ")


def test_an_index_with_impossible_lengths_is_damaged(tmp_path):
    entry = {"url": "x.tar", "lengths": [2**62]}
    content = {"format": "hear-tune shards 1", "shards": [entry]}
    (tmp_path / "shards.json").write_text(json.dumps(content))
    with pytest.raises(ShardError, match="make it anew with hear-tune shards"):
        read_index(f"{tmp_path}/shards.json")


def test_a_broken_stream_is_resumed(source, monkeypatch):
    expected = numbers(read(source, Share(5), 0, 8))
    members, breaks = shards_module._members, iter([2, 0, 3] + [99] * 50)

    def flaky(url):
        left = next(breaks)
        for number, member in enumerate(members(url)):
            if number == left:
                raise ShardError("connection reset")
            yield member

    monkeypatch.setattr(shards_module, "_members", flaky)
    monkeypatch.setattr(shards_module, "RETRY_SECONDS", 0)
    assert numbers(read(source, Share(5), 0, 8)) == expected


def test_clips_shorter_than_a_crop_are_padded(folder):
    source = StreamedPairs(read_index(f"{folder}/shards.json"), 5_000, seed=0)
    for batch in read(source, Share(5), 0, 2):
        assert (batch[..., 4_000:] == 0).all()
        assert (batch[..., :4_000] == batch[..., :1]).all()


def test_damaged_shards_are_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "RETRY_SECONDS", 0)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    victim = sorted(tmp_path.glob("*.tar"))[0]
    victim.write_bytes(victim.read_bytes()[:5_000])
    source = StreamedPairs(read_index(f"{tmp_path}/shards.json"), CROP, seed=0)
    with pytest.raises(ShardError, match=victim.name):
        read(source, Share(5), 0, 8)


def test_mistakes_are_named(source, store, folder, tmp_path):
    with pytest.raises(ShardError, match=r"nowhere/shards.json: no index"):
        read_index("nowhere/shards.json")
    (tmp_path / "shards.json").write_text("{}")
    with pytest.raises(ShardError, match="not an index of shards"):
        read_index(f"{tmp_path}/shards.json")
    for shards in (
        "3",
        "[3]",
        '[{"url": "x"}]',
        '[{"url": "x", "lengths": [-1]}]',
        '[{"url": "x", "lengths": [1], "missing": {"y": 3}}]',
    ):
        content = f'{{"format": "hear-tune shards 1", "shards": {shards}}}'
        (tmp_path / "shards.json").write_text(content)
        with pytest.raises(ShardError, match=r"shards\.json: damaged"):
            read_index(f"{tmp_path}/shards.json")
    (tmp_path / "text.tar").write_text("no tar")
    with pytest.raises(ShardError, match=r"text.tar: cannot be read as a tar"):
        index_shards([str(tmp_path / "text.tar")], tmp_path)
    with pytest.raises(ValueError, match=r"12 readers .* need as many shards, and there are 10"):
        PairLoader(source, Share(1, 0, 3, 4), 10)
    with pytest.raises(ValueError, match="a batch of 41 pairs is more than a reader's share"):
        PairLoader(source, Share(41), 10)
    with pytest.raises(ValueError, match="none of 40 clips has 5000 samples"):
        StreamedPairs(source.shards, 10_000, seed=0)
    index = f"{folder}/shards.json"
    for options in ({"segment_seconds": 2.0}, {"neighbours": 2}, {"audio_by_folder": ["music"]}):
        with pytest.raises(ValueError, match="are for stores, not for shards"):
            PretrainData([index], **options)
    with pytest.raises(ValueError, match="either stores or indices of shards"):
        PretrainData([index, str(store)])
    assert main(["shards", str(store), "a.tar", "-o", str(tmp_path)]) == 2


def test_training_streams(store, tmp_path, capsys):
    """From the command line: written, streamed from a URL, and resumed."""
    places = [str(store), "-o", str(tmp_path / "shards"), "--clips-per-shard", "4"]
    assert main(["shards", *places, "--clip-seconds", "0.2"]) == 0
    arguments = [
        "pretrain",
        f'--data.audio=["file://{tmp_path}/shards/shards.json"]',
        "--data.batch_size=4",
        "--data.crop_samples=2187",
        "--data.workers=2",
        "--model.variant=tune-vanilla-small",
        "--trainer.accelerator=cpu",
        f"--output={tmp_path / 'run'}",
    ]
    assert main([*arguments, "--trainer.max_steps=3"]) == 0
    assert "40 tracks" in capsys.readouterr().out
    assert main([*arguments, "--trainer.max_steps=5"]) == 0
    assert "after 5 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ({"clip_seconds": float("nan")}, "clip_seconds must be a finite number of at least 0.01"),
        ({"clip_seconds": 1e-5}, "clip_seconds must be at least 0.01, not 1e-05"),
        ({"clips_per_shard": 0}, "clips_per_shard must be at least 1, not 0"),
    ],
)
def test_numbers_out_of_range(tmp_path, number, message):
    with pytest.raises(ValueError, match=message):
        write_shards([], tmp_path, **number)
