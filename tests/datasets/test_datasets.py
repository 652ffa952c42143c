import ast
import csv
import json
import re
from collections import Counter
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import noise

from hear_tune.cli import main
from hear_tune.datasets import (
    emomusic,
    fma,
    fsdd,
    giantsteps,
    gtzan,
    labelled,
    magnatagatune,
    philharmonia,
)
from hear_tune.datasets.catalog import CATALOG, get_data_set
from hear_tune.datasets.check import check_task
from hear_tune.datasets.keys import KEYS, key_name, tonic_name
from hear_tune.datasets.splits import hashed_split, stratified_folds, stratified_split
from hear_tune.datasets.task import Clip, Task, TaskError
from hear_tune.datasets.validate import validate

SPLITS = ("train", "valid", "test")


def sizes(task):
    return tuple(len(task.of(split)) for split in SPLITS)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_audio(path, seed=0, samples=2_205):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(samples, seed), 22_050)
    return path


# MagnaTagATune


def mtt_index(folder):
    rows = (line.split("\t") for line in (folder / "index_mtt.tsv").read_text().splitlines())
    return dict(rows)


def test_mtt_folders_give_the_published_sizes(shared_data):
    path_of = mtt_index(shared_data / "mtt")
    kept = [path for clip, path in path_of.items() if clip not in magnatagatune.BROKEN]
    counts = Counter(map(magnatagatune.split_of, kept))
    assert len(path_of) == 25_863
    assert tuple(counts[split] for split in SPLITS) == (18_706, 1_825, 5_329)


@pytest.mark.parametrize(
    ("split", "expected"), [("pons2017", (0, 1_825, 5_329)), ("top50-only", (0, 1_529, 4_332))]
)
def test_mtt_index_files(shared_data, split, expected):
    task = magnatagatune.load(shared_data / "mtt", split)
    assert sizes(task) == expected  # the training labels are not in these files
    assert task.classes[:4] == ("guitar", "classical", "slow", "techno")
    assert task.classes[-1] == "choral"
    assert len(set(task.classes)) == 50


def test_mtt_labels_are_those_of_the_files(shared_data):
    folder = shared_data / "mtt"
    path_of = mtt_index(folder)
    task = magnatagatune.load(folder)
    for split, name in (("valid", "val_gt_mtt.tsv"), ("test", "test_gt_mtt.tsv")):
        rows = [line.split("\t") for line in (folder / name).read_text().splitlines()]
        clips = task.of(split)
        assert [clip.path for clip in clips] == [folder / path_of[clip] for clip, _ in rows]
        found = np.array([[tag in clip.labels for tag in task.classes] for clip in clips])
        np.testing.assert_array_equal(found, [ast.literal_eval(values) for _, values in rows])


def test_both_mtt_layouts_give_the_same_task(shared_data, tmp_path):
    """The real labels of validation and test, converted to annotations_final.csv."""
    folder = shared_data / "mtt"
    known = magnatagatune.load(folder)
    rare = [f"rare {number}" for number in range(138)]
    tags = sorted([*known.classes, *rare])
    with (tmp_path / "annotations_final.csv").open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL)
        table.writerow(["clip_id", *tags, "mp3_path"])
        for number, clip in enumerate(known.clips):
            row = [int(tag in clip.labels) for tag in tags]
            table.writerow([number, *row, clip.path.relative_to(folder)])
    task = magnatagatune.load(tmp_path)
    assert set(task.classes) == set(known.classes)
    assert [(clip.split, set(clip.labels)) for clip in task.clips] == [
        (clip.split, set(clip.labels)) for clip in known.clips
    ]
    counts = Counter(tag for clip in known.clips for tag in clip.labels)
    ranked = [counts[tag] for tag in task.classes]
    assert ranked == sorted(ranked, reverse=True)


def mtt_annotations(folder):
    """A table in the original layout: 52 tags, of which `t50` and `t51` are the rarest."""
    tags = [f"t{number}" for number in range(52)]
    rows = [["clip_id", *tags, "mp3_path"]]
    folders = "0b" * 40 + "ccdef"
    for number, letter in enumerate(folders):
        on = [int(tag < 50 and number % (tag + 1) == 0) for tag in range(52)]
        rows.append([str(number), *map(str, on), f"{letter}/clip-{number}.mp3"])
    rows[2][52] = "1"  # clip 1 has t0 and a tag that is not among the 50
    rows += [
        ["35644", *["1"] * 52, "6/broken.mp3"],
        ["90001", *["0"] * 51, "1", "a/rare-only.mp3"],
        ["90002", *["0"] * 52, "e/none.mp3"],
    ]
    text = "".join("\t".join(f'"{cell}"' for cell in row) + "\r\n" for row in rows)
    return write(folder / "annotations_final.csv", text)


def test_mtt_annotations(tmp_path):
    mtt_annotations(tmp_path)
    task = magnatagatune.load(tmp_path)
    assert (task.kind, task.split) == ("multilabel", "pons2017")
    assert set(task.classes) == {f"t{number}" for number in range(50)}
    assert task.classes[:3] == ("t0", "t1", "t2")  # the most frequent first
    assert sizes(task) == (81, 2, 4)
    by_name = {clip.path.name: clip for clip in task.clips}
    assert "broken.mp3" not in by_name
    assert by_name["rare-only.mp3"].labels == ()
    assert by_name["clip-1.mp3"].labels == ("t0",)
    assert by_name["clip-6.mp3"].path == tmp_path / "0" / "clip-6.mp3"
    assert by_name["clip-6.mp3"].labels == ("t0", "t1", "t2", "t5")
    assert sizes(magnatagatune.load(tmp_path, "top50-only")) == (80, 2, 3)


def test_damaged_mtt_index_files(tmp_path):
    write(tmp_path / "index_mtt.tsv", "2\tf/a.mp3\n")
    write(tmp_path / "output_labels_mtt.txt", "LABELS = ['guitar', 'piano']")
    write(tmp_path / "test_gt_mtt.tsv", "2\t[0.0, 1.0]\n")
    assert magnatagatune.load(tmp_path).clips == (Clip(tmp_path / "f/a.mp3", "test", ("piano",)),)
    for text in ("3\t[0.0, 1.0]\n", "2\t[1.0]\n", "2\n", "2\tx\n"):
        write(tmp_path / "test_gt_mtt.tsv", text)
        with pytest.raises(TaskError, match="index files are damaged"):
            magnatagatune.load(tmp_path)


