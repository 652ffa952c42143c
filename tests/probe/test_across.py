"""Probes across groups: who is asked about, by whom, and what the classifiers say."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import noise, tone

from hear_tune.cli import main
from hear_tune.datasets import labelled
from hear_tune.datasets.task import Clip, Task, TaskError
from hear_tune.probe.across import Classifier, check_classes, predict_across
from hear_tune.probe.features import Features
from hear_tune.probe.metrics import score
from hear_tune.probe.protocols import KNN, LOGISTIC, LOGISTIC_RAW, run_protocol

RATE = 22_050


def task_of(labels, groups=None, splits=None, kind="multiclass"):
    groups = groups or [""] * len(labels)
    splits = splits or ["train"] * len(labels)
    clips = tuple(
        Clip(Path(f"{number}.wav"), split, labels=tuple(label), group=group)
        for number, (label, group, split) in enumerate(zip(labels, groups, splits, strict=True))
    )
    return Task("made-up", kind, tuple(sorted({n for label in labels for n in label})), clips)


def features_of(task, vectors):
    windows = tuple(np.float32(vector)[None] for vector in vectors)
    return Features(task.clips, windows, {"last": slice(0, len(vectors[0]))}, {})


def accuracy(task, vectors, protocol):
    outcome = run_protocol(task, features_of(task, vectors), protocol, seed=0)
    scores = score(task.kind, task.classes, outcome.truth, outcome.predicted)
    return next(iter(scores.values.values()))


def rounds(task, folds=None):
    """For each round, which clips are known and which are asked about."""
    found = []

    def predict(_, known, answers, asked):
        found.append((known[:, 0].astype(int).tolist(), asked[:, 0].astype(int).tolist()))
        return np.zeros((len(asked), answers.shape[1]), np.float32)

    numbers = np.arange(len(task.clips), dtype=np.float32)[:, None]
    rows, _ = predict_across(task, numbers, numbers, Classifier(predict, folds))
    assert rows.tolist() == [number for _, asked in found for number in asked]
    return found


# --- Who is asked about, by whom ---


def test_each_group_is_asked_about_by_the_others():
    task = task_of("abab", groups=["x", "y", "x", "z"])
    assert rounds(task) == [([1, 3], [0, 2]), ([0, 2, 3], [1]), ([0, 1, 2], [3])]


def test_whole_groups_are_dealt_into_folds():
    groups = [f"group {number % 7}" for number in range(42)]
    found = rounds(task_of("ab" * 21, groups), folds=5)
    assert len(found) == 5
    for known, asked in found:
        assert not {groups[k] for k in known} & {groups[a] for a in asked}
        assert sorted(known + asked) == list(range(42))


def test_given_folds_are_kept_where_no_group_is_in_two():
    splits = [f"fold0{number // 4}" for number in range(12)]
    apart = [f"group {number // 2}" for number in range(12)]
    found = rounds(task_of("ab" * 6, apart, splits), folds=5)
    assert [asked for _, asked in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    mixed = [f"group {number % 3}" for number in range(12)]
    for _, asked in rounds(task_of("ab" * 6, mixed, splits), folds=5):
        assert len({mixed[row] for row in asked}) == 1


@pytest.mark.parametrize("groups", [None, ["x", "", "y", "x", "y", "x"]])
def test_without_all_groups_folds_or_the_test_set_are_asked_about(groups):
    labels = "ababab"
    folds = ["fold00", "fold00", "fold01", "fold01", "fold02", "fold02"]
    assert [asked for _, asked in rounds(task_of(labels, groups, folds))] == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]
    given = ["train", "train", "valid", "train", "test", "test"]
    assert rounds(task_of(labels, groups, given)) == [([0, 1, 2, 3], [4, 5])]


def test_what_cannot_be_asked_is_named():
    vectors = np.eye(4)
    with pytest.raises(TaskError, match="made-up: 0 clips to label 4 others by"):
        accuracy(task_of("abab", ["one"] * 4), vectors, KNN)
    with pytest.raises(TaskError, match="nothing to tell apart without x"):
        accuracy(task_of("aabb", ["z", "z", "x", "x"]), vectors, KNN)


def test_copies_in_two_groups_do_not_answer_for_each_other(tmp_path):
    """Every single is also on an album, and no label can be heard."""
    rng = np.random.default_rng(0)
    rows, vectors = ["path,label,release"], []
    for song in range(40):
        label, vector = "ab"[rng.integers(2)], rng.normal(size=16)
        for release in (f"single {song}", f"album {song // 4}"):
            (tmp_path / f"{release}-{song}.wav").write_bytes(b"song %d" % song)
            rows.append(f"{release}-{song}.wav,{label},{release}")
            vectors.append(vector)
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    task = labelled.load(tmp_path / "mine.csv", group="release")
    for protocol in (KNN, LOGISTIC):
        assert accuracy(task, vectors, protocol) < 0.8


@pytest.mark.parametrize(
    ("protocol", "groups", "splits", "expected"),
    [
        (KNN, "xxyyzz", "", "classes in one group only, whose clips cannot be recognised: c"),
        (LOGISTIC, "xxyyzz", "", "classes in one fold of whole groups only"),
        (KNN, "xxyyzx", "", None),
        (LOGISTIC, "uvwxyz", "001112", "classes in one fold of whole groups only"),
        (KNN, "uvwxyz", "001112", None),
        (KNN, "", "001122", "classes in one fold only"),
        (KNN, "", "001121", None),
    ],
)
def test_classes_that_cannot_be_recognised_are_listed(protocol, groups, splits, expected):
    labels = "abccab" if splits == "001112" else "ababcc"
    folds = [f"fold0{number}" for number in splits]
    remarks = check_classes(task_of(labels, list(groups), folds), protocol.classifier)
    assert len(remarks) == (expected is not None)
    assert all(remark.startswith(expected) for remark in remarks)


def test_classes_of_the_test_set_alone_are_listed():
    splits = ["train", "train", "valid", "valid", "test", "test"]
    for labels, unknown in (("abccbd", ": d"), ("abcabb", "")):
        remark = "".join(check_classes(task_of(labels, splits=splits), KNN.classifier))
        assert remark.endswith(unknown)
        assert bool(remark) == bool(unknown)


# --- What the classifiers say ---


def test_the_nearest_neighbour_is_of_another_group():
    """By angle, whatever the length: within its group each clip's neighbour has its label."""
    vectors = [(1, 0), (1, 0.1), (0, 1), (0.1, 1), (9, 0.3), (0.3, 9)]
    labels, groups = "aabbba", ["x", "x", "x", "x", "y", "y"]
    assert accuracy(task_of(labels, groups), vectors, KNN) == 0
    assert accuracy(task_of("aabbab", groups), vectors, KNN) == 1


