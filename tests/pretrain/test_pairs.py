from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from conftest import noise

from hear_tune.networks.config import SAMPLE_RATE_HZ
from hear_tune.pretrain.pairs import PairDataset, PairLoader, Share, to_float
from hear_tune.pretrain.pcm_store import AudioStore, build_store

CROP = 2_000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Ten tracks; every sample of track n encodes n, plus a ramp that encodes its position."""
    folder = tmp_path_factory.mktemp("tracks")
    for number in range(10):
        length = 700 if number == 9 else 1_500 if number == 8 else 9_000 + number
        pcm = (np.arange(length) + 1).astype(np.int16)
        pcm[0::2] = number
        soundfile.write(folder / f"{number}.wav", pcm, SAMPLE_RATE_HZ)
    build_store([folder], folder / "store", workers=1)
    return AudioStore(folder / "store")


def tracks_of(crops):
    """Track number of each crop."""
    return [int(crop[0] if crop[0] == crop[2] else crop[1]) for crop in crops]


def places_of(crops):
    """First sample of each crop within its track."""
    return [int(crop[1]) - 2 if crop[0] == crop[2] else int(crop[0]) - 1 for crop in crops]


def batches(store, count=1, size=3, seed=0, **options):
    dataset = PairDataset([store], CROP, seed)
    loader = PairLoader(dataset, Share(size, **options), count * size)
    return [batch.crops for _ in range(3) for batch in loader]


def test_both_crops_come_from_one_track(store):
    dataset = PairDataset([store], CROP, seed=0)
    for number in range(100):
        pair = dataset[number].crops
        assert pair.dtype == torch.int16
        assert pair.shape == (2, CROP)
        first, second = tracks_of(pair)
        assert first == second


def test_short_tracks_are_padded_and_never_replaced(store):
    dataset = PairDataset([store], CROP, seed=0)
    assert len(dataset) == 9
    assert dataset.left_out == 1
    for number in range(18):
        pair = dataset[number].crops
        if tracks_of(pair)[0] == 8:
            assert (pair[:, 1_500:] == 0).all()
    assert len(PairDataset([store], CROP, 0, shortest_samples=1)) == 10
    with pytest.raises(ValueError, match="none of 10 tracks has 99999 samples"):
        PairDataset([store], CROP, 0, shortest_samples=99_999)


def test_every_pass_takes_every_track_once_in_another_order(store):
    dataset = PairDataset([store], CROP, seed=3)
    passes = [[tracks_of(dataset[9 * i + j].crops)[0] for j in range(9)] for i in range(4)]
    assert all(sorted(tracks) == list(range(9)) for tracks in passes)
    assert len({tuple(tracks) for tracks in passes}) == 4


def test_crops_come_from_everywhere_in_the_track(store):
    dataset = PairDataset([store], CROP, seed=1)
    pairs = [dataset[number].crops for number in range(900)]
    places = np.array([places_of(pair) for pair in pairs if tracks_of(pair)[0] == 0])
    assert places.min() < 300
    assert places.max() > 6_700
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.3


def test_distance_of_positives(store):
    dataset = PairDataset([store], CROP, 1, max_distance_samples=50)
    places = [places_of(dataset[number].crops) for number in range(200)]
    distances = np.abs(np.diff(places, axis=1))
    assert distances.max() <= 50
    assert distances.max() > 30


def test_segments_are_tracks_of_their_own(store):
    dataset = PairDataset([store], CROP, 1, segment_samples=3_000)
    assert len(dataset) == 8 * 3 + 1
    for number in range(3 * len(dataset)):
        pair = dataset[number].crops
        if tracks_of(pair)[0] < 8:
            first, second = (place // 3_002 for place in places_of(pair))
            assert first == second
    assert dataset.seconds == PairDataset([store], CROP, 1).seconds
    with pytest.raises(ValueError, match="about 2500 samples can be shorter than a crop"):
        PairDataset([store], CROP, 1, segment_samples=2_500)


def test_neighbours_stay_together_and_every_pass_takes_all(store):
    dataset = PairDataset([store], CROP, 1, segment_samples=3_000, neighbours=3)
    for epoch in range(3):
        order = [int(row) for row in dataset._order(epoch)]
        assert sorted(order) == list(range(len(dataset)))
        together = sum(b - a == 1 for a, b in pairwise(order))
        ends = len(list(dataset._parts(np.random.default_rng(epoch))))
        turned = 3  # one run for each of the first, second and third segments
        assert len(order) - ends - turned <= together < len(order) - 1
    with pytest.raises(ValueError, match="neighbours must be at least 1"):
        PairDataset([store], CROP, 1, neighbours=0)


def test_neighbours_are_segments_of_different_tracks(store):
    dataset = PairDataset([store], CROP, 1, segment_samples=3_000, neighbours=4)
    order = [int(row) for row in dataset._order(0)]
    together = [(a, b) for a, b in pairwise(order) if b - a == 1]
    paths = [track.path for _, track in dataset.tracks]
    assert len(together) > len(order) / 2
    assert all(paths[a] != paths[b] for a, b in together)


@pytest.mark.parametrize("seconds", [{"a/1": 1, "a/2": 1}, {"a/1": 0.3, "a/2": 0.3, "b/long": 2}])
def test_segments_of_one_track_are_never_neighbours(seconds, tmp_path):
    for name, length in seconds.items():
        path = tmp_path / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, noise(int(length * SAMPLE_RATE_HZ)), SAMPLE_RATE_HZ)
    build_store([tmp_path], tmp_path / "store", workers=1)
    dataset = PairDataset(
        [AudioStore(tmp_path / "store")], CROP, 1, segment_samples=3_000, neighbours=4
    )
    parts = list(dataset._parts(np.random.default_rng(0)))
    assert sum(map(len, parts)) == len(dataset)
    for part in parts:
        paths = [dataset.tracks[row][1].path for row in part]
        assert len(set(paths)) == len(paths)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of 2, 3 and 7 tracks, and one track alone."""
    root = tmp_path_factory.mktemp("folders")
    for folder, count in {"a": 2, "b": 3, "c": 7, "d": 1}.items():
        (root / folder).mkdir()
        for number in range(count):
            soundfile.write(root / folder / f"{number}.wav", np.ones(CROP), SAMPLE_RATE_HZ)
    build_store([root], root / "store", workers=1)
    return AudioStore(root / "store")