def test_mtt_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"annotations_final\.csv: no such file"):
        magnatagatune.load(tmp_path)
    with pytest.raises(TaskError, match="no split 'mine', only pons2017, top50-only"):
        magnatagatune.load(tmp_path, "mine")
    write(tmp_path / "annotations_final.csv", "clip_id,guitar\n1,1\n")
    with pytest.raises(TaskError, match="no column 'clip_id'"):
        magnatagatune.load(tmp_path)
    write(tmp_path / "annotations_final.csv", "clip_id\tguitar\tmp3_path\n1\t1\n")
    with pytest.raises(TaskError, match="row 2 has 2 columns, not 3"):
        magnatagatune.load(tmp_path)


# FMA


def fma_table(root):
    columns = [
        ("album", "comments"),
        ("set", "split"),
        ("set", "subset"),
        ("track", "genre_top"),
        ("track", "information"),
    ]
    rows = [
        ["", *(first for first, _ in columns)],
        ["", *(second for _, second in columns)],
        ["track_id", "", "", "", "", ""],
        ["2", "0", "training", "medium", "Hip-Hop", "two\nlines"],
        ["140", "0", "training", "small", "Folk", "x" * 200_000],
        ["1482", "0", "validation", "small", "Rock", ""],
        ["155066", "0", "test", "small", "Folk", ""],
        ["20", "0", "training", "large", "", ""],
        ["26", "0", "test", "large", "Jazz", ""],
        ["99134", "0", "training", "small", "Rock", ""],
        ["98565", "0", "training", "medium", "Rock", ""],
    ]
    (root / "fma_metadata").mkdir()
    with (root / "fma_metadata" / "tracks.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def test_fma_subsets(tmp_path):
    fma_table(tmp_path)
    small = fma.load(tmp_path)
    assert sizes(small) == (1, 1, 1)
    assert small.classes == ("Folk", "Rock")
    assert small.of("test")[0].path == tmp_path / "fma_small" / "155" / "155066.mp3"
    assert sizes(fma.load(tmp_path, "medium")) == (2, 1, 1)
    large = fma.load(tmp_path, "large")
    assert sizes(large) == (2, 1, 2)
    assert large.of("train")[0] == Clip(
        tmp_path / "fma_large" / "000" / "000002.mp3", "train", ("Hip-Hop",)
    )


def test_fma_errors(tmp_path):
    with pytest.raises(TaskError, match="no subset 'full'"):
        fma.load(tmp_path, "full")
    write(tmp_path / "fma_metadata" / "tracks.csv", "track_id,a\n,b\n")
    with pytest.raises(TaskError, match="no column set / subset in its first two rows"):
        fma.load(tmp_path)


def test_fma_rows_cut_short(tmp_path):
    fma_table(tmp_path)
    with (tmp_path / "fma_metadata" / "tracks.csv").open("a") as file:
        file.write("3,0,train")
    with pytest.raises(TaskError, match=r"begins \['3'\] is no track, or is cut short"):
        fma.load(tmp_path)


# GTZAN


def gtzan_tree(root, per_genre=10, suffix="wav"):
    for number, genre in enumerate(("blues", "jazz")):
        for clip in range(per_genre):
            path = root / "genres" / genre / f"{genre}.{clip:05d}.{suffix}"
            write_audio(path, 100 * number + clip)


@pytest.mark.parametrize("suffix", ["wav", "au"])
def test_gtzan_lists(tmp_path, suffix):
    gtzan_tree(tmp_path, 3, suffix)
    write(tmp_path / "train_filtered.txt", "blues/blues.00000.wav\njazz/jazz.00002.wav\n")
    write(tmp_path / "valid_filtered.txt", "blues.00001\n")
    write(tmp_path / "test_filtered.txt", "jazz/jazz.00000.au\njazz/jazz.00007.au\n")
    task = gtzan.load(tmp_path)
    assert sizes(task) == (2, 1, 2)
    assert task.split == "fault-filtered"
    assert task.of("valid") == (
        Clip(tmp_path / "genres" / "blues" / f"blues.00001.{suffix}", "valid", ("blues",)),
    )
    assert task.of("test")[1].path.name == f"jazz.00007.{suffix}"  # a missing file
    assert validate(task).missing == [task.of("test")[1].path]


def test_gtzan_fault_filtered_split_of_torchaudio(tmp_path):
    if find_spec("torchaudio") is None:
        pytest.skip("torchaudio, whose lists these are, is not installed")
    gtzan_tree(tmp_path, 1)
    task = gtzan.load(tmp_path)
    assert sizes(task) == (443, 197, 290)
    assert len(task.classes) == 10
    assert len({clip.path for clip in task.clips}) == 930


def test_gtzan_without_lists(tmp_path, monkeypatch):
    gtzan_tree(tmp_path, 1)
    monkeypatch.setattr(gtzan, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="data download gtzan"):
        gtzan.load(tmp_path)


def test_gtzan_folds_are_even_and_keep_replicas_together(tmp_path):
    gtzan_tree(tmp_path, 20)
    genres = tmp_path / "genres"
    copy = genres / "blues" / "blues.00013.wav"
    copy.write_bytes((genres / "jazz" / "jazz.00004.wav").read_bytes())
    task = gtzan.load(tmp_path, "10-fold")
    assert sorted(task.splits) == [f"fold{number:02d}" for number in range(10)]
    counts = Counter((clip.split, clip.labels) for clip in task.clips)
    assert set(counts.values()) <= {1, 2, 3}
    fold_of = {clip.path: clip.split for clip in task.clips}
    assert fold_of[copy] == fold_of[genres / "jazz" / "jazz.00004.wav"]
    check_task(task)


def test_gtzan_broken_clip_is_excluded_only_where_it_is_broken(tmp_path):
    gtzan_tree(tmp_path, 2)
    clip = write_audio(tmp_path / "genres" / "jazz" / "jazz.00054.wav", 7)
    assert clip in {c.path for c in gtzan.load(tmp_path, "10-fold").clips}
    clip.write_bytes(b"RIFF nonsense")
    assert clip not in {c.path for c in gtzan.load(tmp_path, "10-fold").clips}


# Emomusic


def test_emomusic(tmp_path):
    # artists by SHA-1 modulo 10: "queen" 7 (train), "abba" 9 (valid)
    write(
        tmp_path / "annotations" / "songs_info.csv",
        "song_id,file_name,Artist,Song title,Mediaeval 2013 set\n"
        "2,2.mp3, Queen!,One,development\n"
        "3,3.mp3,ABBA,Two,development\n"
        "10,10.mp3,Queen,Three,evaluation\n",
    )
    write(
        tmp_path / "annotations" / "static_annotations.csv",
        "song_id, mean_arousal, std_arousal, mean_valence, std_valence\n"
        "2,3.1,0.9,3.0,0.6\n3,3.5,1.7,3.3,1.8\n10,5.7,1.5,5.5,1.7\n",
    )
    task = emomusic.load(tmp_path)
    assert (task.kind, task.classes) == ("regression", ("arousal", "valence"))
    clips = {clip.path.name: clip for clip in task.clips}
    assert clips["10.mp3"] == Clip(
        tmp_path / "clips_45seconds" / "10.mp3", "test", values=(5.7, 5.5), group="queen"
    )
    assert (clips["2.mp3"].split, clips["3.mp3"].split) == ("train", "valid")
    labels = tmp_path / "annotations" / "static_annotations.csv"
    write(labels, "song_id,mean_arousal,mean_valence\n2,high,3.0\n")
    with pytest.raises(TaskError, match="song 2: mean_arousal is 'high', not a number"):
        emomusic.load(tmp_path)
    write(labels, "song_id,mean_arousal,mean_valence\n4,3.0,3.0\n")
    with pytest.raises(TaskError, match=r"song 4 is not in songs_info\.csv"):
        emomusic.load(tmp_path)


# GiantSteps


def giantsteps_tree(root):
    key, mtg = root / "giantsteps-key-dataset-c8cb", root / "giantsteps-mtg-key-dataset"
    write(key / "annotations" / "key" / "10089.LOFI.key", "Eb minor\n")
    write(key / "annotations" / "key" / "1001.LOFI.key", "D major")
    write(
        mtg / "annotations" / "annotations.txt",
        "ID\tMANUAL KEY\tC\tCOMMENTS\n"
        "1\tF minor\t2\t\n2\tG# minor\t2\t\n3\tC major\t1\tdoubtful\n"
        "4\tC major / A minor\t2\t\n5\tBb major\t2\t\n",
    )
    write(
        mtg / "annotations" / "beatport_metadata.txt",
        "ID\tARTIST\tTITLE\n1\tAda\ta\n2\tAda, Bo\tb\n3\tBo\tc\n4\tAda\td\n5\tCy\te\n",
    )


def test_giantsteps(tmp_path, monkeypatch):
    giantsteps_tree(tmp_path)
    hashed = {"ada": "train", "bo": "valid", "cy": "train"}
    monkeypatch.setattr(giantsteps, "hashed_split", lambda artist, *_: hashed[artist])
    task = giantsteps.load(tmp_path)
    assert (task.kind, task.classes, task.split) == ("key", KEYS, "original")
    clips = {clip.path.name: (clip.split, *clip.labels) for clip in task.clips}
    assert clips == {
        "10089.LOFI.mp3": ("test", "D# minor"),
        "1001.LOFI.mp3": ("test", "D major"),
        "1.LOFI.mp3": ("valid", "F minor"),  # Ada plays with Bo
        "2.LOFI.mp3": ("valid", "G# minor"),
        "5.LOFI.mp3": ("train", "A# major"),
    }


def test_giantsteps_artists_are_divided_100_to_16():
    numbers = giantsteps._FOLDS, giantsteps._TRAIN_FOLDS
    splits = Counter(hashed_split(f"artist {number}", *numbers) for number in range(5_000))
    assert splits["valid"] / 5_000 == pytest.approx(16 / 116, abs=0.02)


def test_giantsteps_errors_name_the_file(tmp_path):
    giantsteps_tree(tmp_path)
    mtg = tmp_path / "giantsteps-mtg-key-dataset" / "annotations"
    write(mtg / "annotations.txt", "ID\tMANUAL KEY\tC\n9\tC major\t2\n")
    with pytest.raises(TaskError, match=r"9 is not in beatport_metadata\.txt"):
        giantsteps.load(tmp_path)
    write(mtg / "annotations.txt", "ID\tMANUAL KEY\tC\n1\tC dorian\t2\n")
    with pytest.raises(TaskError, match=r"annotations\.txt: 1: 'C dorian' is no key"):
        giantsteps.load(tmp_path)


def test_giantsteps_without_annotations(tmp_path):
    with pytest.raises(FileNotFoundError, match="giantsteps-key-dataset"):
        giantsteps.load(tmp_path)


def test_giantsteps_plus_through_mirdata(tmp_path):
    pytest.importorskip("mirdata", reason="needs the extra data")
    giantsteps_tree(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"giantsteps_key_index_\+\.json: no such file"):
        giantsteps.load(tmp_path, "plus")
    name = "10089 Jason Sparks - Close My Eyes"
    track = {
        "audio": [f"audio/{name}.mp3", None],
        "meta": [f"meta/{name}.json", None],
        "key": [f"keys_gs+/{name}.txt", None],
    }
    index = {"version": "+", "tracks": {"3": track}}
    write(tmp_path / "giantsteps_key_index_+.json", json.dumps(index))
    write(tmp_path / "keys_gs+" / f"{name}.txt", "Db major\n")
    task = giantsteps.load(tmp_path, "plus")
    assert task.of("test") == (Clip(tmp_path / "audio" / f"{name}.mp3", "test", ("C# major",)),)
    assert sum(sizes(task)) == 4


# Billboard


def billboard_tree(root):
    header = "id,chart_date,target_rank,actual_rank,title,artist,peak_rank,weeks_on_chart\n"
    rows, tracks = [], {}
    for slot in range(1, 41):
        artist = f"Artist {slot // 2}"
        rows.append(f"{slot},{1960 + slot // 2}-05-01,1,1,Song {slot},{artist},1,1\n")
        salami = f"McGill-Billboard/{slot:04d}/salami_chords.txt"
        tonic = ("C", "Eb", "F#")[slot % 3]
        write(root / salami, f"# title: Song {slot}\n# tonic: {tonic}\n\n0.0\tsilence\n")
        absent = [
            f"lab_{kind}" for kind in ("full", "majmin7", "majmin7inv", "majmin", "majmininv")
        ]
        tracks[str(slot)] = {
            "audio": [f"audio/a/{slot}.flac", None],
            "salami": [salami, None],
            **{name: [None, None] for name in (*absent, "bothchroma", "tuning")},
        }
    write(root / "billboard-2.0-index.csv", header + "".join(rows))
    write(root / "billboard_index_2.0.json", json.dumps({"version": "2.0", "tracks": tracks}))


def test_billboard_through_mirdata(tmp_path):
    pytest.importorskip("mirdata", reason="needs the extra data")
    from hear_tune.datasets import billboard

    billboard_tree(tmp_path)
    own = write_audio(tmp_path / "audio" / "0007.wav")
    task = billboard.load(tmp_path)
    assert task.classes == ("1960s", "1970s", "1980s")
    assert len(task.clips) == 40
    assert own in {clip.path for clip in task.clips}
    assert tmp_path / "audio" / "a" / "8.flac" in {clip.path for clip in task.clips}
    artist_of = {"0007": 3} | {str(slot): slot // 2 for slot in range(1, 41)}
    artists = [{artist_of[c.path.stem] for c in task.of(split)} for split in SPLITS]
    assert all(artists)
    assert not artists[0] & artists[1] | artists[0] & artists[2] | artists[1] & artists[2]
    assert billboard.load(tmp_path, "tonic").classes == ("C", "D#", "F#")


# Philharmonia and FSDD


@pytest.mark.parametrize(
    ("target", "expected", "classes"),
    [("instrument", (2_200, 552, 557), 16), ("pitch", (1_402, 504, 679), 49)],
)
def test_philharmonia(shared_data, target, expected, classes):
    task = philharmonia.load(shared_data / "philharmonia", target)
    assert sizes(task) == expected
    assert len(task.classes) == classes
    assert check_task(task) == ()


def test_philharmonia_pitches_are_in_order(shared_data):
    task = philharmonia.load(shared_data / "philharmonia", "pitch")
    assert task.classes == tuple(map(str, range(40, 89)))


@pytest.mark.parametrize(("target", "classes"), [("digit", 10), ("speaker", 6)])
def test_fsdd(shared_data, target, classes):
    task = fsdd.load(shared_data / "fsdd", target)
    assert sizes(task) == (2_400, 300, 300)
    assert len(task.classes) == classes
    assert {clip.path.stem.rpartition("_")[2] for clip in task.of("test")} == set("01234")
    assert len(check_task(task)) == (target == "digit")  # every speaker is in every split


def test_fsdd_names(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \.wav files"):
        fsdd.load(tmp_path)
    write_audio(tmp_path / "recordings" / "7-jackson-3.wav")
    with pytest.raises(TaskError, match="not <digit>_<speaker>_<n>"):
        fsdd.load(tmp_path)


# one's own data


def folder_of_classes(root, counts):
    for number, (name, count) in enumerate(counts.items()):
        for clip in range(count):
            write_audio(root / name / f"{clip}.wav", 1_000 * number + clip)
    return root


def test_a_folder_of_classes_is_split_evenly_and_always_the_same(tmp_path):
    folder_of_classes(tmp_path / "one", {"cat": 20, "dog": 10, "owl": 3})
    task = labelled.load(tmp_path / "one")
    assert (task.kind, task.classes) == ("multiclass", ("cat", "dog", "owl"))
    counts = Counter((clip.split, *clip.labels) for clip in task.clips)
    assert [counts["test", name] for name in task.classes] == [2, 1, 1]
    assert [counts["valid", name] for name in task.classes] == [2, 1, 1]
    folder_of_classes(tmp_path / "two", {"cat": 20, "dog": 10, "owl": 3})
    again = labelled.load(tmp_path / "two")
    assert [clip.split for clip in task.clips] == [clip.split for clip in again.clips]
    other = labelled.load(tmp_path / "one", seed=1)
    assert [clip.split for clip in task.clips] != [clip.split for clip in other.clips]
    assert check_task(task) == ()


def test_files_of_the_same_content_share_a_split(tmp_path):
    folder_of_classes(tmp_path, {"cat": 10, "dog": 10})
    for number in range(10):
        copy = (tmp_path / "dog" / f"{number}.wav").read_bytes()
        (tmp_path / "dog" / f"copy of {number}.wav").write_bytes(copy)
    task = labelled.load(tmp_path)
    split_of = {clip.path.name: clip.split for clip in task.clips if clip.labels == ("dog",)}
    for number in range(10):
        assert split_of[f"{number}.wav"] == split_of[f"copy of {number}.wav"]
    check_task(task)


def test_a_folder_of_splits(tmp_path):
    folder_of_classes(tmp_path / "train", {"cat": 3, "dog": 2})
    folder_of_classes(tmp_path / "test", {"cat": 1, "dog": 1})
    task = labelled.load(tmp_path)
    assert sizes(task) == (5, 0, 2)
    assert task.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("Training", "val", "TESTING"), ("train", "valid", "test")),
        (("train_set", "dev", "Eval"), ("train", "valid", "test")),
        (("train", "Validation", "Test-Set"), ("train", "valid", "test")),
        (("fold1", "Fold 2", "fold_10"), ("fold01", "fold02", "fold10")),
        (("trn", "dev", "tst"), ("train", "valid", "test")),
        (("tr", "cv", "tt"), ("train", "valid", "test")),
        (("learn", "test"), ("train", "test")),
        (("train_data", "val_data", "test_data"), ("train", "valid", "test")),
        (("1_train", "2_val", "3_test"), ("train", "valid", "test")),
        (("train-split", "test-split"), ("train", "test")),
        (("nsynth-train", "nsynth-valid", "nsynth-test"), ("train", "valid", "test")),
        (("TrainClips", "TestClips"), ("train", "test")),
        (("audio_fold1", "audio_fold2", "audio_fold3"), ("fold01", "fold02", "fold03")),
    ],
)
def test_folders_of_splits_in_any_spelling(tmp_path, folders, splits):
    folder_of_classes(tmp_path, {f"{f}/{name}": 1 for f in folders for name in ("cat", "dog")})
    task = labelled.load(tmp_path)
    assert task.classes == ("cat", "dog")
    found = {(clip.path.parts[len(tmp_path.parts)], clip.split) for clip in task.clips}
    assert found == set(zip(folders, splits, strict=True))


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ["train/a", "test/a", "extra/a"],
            r"named like splits \(test, train\), with others beside them \(extra\)",
        ),
        (["val/a", "test/a"], r"named like splits \(test, val\): keep train, valid and test"),
        (["train/a", "val/a", "dev/a", "test/a"], "dev, val all mean the valid split"),
        (["fold1/a", "fold2/a", "extra/a"], "with others beside them"),
        (["train/a", "heldout/b"], r"named like splits \(train\), with others .* \(heldout\)"),
        (["train/a", "train/b", "mine/a", "mine/b"], r"splits \(train\), with others .* \(mine\)"),
        (["split1/a", "split1/b", "split2/a", "split2/b"], r"named like splits \(split1, split2\)"),
        (
            ["train/a", "train/b", "test1/a", "test1/b", "test2/a", "test2/b"],
            "test1, test2 all mean",
        ),
        (["cat/train", "cat/test", "dog/train"], r"cat: a class with splits in it: put train"),
    ],
)
def test_folders_that_may_be_splits_or_classes(tmp_path, folders, message):
    folder_of_classes(tmp_path, dict.fromkeys(folders, 1))
    with pytest.raises(TaskError, match=message):
        labelled.load(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    task = labelled.load(folder_of_classes(tmp_path, {"bus": 3, "train": 3, "tram": 3}))
    assert task.classes == ("bus", "train", "tram")


@pytest.mark.parametrize(
    "folders",
    [
        {"bus/a": 3, "bus/b": 3, "train": 3, "tram/a": 3},
        {f"{name}/{part}": 1 for name in ("bus", "train", "car", "cab", "van") for part in "abc"},
        {f"{name}_horn/{part}": 2 for name in ("car", "train") for part in ("mono", "stereo")},
        {f"artist {n}/album {n}{m}": 2 for n in range(3) for m in range(2)},
        {f"artist {n}/{part}": 2 for n in range(3) for part in ("live", "studio")},
        {f"{n}/CD{m}": 2 for n in ("violin", "scaffold1") for m in (1, 2)},
    ],
)
def test_folders_of_classes_with_folders_in_them(tmp_path, folders):
    task = labelled.load(folder_of_classes(tmp_path, folders))
    assert task.classes == tuple(sorted({name.partition("/")[0] for name in folders}))


def test_classes_that_could_be_splits_are_reported(tmp_path):
    names = ("live", "studio")
    folder_of_classes(tmp_path / "same", {f"{n}/{part}": 4 for n in "AB" for part in names})
    (remark,) = check_task(labelled.load(tmp_path / "same"), tmp_path / "same")
    assert remark.startswith("every class has the same sub-folders: live, studio; if these are")
    assert remark.endswith(": A, B")
    folder_of_classes(tmp_path / "albums", {f"{n}/{n}{part}": 4 for n in "AB" for part in names})
    assert check_task(labelled.load(tmp_path / "albums"), tmp_path / "albums") == ()


def test_csv_splits_in_any_spelling(tmp_path):
    rows = ["Training", "val", "DEV", "evaluation", "test"]
    text = "".join(f"{n}.wav,x,{split}\n" for n, split in enumerate(rows))
    task = labelled.load(write(tmp_path / "mine.csv", f"path,label,split\n{text}"))
    assert [clip.split for clip in task.clips] == ["train", "valid", "valid", "test", "test"]


def artists(task, split):
    return {clip.path.stem.partition("-")[0] for clip in task.of(split)}


@pytest.mark.parametrize(
    ("columns", "group"),
    [
        ("path,label,artist", None),
        ("path,label,Artist", None),
        ("path,labels,group", None),
        ("path,tempo,artist", None),
        ("path,label,album", "album"),
        ("path,label,Artist", "Artist"),
        ("path,label,Album", "album"),
    ],
)
def test_no_group_is_in_two_splits(tmp_path, columns, group):
    rows = "".join(f"{a}-{t}.wav,{a % 2},artist {a}\n" for a in range(10) for t in range(6))
    task = labelled.load(write(tmp_path / "mine.csv", f"{columns}\n{rows}"), group=group)
    assert sum(sizes(task)) == 60
    parts = [artists(task, split) for split in SPLITS]
    assert all(parts)
    assert sum(map(len, parts)) == 10
    assert task.clips[0].group == "artist 0"


def test_groups_and_copies_together(tmp_path):
    """A copy of a recording joins its two artists into one group."""
    for artist in range(10):
        for track in range(2):
            write_audio(tmp_path / f"{artist}-{track}.wav", 10 * artist + track)
    for artist in range(9):
        copied = (tmp_path / f"{artist}-0.wav").read_bytes()
        (tmp_path / f"{artist + 1}-1.wav").write_bytes(copied)
    rows = "".join(f"{a}-{t}.wav,{t},{a}\n" for a in range(10) for t in range(2))
    task = labelled.load(write(tmp_path / "mine.csv", f"path,label,artist\n{rows}"))
    assert len({clip.split for clip in task.clips}) == 1


@pytest.mark.parametrize("split", ["", "train"])
def test_groups_with_a_copy_are_one_group(tmp_path, split):
    for number in range(4):
        write_audio(tmp_path / f"{number}.wav", number)
    (tmp_path / "copy.wav").write_bytes((tmp_path / "1.wav").read_bytes())
    groups = {"0.wav": "single", "1.wav": "album", "2.wav": "album", "copy.wav": "single"}
    rows = "".join(f"{name},x,{group},{split}\n" for name, group in groups.items())
    table = write(tmp_path / "mine.csv", f"path,label,release,split\n{rows}3.wav,x,,{split}\n")
    task = labelled.load(table, group="release")
    assert [clip.group for clip in task.clips] == ["single"] * 4 + [""]
    assert task.grouping == "release"


def test_splits_have_no_effect_on_classes_across_groups(tmp_path):
    for number in range(8):
        write_audio(tmp_path / f"{number}.wav", number)
    splits = ["train"] * 4 + ["test"] * 2 + ["valid"] * 2
    labels = "ababacbb"
    rows = "".join(f"{n}.wav,{labels[n]},a{n % 4},{split}\n" for n, split in enumerate(splits))
    table = write(tmp_path / "mine.csv", f"path,label,artist,split\n{rows}")
    task = labelled.load(table)
    task = replace(task, clips=(*task.clips[:5], replace(task.clips[5], labels=("b",))))
    assert check_task(task, across=False)
    assert check_task(task, across=True) == ()
    ungrouped = replace(task, clips=(replace(task.clips[0], group=""), *task.clips[1:]))
    assert any("groups in two splits" in remark for remark in check_task(ungrouped, across=True))


def test_groups_in_given_splits_are_reported(tmp_path):
    for number in range(6):
        write_audio(tmp_path / f"{number}.wav", number)
    splits = ["train"] * 4 + ["test"] * 2
    rows = "".join(f"{n}.wav,{n % 2},a{n % 4},{split}\n" for n, split in enumerate(splits))
    task = labelled.load(write(tmp_path / "mine.csv", f"path,label,artist,split\n{rows}"))
    (remark,) = check_task(task)
    assert remark.startswith("groups in two splits or more")
    assert remark.endswith("a0 (test, train), a1 (test, train)")


def test_missing_group_columns(tmp_path, capsys):
    table = write(tmp_path / "mine.csv", "path,label\na.wav,x\n")
    with pytest.raises(TaskError, match="no column 'album' to group by; it has path, label"):
        labelled.load(table, group="album")
    with pytest.raises(TaskError, match="a folder has no column 'album'"):
        labelled.load(tmp_path, group="album")
    arguments = ["data", "info", "fsdd-digit", "--root", str(tmp_path), "--group", "album"]
    assert main(arguments) == 2
    assert "fsdd-digit has no columns to group by" in capsys.readouterr().err


def test_paths_of_a_table(tmp_path, monkeypatch):
    music = tmp_path / "music"
    names = [f"{n}.wav" for n in range(20)]
    for number, name in enumerate(names):
        write_audio(music / "deep" / name, number)
    (tmp_path / "tables").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(music)
    splits = []
    for place, start in (
        (music / "relative.csv", "deep/"),
        (music / "ABSOLUTE.CSV", f"{music}/deep/"),
        (music / "home.Csv", "~/music/deep/"),
        (music / "windows.csv", "deep\\"),
        (Path("from_here.csv"), f"{music}/deep/"),
    ):
        rows = "".join(f"{start}{name},{n % 2}\n" for n, name in enumerate(names))
        task = labelled.load(write(place, f"path,label\n{rows}"))
        check_task(task)
        splits.append([clip.split for clip in task.clips])
    assert all(same == splits[0] for same in splits)
    rows = "".join(f"{music}/deep/{name},{n % 2}\n" for n, name in enumerate(names))
    elsewhere = labelled.load(write(tmp_path / "tables/far.csv", f"path,label\n{rows}"))
    check_task(elsewhere)
    assert sizes(elsewhere) == (16, 2, 2)


def test_a_table_from_a_spreadsheet(tmp_path):
    text = '\ufeffPath;Labels;Split\r\na.wav;"cat;dog";train\r\nb.wav;cat;test\r\n'
    task = labelled.load(write(tmp_path / "mine.csv", text))
    assert [(clip.labels, clip.split) for clip in task.clips] == [
        (("cat", "dog"), "train"),
        (("cat",), "test"),
    ]
    tabs = write(tmp_path / "tabs.csv", "path\tlabel\tsplit\na.wav\tx\ttrain\n")
    assert labelled.load(tabs).classes == ("x",)


def test_csv_of_one_label_and_given_splits(tmp_path):
    table = write(tmp_path / "mine.csv", "path,label,split\na.wav,cat,train\nb/c.wav, dog ,test\n")
    task = labelled.load(table)
    assert task == Task(
        "mine",
        "multiclass",
        ("cat", "dog"),
        (
            Clip(tmp_path / "a.wav", "train", ("cat",)),
            Clip(tmp_path / "b" / "c.wav", "test", ("dog",)),
        ),
    )


def test_csv_of_many_labels(tmp_path):
    rows = "".join(f"{n}.wav,common{'; rare' if n % 5 == 0 else ''}\n" for n in range(50))
    task = labelled.load(write(tmp_path / "mine.csv", f"path,labels\n{rows}none.wav,\n"))
    assert (task.kind, task.classes) == ("multilabel", ("common", "rare"))
    assert sum(sizes(task)) == 51
    for split in SPLITS:  # stratified by the rarest label
        assert any("rare" in clip.labels for clip in task.of(split))


def test_csv_of_numbers(tmp_path):
    rows = "".join(f"{n}.wav,{n},{-n / 2}\n" for n in range(50))
    task = labelled.load(write(tmp_path / "mine.csv", f"path,tempo,depth\n{rows}"))
    assert (task.kind, task.classes) == ("regression", ("tempo", "depth"))
    assert sizes(task) == (40, 5, 5)
    assert task.clips[3].values == (3.0, -1.5)
    assert {int(clip.values[0]) // 10 for clip in task.of("test")} == set(range(5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.wav,cat\n", "no column 'path'; it has file, label"),
        ("path\na.wav\n", "no column label, labels or of numbers"),
        ("path,label,labels\na.wav,x,y\n", "both columns label and labels"),
        ("path,label\n", "no rows"),
        ("path,label\na.wav,\n", r"row 2 \(a\.wav\): no label"),
        ("path,label\na.wav,x\na.wav,y\n", "a.wav is named more than once"),
        ("path,label,split\na.wav,x,train\nb.wav,y,\n", "only 1 of 2 clips have a split"),
        ("path,label,split\na.wav,x,mine\n", "split is 'mine', not train"),
        ("path,label\n,x\n", "row 2 .*: no path"),
        ("path,tempo\na.wav,fast\n", "tempo is 'fast', not a number"),
        ("path,tempo\na.wav,nan\n", "tempo is 'nan', not a number"),
        ("path,label\na.wav,x,y\n", "row 2 has 3 columns, not 2"),
        ("path,label,label\na.wav,x,y\n", "two columns have the same name"),
    ],
)
def test_csv_errors(tmp_path, text, message):
    with pytest.raises(TaskError, match=message):
        labelled.load(write(tmp_path / "mine.csv", text))