def test_neighbours_answer_tags_and_values():
    vectors = [(1, 0), (0, 1), (1, 0.1), (0.1, 1)]
    groups = ["x", "x", "y", "y"]
    tags = task_of([("a", "c"), ("b",), ("a", "c"), ("b",)], groups, kind="multilabel")
    assert accuracy(tags, vectors, KNN) == 1
    clips = tuple(
        replace(clip, labels=(), values=(value,))
        for clip, value in zip(tags.clips, (0.0, 5, 0, 5), strict=True)
    )
    values = Task("made-up", "regression", ("arousal",), clips)
    assert accuracy(values, vectors, KNN) == 1
    with pytest.raises(TaskError, match="try knn"):
        accuracy(values, vectors, LOGISTIC)


def test_standardising_hears_small_columns():
    rng = np.random.default_rng(0)
    labels = "ab" * 40
    vectors = rng.normal(size=(80, 6)) * 5
    vectors[:, 0] = 1e-3 * (np.array(list(labels)) == "b") + 1e-4 * rng.normal(size=80)
    task = task_of(labels, [f"group {number % 8}" for number in range(80)])
    assert accuracy(task, vectors, LOGISTIC) > 0.95
    assert accuracy(task, vectors, LOGISTIC_RAW) < 0.8


def test_a_logistic_regression_of_each_tag():
    rng = np.random.default_rng(0)
    on = rng.random((90, 2)) < 0.4
    labels = [tuple(name for name, is_on in zip("ab", row, strict=True) if is_on) for row in on]
    labels[0] = ("rare",)  # that no other group has
    groups = [f"group {number % 9}" for number in range(90)]
    task = task_of(labels, groups, kind="multilabel")
    assert accuracy(task, on + 0.1 * rng.normal(size=on.shape), LOGISTIC) > 0.7