def folder_of(dataset, row):
    return dataset.tracks[row][1].path.split("/")[-2]


def test_neighbours_never_cross_the_border_of_a_folder(folders):
    dataset = PairDataset([folders], CROP, 1, neighbours=4)
    expected = {("a", 2): 1, ("b", 3): 1, ("c", 4): 1, ("c", 3): 1, ("d", 1): 1}
    for epoch in range(4):
        parts = dataset._parts(np.random.default_rng(epoch))
        found = Counter((folder_of(dataset, part[0]), len(part)) for part in parts)
        assert found == expected
        order = [folder_of(dataset, row) for row in dataset._order(epoch)]
        assert sorted(order) == sorted("aabbbcccccccd")
        assert "aa" in "".join(order)
        assert "bbb" in "".join(order)


def test_each_folder_is_a_group_and_all_other_stores_are_one(folders, store):
    dataset = PairDataset([store], CROP, 1, neighbours=4, by_folder=[folders])
    count = len(dataset)
    groups = {}
    for number in range(2 * count):
        row = dataset._order(number // count)[number % count]
        name = folder_of(dataset, row) if dataset.tracks[row][0] is folders else "others"
        groups.setdefault(name, set()).add(int(dataset[number].groups))
    assert sorted(groups) == ["a", "b", "c", "d", "others"]
    assert all(len(numbers) == 1 for numbers in groups.values())
    assert len(set.union(*groups.values())) == 5


def test_folders_of_two_stores_are_not_the_same(folders, tmp_path):
    build_store([folders.folder.parent / "a"], tmp_path / "store", workers=1)
    by_folder = [folders, AudioStore(tmp_path / "store")]
    dataset = PairDataset([], CROP, 1, neighbours=4, by_folder=by_folder)
    assert len({int(dataset[number].groups) for number in range(len(dataset))}) == 5


def test_nothing_to_compare_by_folder_is_refused(folders, store, tmp_path):
    with pytest.raises(ValueError, match=r"neighbours \(1\) is less than 2"):
        PairDataset([store], CROP, 1, by_folder=[folders])
    build_store([folders.folder.parent / "d"], tmp_path / "store", workers=1)
    alone = AudioStore(tmp_path / "store")
    with pytest.raises(ValueError, match="no folder has two tracks"):
        PairDataset([store], CROP, 1, neighbours=8, by_folder=[alone])


def test_a_seed_reproduces_everything(store):
    first, second = batches(store, 4, seed=5), batches(store, 4, seed=5)
    other = batches(store, 4, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_workers_change_nothing(store):
    alone, helped = batches(store, 4), batches(store, 4, workers=2)
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_ranks_share_nothing_and_together_are_one_process(store):
    size, world = 2, 2
    ranks = [batches(store, 4, size, rank=rank, world_size=world) for rank in range(world)]
    together = batches(store, 4, size * world)[: len(ranks[0])]
    for first, second, joined in zip(*ranks, together, strict=False):
        assert torch.equal(torch.cat([first, second]), joined)


def test_no_batch_holds_a_track_twice(store):
    for batch in batches(store, count=20, size=4):
        tracks = tracks_of(batch[:, 0])
        assert len(set(tracks)) == len(tracks)


@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_resuming_from_a_checkpoint(store, stop):
    expected = batches(store, 5)
    loader = PairLoader(PairDataset([store], CROP, 0), Share(3), 15)
    stream = (batch.crops for _ in range(3) for batch in loader)
    for _ in range(stop):
        next(stream)
    resumed = PairLoader(PairDataset([store], CROP, 0), Share(3), 15)
    resumed.load_state_dict(loader.state_dict())
    rest = [batch.crops for _ in range(3) for batch in resumed][: len(expected) - stop]
    assert all(torch.equal(a, b) for a, b in zip(rest, expected[stop:], strict=True))


def test_a_batch_larger_than_the_data_is_refused(store):
    with pytest.raises(ValueError, match="a batch of 10 pairs needs as many tracks"):
        PairLoader(PairDataset([store], CROP, 0), Share(5, world_size=2), 10)


def test_pcm_as_float():
    crops = torch.tensor([-32_768, 0, 16_384], dtype=torch.int16)
    assert to_float(crops).tolist() == [-1, 0, 0.5]