def test_labelled_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a folder"):
        labelled.load(tmp_path / "nothing")
    with pytest.raises(TaskError, match="no folders of classes"):
        labelled.load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no audio files in"):
        labelled.load(tmp_path)
    (tmp_path / "latin.csv").write_bytes("path,label\na.wav,é\n".encode("latin-1"))
    with pytest.raises(TaskError, match="no table of UTF-8 text"):
        labelled.load(tmp_path / "latin.csv")


# splits and keys


def test_small_strata_reach_as_many_splits_as_they_can():
    names = list("abcdef")
    splits = stratified_split(names, ["one", "two", "two", "three", "three", "three"])
    assert splits[0] == "train"
    assert sorted(splits[1:3]) == ["test", "train"]
    assert sorted(splits[3:]) == ["test", "train", "valid"]


def test_a_split_does_not_depend_on_the_order_of_files():
    names = [str(number) for number in range(100)]
    strata = [str(number % 3) for number in range(100)]
    split_of = dict(zip(names, stratified_split(names, strata), strict=True))
    backwards = stratified_split(names[::-1], strata[::-1])
    assert dict(zip(names[::-1], backwards, strict=True)) == split_of


def test_folds_are_even():
    names = [str(number) for number in range(103)]
    folds = stratified_folds(names, [name[-1] for name in names], 10)
    assert sorted(Counter(folds).values()) == [10] * 7 + [11] * 3