def test_a_class_that_no_other_group_has_is_missed_and_no_error():
    labels = "ab" * 40 + "cc"
    vectors = np.eye(3)[["abc".index(label) for label in labels]]
    task = task_of(labels, [f"group {number % 8}" for number in range(80)] + ["alone"] * 2)
    for protocol in (KNN, LOGISTIC):
        assert accuracy(task, vectors, protocol) == pytest.approx(80 / 82)


# --- The command ---


@pytest.mark.parametrize("protocol", ["knn", "logistic", "logistic-raw"])
def test_probe_of_a_table_with_groups(protocol, tmp_path, capsys):
    rows = ["path,label,artist"]
    for number in range(8):
        for label, loudness in (("clean", 0.001), ("noisy", 0.5)):
            name = f"{label}{number}.wav"
            sound = 0.5 * tone(300 + 5 * number, 20_000) + loudness * noise(20_000, number)
            soundfile.write(tmp_path / name, sound, RATE)
            rows.append(f"{name},{label},artist {number % 4}")
    table = tmp_path / "clips.csv"
    table.write_text("\n".join(rows))
    options = ["--baseline", "mfcc", "--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    assert main(["probe", *map(str, [table, "--protocol", protocol, *options])]) == 0
    assert f"| mfcc | statistics | 40 | {protocol} | 1.000 [" in capsys.readouterr().out
    (path,) = (tmp_path / "results").glob("*.json")
    result = json.loads(path.read_text())
    assert np.sum(result["confusion"]) == 16  # all clips, whatever their split
    assert result["example_seconds"] is None
    shutil.rmtree(tmp_path / "cache")
    assert main(["probe", str(path)]) == 0


@pytest.fixture
def releases(tmp_path):
    """A table with given splits and two columns of groups."""
    rows = ["path,label,split,album,artist"]
    for number in range(12):
        label = ("low", "high")[number % 2]
        sound = 0.5 * tone(200 + 1800 * (number % 2) + number, 20_000) + 0.001 * noise(20_000)
        soundfile.write(tmp_path / f"{number}.wav", sound, RATE)
        split = ("train", "train", "valid", "test")[number // 3]
        rows.append(f"{number}.wav,{label},{split},album {number // 2},artist {number % 4}")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    return tmp_path / "clips.csv"


def probe(table, *arguments):
    options = ["--baseline", "mfcc", "--cache", table.parent / "cache"]
    options += ["-o", table.parent / "results"]
    return main(["probe", *map(str, [table, *options, *arguments])])


def test_each_column_of_groups_is_a_result_of_its_own(releases, capsys):
    for column in ("album", "artist"):
        assert probe(releases, "--protocol", "knn", "--group", column) == 0
    paths = sorted((releases.parent / "results").glob("*.json"))
    assert sorted(json.loads(path.read_text())["grouping"] for path in paths) == ["album", "artist"]
    capsys.readouterr()
    assert main(["probe", *map(str, paths)]) == 0
    assert "| labels | groups |" in capsys.readouterr().out


def test_remarks_are_those_of_the_protocol(releases, capsys):
    text = releases.read_text()
    releases.write_text(text.replace("0.wav,low,train", "0.wav,mid,train").replace("album 1", "x"))
    rows = releases.read_text().replace("2.wav,low,train,x", "2.wav,mid,train,album 0")
    releases.write_text(rows)
    assert probe(releases, "--protocol", "knn", "--group", "album") == 0
    error = capsys.readouterr().err
    assert "classes in one group only, whose clips cannot be recognised: mid" in error
    assert "groups in two splits" not in error
    assert probe(releases, "--group", "album") == 0
    error = capsys.readouterr().err
    assert "groups in two splits or more" in error
    assert "in one group only" not in error


@pytest.mark.parametrize("protocol", ["knn", "logistic", "clmr-linear"])
def test_files_that_fail_are_listed_if_none_is_left(releases, protocol, capsys):
    paths = sorted(releases.parent.glob("*.wav"))
    for path in paths:
        path.write_bytes(b"no audio" + path.name.encode())
    assert probe(releases, "--protocol", protocol, "--group", "album") == 2
    error = capsys.readouterr().err
    assert "none of 12 clips could be embedded" in error
    assert all(f"failed: {path}" in error for path in paths)