@pytest.mark.parametrize(
    ("text", "name"),
    [("eb minor", "D# minor"), ("C# Major", "C# major"), ("Cb major", "B major"), ("E minor", 0)],
)
def test_key_names(text, name):
    assert key_name(text) == (name or text)
    assert key_name(text) in KEYS


@pytest.mark.parametrize("text", ["", "H minor", "C", "C dorian", "C major minor", "Cx major"])
def test_invalid_keys(text):
    with pytest.raises(TaskError, match="is no"):
        key_name(text)


def test_every_tonic_has_one_name():
    spelled = [letter + sign for letter in "ABCDEFG" for sign in ("", "#", "b")]
    assert len({tonic_name(text) for text in spelled}) == 12


# checks


@pytest.fixture
def sound_task(tmp_path):
    folder_of_classes(tmp_path, {"cat": 3, "dog": 3})
    clips = [
        Clip(path, split, (path.parent.name,))
        for folder in ("cat", "dog")
        for path, split in zip(sorted((tmp_path / folder).iterdir()), SPLITS, strict=True)
    ]
    return Task("pets", "multiclass", ("cat", "dog"), tuple(clips))


def changed(task, *clips, **changes):
    fields = {name: getattr(task, name) for name in ("name", "kind", "classes")}
    return Task(**(fields | changes), clips=clips or task.clips)


def test_a_sound_task(sound_task):
    assert check_task(sound_task) == ()


def test_every_fault_is_named(sound_task, tmp_path):
    first, *others = sound_task.clips
    owl = write_audio(tmp_path / "owl.wav", 77)
    faulty = changed(
        sound_task,
        Clip(tmp_path / "gone.wav", "train", ("cat",)),
        Clip(first.path, "train", ()),
        Clip(owl, "train", ("owl",)),
        *others,
        classes=("cat", "dog", "owl"),
    )
    with pytest.raises(TaskError) as raised:
        check_task(faulty)
    message = str(raised.value)
    assert message.startswith("pets: ")
    assert f"labels without audio: {tmp_path / 'gone.wav'}" in message
    assert f"not exactly one label: {first.path}" in message
    assert re.search(r"classes of one clip \(.*\): owl", message)


def test_labels_that_are_no_class(sound_task):
    with pytest.raises(TaskError, match="labels that are no class"):
        check_task(changed(sound_task, classes=("cat",)))


@pytest.mark.parametrize("missing", ["train", "test"])
def test_an_empty_split(sound_task, missing):
    clips = [clip for clip in sound_task.clips if clip.split != missing]
    with pytest.raises(TaskError, match=f"the {missing} set is empty"):
        check_task(changed(sound_task, *clips))


def test_one_fold_is_no_cross_validation(sound_task):
    clips = [Clip(clip.path, "fold00", clip.labels) for clip in sound_task.clips]
    with pytest.raises(TaskError, match="needs 3 folds or more, not 1"):
        check_task(changed(sound_task, *clips))


def test_a_path_in_two_splits(sound_task):
    first = sound_task.clips[0]
    leaking = changed(sound_task, *sound_task.clips, Clip(first.path, "test", first.labels))
    for content in (True, False):
        with pytest.raises(TaskError, match=r"same file in two splits: .*\(train\) = .*\(test\)"):
            check_task(leaking, content=content)


def test_the_same_bytes_in_two_splits(sound_task, tmp_path):
    copy = tmp_path / "copy.wav"
    copy.write_bytes(sound_task.of("train")[0].path.read_bytes())
    leaking = changed(sound_task, *sound_task.clips, Clip(copy, "test", ("cat",)))
    check_task(leaking, content=False)
    with pytest.raises(TaskError, match="same file in two splits"):
        check_task(leaking)


def test_remarks(sound_task, tmp_path):
    other = write_audio(tmp_path / "other.wav", 55)
    task = changed(sound_task, kind="multilabel", classes=("cat", "dog", "hum"))
    assert check_task(task, tmp_path) == (
        "never positive in the test set: hum",
        f"audio without labels: {other}",
    )


def test_regression_needs_all_values(sound_task):
    clips = [Clip(clip.path, clip.split, values=(1.0,)) for clip in sound_task.clips]
    task = changed(sound_task, *clips, kind="regression", classes=("a", "b"))
    with pytest.raises(TaskError, match="not 2 values"):
        check_task(task)


@pytest.mark.parametrize(
    ("kind", "classes", "labels", "message"),
    [
        ("multiclass", ("a",), ["a"] * 6, "only one class in the train set: a"),
        ("multiclass", ("a", "b"), ["a", "b", "a", "b", "b", "b"], "one class in the test set: b"),
        ("key", KEYS, ["C major"] * 6, "only one class in the train set: C major"),
        ("multilabel", (), [""] * 6, "no label that some clips of the train set have"),
        ("multilabel", ("a",), ["a"] * 6, "no label that some clips of the train set have"),
        ("multilabel", ("a",), ["a", "", "a", "", "", ""], "some clips of the test set have"),
        ("regression", ("x",), [1, 1, 1, 1, 2, 3], "one value in the train set: x"),
        ("regression", ("x",), [1, 2, 3, 4, 2, 2], "one value in the test set: x"),
    ],
)
def test_clips_with_the_same_labels(tmp_path, kind, classes, labels, message):
    splits = ["train"] * 3 + ["valid"] + ["test"] * 2
    clips = []
    for number, (split, label) in enumerate(zip(splits, labels, strict=True)):
        path = write_audio(tmp_path / f"{number}.wav", number)
        if kind == "regression":
            clips.append(Clip(path, split, values=(float(label),)))
        else:
            clips.append(Clip(path, split, (label,) if label else ()))
    with pytest.raises(TaskError, match=message):
        check_task(Task("alike", kind, classes, tuple(clips)))
    folds = [Clip(c.path, f"fold0{n % 3}", c.labels, c.values) for n, c in enumerate(clips)]
    if len(set(labels)) == 1:
        with pytest.raises(TaskError, match=r"(in|of) all clips"):
            check_task(Task("alike", kind, classes, tuple(folds)))


def test_two_folds_or_folds_beside_a_split(sound_task):
    names = {"train": "fold00", "valid": "fold01", "test": "test"}
    clips = [Clip(clip.path, names[clip.split], clip.labels) for clip in sound_task.clips]
    with pytest.raises(TaskError, match=r"3 folds or more, not 2; folds beside .* \(test\)"):
        check_task(changed(sound_task, *clips))


def folds_of(root, *labels_of_folds):
    """A task in which each fold has a clip for each letter of its string."""
    clips = []
    for fold, labels in enumerate(labels_of_folds):
        for label in labels:
            path = write_audio(root / f"{len(clips)}.wav", len(clips))
            clips.append(Clip(path, f"fold{fold:02d}", (label,)))
    return Task("folds", "multiclass", tuple(sorted(set("".join(labels_of_folds)))), tuple(clips))


def test_classes_that_only_one_fold_has(tmp_path):
    assert check_task(folds_of(tmp_path, "abcc", "ab", "ab")) == (
        "in the valid set, but never in the training set: c (fold00)",
        "in the test set, but never in the training set: c (fold00)",
    )
    assert check_task(folds_of(tmp_path, "abc", "abc", "ab")) == (
        "in the valid set, but never in the training set: c (fold01)",
        "in the test set, but never in the training set: c (fold00)",
    )


def test_folds_of_one_class_each(tmp_path):
    with pytest.raises(TaskError, match="one class in the train set for fold00: c"):
        check_task(folds_of(tmp_path, "aa", "bb", "cc"))


def test_many_folds_with_one_fault_are_a_few_lines(tmp_path):
    remarks = check_task(folds_of(tmp_path, *"abababab"))
    assert [remark.partition(";")[0] for remark in remarks] == [
        "only one class in the valid set for fold00: b",
        "only one class in the valid set for fold01: a",
        "only one class in the valid set for fold02: b",
        "the same for 5 more folds",
    ]


def test_validation_clips_with_the_same_labels(sound_task, tmp_path):
    remark = "only one class in the valid set{}: {}; a probe needs at least two"
    clips = [clip for clip in sound_task.clips if (clip.split, *clip.labels) != ("valid", "dog")]
    assert check_task(changed(sound_task, *clips)) == (remark.format("", "cat"),)
    task = folds_of(tmp_path / "folds", "ab", "aa", "ab", "ab")
    assert check_task(task) == (remark.format(" for fold00", "a"),)


def test_classes_that_are_never_trained_on(sound_task, tmp_path):
    owls = [write_audio(tmp_path / f"owl{number}.wav", 50 + number) for number in range(3)]
    clips = [Clip(owl, split, ("owl",)) for owl, split in zip(owls, SPLITS[1:] * 2, strict=False)]
    task = changed(sound_task, *sound_task.clips, *clips, classes=("cat", "dog", "owl"))
    assert check_task(task) == (
        "in the valid set, but never in the training set: owl",
        "in the test set, but never in the training set: owl",
    )


# validation


def test_validate_names_unusable_files(tmp_path):
    good = write_audio(tmp_path / "good.wav", samples=22_050)
    short = write_audio(tmp_path / "short.wav", samples=11_025)
    (tmp_path / "text.mp3").write_text("no sound")
    cut = write_audio(tmp_path / "cut.wav", samples=22_050)
    cut.write_bytes(cut.read_bytes()[:-900])
    names = [good, short, cut, tmp_path / "text.mp3", tmp_path / "gone.wav"]
    task = Task("t", "multilabel", (), tuple(Clip(path, "train") for path in names))
    found = validate(task, (0.9, 1.1))
    assert found.good == 1
    assert found.missing == [tmp_path / "gone.wav"]
    assert found.undecodable[tmp_path / "text.mp3"] == "it is a text file"
    assert found.wrong_length == {short: 0.5}
    assert found.incomplete[cut].startswith("cut off: ")
    assert not found.complete
    assert validate(task).good == 2


# the catalog and the command


def test_the_catalog():
    for name, row in CATALOG.items():
        assert row.name == name
        assert callable(import_module(f"hear_tune.datasets.{row.module}").load)
        for entry in row.downloads:
            for url, digest, file_name in entry.files:
                assert url.startswith(("https://", "http://"))
                assert re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}", digest)
                assert re.fullmatch(r"[^/]+", file_name)


@pytest.mark.parametrize("name", ["billboard", "giantsteps", "mridangam-stroke"])
def test_files_listed_by_mirdata(name):
    pytest.importorskip("mirdata", reason="needs the extra data")
    row = get_data_set(name)
    known = row.all_downloads()[len(row.downloads) :]
    assert len(known) == 1 + len(row.mirdata[1])
    assert all(len(entry.digest) == 32 for entry in known)
    assert not known[0].archive  # the index
    assert known[-1].archive


def test_readers_without_mirdata_name_the_extra(tmp_path, monkeypatch):
    def gone(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("hear_tune.datasets.sources.import_module", gone)
    with pytest.raises(TaskError, match=r'pip install "hear-tune\[data\]"'):
        CATALOG["billboard"].load(tmp_path)


def test_info_lists_all(capsys):
    assert main(["data", "info"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert set(CATALOG) <= listed


def test_info_of_one(tmp_path, capsys):
    mtt_annotations(tmp_path)
    arguments = ["data", "info", "magnatagatune", "--root", str(tmp_path)]
    assert main([*arguments, "--split", "top50-only"]) == 0
    out = capsys.readouterr().out
    assert "CC BY-NC-SA" in out
    assert "(split top50-only): multilabel, 50 classes; test 3, train 80, valid 2" in out


def test_unknown_names(capsys):
    assert main(["data", "info", "magnatune"]) == 2
    assert "no data set 'magnatune'; there are magnatagatune" in capsys.readouterr().err
    assert main(["data", "info", "fsdd-speaker", "--root", "x", "--split", "mine"]) == 2
    assert "fsdd-speaker has only one split" in capsys.readouterr().err


def test_validate_command(tmp_path, capsys):
    folder_of_classes(tmp_path, {"cat": 3, "dog": 3})
    arguments = ["data", "validate", "labelled", "--root", str(tmp_path)]
    assert main(arguments) == 0
    assert "6 files are good, 0 missing" in capsys.readouterr().out
    (tmp_path / "dog" / "bad.wav").write_text("no sound")
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "1 cannot be decoded" in captured.out
    assert f"cannot be decoded: {tmp_path / 'dog' / 'bad.wav'}: it is a text file" in captured.err


def test_validate_names_faults_of_the_task(tmp_path, capsys):
    folder_of_classes(tmp_path, {"train/cat": 3, "train/dog": 2, "test/cat": 1})
    copy = tmp_path / "test" / "cat" / "copy.wav"
    copy.write_bytes((tmp_path / "train" / "cat" / "1.wav").read_bytes())
    assert main(["data", "validate", "labelled", "--root", str(tmp_path)]) == 1
    assert "the same file in two splits" in capsys.readouterr().err


def test_data_sets_are_loaded_by_their_names(shared_data):
    for name, folder, label in (
        ("philharmonia-pitch", "philharmonia", r"[0-9]{2}"),
        ("fsdd-speaker", "fsdd", r"[a-z]+"),
    ):
        task = get_data_set(name).load(Path(shared_data, folder))
        assert (task.name, task.kind) == (name, "multiclass")
        assert all(re.fullmatch(label, found) for found in task.classes)


def test_a_clip_named_twice_is_refused_and_one_without_group_reported(tmp_path):
    clips = [
        Clip(tmp_path / f"{number}.wav", split, (label,), group=group)
        for number, (split, label, group) in enumerate(
            [("train", "a", "x"), ("train", "b", "y"), ("test", "a", "z"), ("test", "b", "")]
        )
    ]
    for number, clip in enumerate(clips):
        soundfile.write(clip.path, noise(1_000, number), 22_050)
    task = Task("toy", "multiclass", ("a", "b"), tuple(clips))
    assert any("1 of 4 clips have no group" in remark for remark in check_task(task))
    with pytest.raises(TaskError, match=r"named more than once.*0\.wav"):
        check_task(replace(task, clips=(*clips, clips[0])))
