"""Probes: metrics with known results, heads that learn, protocols without leaks."""

import gc
import json
import os
import pickle
import shutil
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchmetrics.functional.classification as tm
from conftest import noise, tone
from sklearn import metrics as sk

import hear_tune
from hear_tune.baselines import BASELINES, LogMel, MfccStatistics
from hear_tune.cli import main
from hear_tune.datasets.keys import KEYS
from hear_tune.datasets.task import Clip, Task, TaskError
from hear_tune.probe import BASELINE_NAMES, LAYERS, PROTOCOL_NAMES
from hear_tune.probe.features import Features, embed_task
from hear_tune.probe.heads import Examples, Settings, train
from hear_tune.probe.metrics import _DRAWN_SCORERS, intervals, score
from hear_tune.probe.plots import plot_layers
from hear_tune.probe.protocols import (
    CLMR_LINEAR,
    JUKEMIR,
    PROTOCOLS,
    budgeted,
    example_samples,
    run_protocol,
)
from hear_tune.probe.results import _labels_digest, load, probe, row_names, table

RATE = 22_050


# --- Metrics ---


def test_tags_agree_with_torchmetrics():
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 5)) < 0.3).astype(np.float32)
    predicted = np.clip(0.3 * truth + rng.random((200, 5)), 0, 1).astype(np.float32)
    scores = score("multilabel", tuple("abcde"), truth, predicted)
    p, t = torch.from_numpy(predicted), torch.from_numpy(truth).long()
    assert scores.values["roc_auc"] == pytest.approx(tm.multilabel_auroc(p, t, 5).item(), 1e-5)
    expected = tm.multilabel_average_precision(p, t, 5).item()
    assert scores.values["average_precision"] == pytest.approx(expected, 1e-5)
    assert list(scores.values) == ["roc_auc", "average_precision"]


def test_classes_agree_with_torchmetrics():
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=300)
    predicted = np.eye(4)[truth] + rng.normal(size=(300, 4))
    scores = score("multiclass", tuple("abcd"), truth, predicted)
    p, t = torch.from_numpy(predicted), torch.from_numpy(truth)
    accuracy = tm.multiclass_accuracy(p, t, 4, average="micro").item()
    assert scores.values["accuracy"] == pytest.approx(accuracy)
    f1 = tm.multiclass_f1_score(p, t, 4, average="macro").item()
    assert scores.values["macro_f1"] == pytest.approx(f1)
    expected = tm.multiclass_confusion_matrix(p, t, 4).tolist()
    assert scores.confusion == expected


def test_a_tag_never_positive_is_excluded_and_named():
    truth = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]])
    predicted = np.array([[0.9, 0.5, 0.5], [0.1, 0.5, 0.4], [0.8, 0.2, 0.3]])
    scores = score("multilabel", ("a", "never", "always"), truth, predicted)
    assert scores.values == {"roc_auc": 1.0, "average_precision": 1.0}
    assert scores.left_out == ("never", "always")
    nothing = score("multilabel", ("a",), np.zeros((3, 1)), predicted[:, :1])
    assert nothing.left_out == ("a",)


def test_a_class_without_test_clips_is_excluded_from_macro_f1():
    scores = score("multiclass", ("a", "b", "c"), np.array([0, 1]), np.eye(3)[:2])
    assert scores.values == {"accuracy": 1.0, "macro_f1": 1.0}
    assert scores.left_out == ("c",)


def test_r2_of_known_values():
    truth = np.array([[0.0, 1], [2, 3], [4, 5]])
    predicted = truth.copy()
    predicted[:, 1] = truth[:, 1].mean()
    scores = score("regression", ("arousal", "valence"), truth, predicted)
    assert scores.values["r2"] == pytest.approx(0.5)
    assert scores.per_class == {"arousal": {"r2": 1.0}, "valence": {"r2": 0.0}}


def test_keys_are_weighted_as_mir_eval_does():
    keys = ("C major", "G major", "A minor", "C minor", "F# major")
    truth = np.zeros(5, int)
    scores = score("key", keys, truth, np.eye(5))
    # right, fifth above, relative, parallel, wrong
    assert scores.values["weighted"] == pytest.approx((1 + 0.5 + 0.3 + 0.2 + 0) / 5)
    assert scores.values["accuracy"] == pytest.approx(0.2)


def test_intervals_include_the_score_and_narrow_with_data():
    rng = np.random.default_rng(0)
    widths = []
    for count in (50, 800):
        truth = rng.integers(2, size=count)
        predicted = np.eye(2)[truth] + 0.8 * rng.normal(size=(count, 2))
        low, high = intervals("multiclass", ("a", "b"), truth, predicted)["accuracy"]
        value = score("multiclass", ("a", "b"), truth, predicted).values["accuracy"]
        assert low < value < high
        # the normal approximation of a proportion
        assert high - low == pytest.approx(3.92 * np.sqrt(value * (1 - value) / count), rel=0.2)
        widths.append(high - low)
    assert widths[1] < 0.4 * widths[0]


def test_intervals_draw_groups():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(40) < 0.6, 20)  # clips of a group succeed and fail together
    truth = np.zeros(800, int)
    predicted = np.eye(2)[1 - right.astype(int)]
    groups = [f"group {number // 20}" for number in range(800)]

    def width(groups):
        bounds = intervals("multiclass", ("a", "b"), truth, predicted, groups=groups)
        return np.ptp(bounds["accuracy"])

    # as of 40 clips
    assert width(groups) == pytest.approx(3.92 * np.sqrt(0.6 * 0.4 / 40), rel=0.25)
    assert width([]) == pytest.approx(width(groups) / np.sqrt(20), rel=0.25)
    assert width(["only one"] * 800) == width([""] * 800) == width([])
    assert width([*groups[:400], *[""] * 400]) < width(groups)


def times(rows, clips):
    """How often each of so many clips is drawn."""
    return np.stack([np.bincount(draw, minlength=clips) for draw in rows]).astype("f4")


def guesses(kind, count, seed=0):
    """Classes, truth and mediocre predictions, with many ties and an unused class."""
    rng = np.random.default_rng(seed)
    classes = KEYS if kind == "key" else tuple("abcdef")
    predicted = rng.integers(10, size=(count, len(classes))) / 10
    if kind == "multilabel":
        return classes, (rng.random((count, 6)) < 0.2).astype(float), predicted
    if kind == "regression":
        return classes, (predicted + rng.normal(size=predicted.shape)).astype("f4"), predicted
    truth = rng.integers(len(classes) - 1, size=count)
    return classes, truth, predicted + np.eye(len(classes))[truth] * rng.random((count, 1))


@pytest.mark.parametrize("kind", ["multilabel", "multiclass", "regression", "key"])
def test_drawn_clips_score_as_without_resampling(kind):
    classes, truth, predicted = guesses(kind, 60)
    rows = np.random.default_rng(1).integers(60, size=(20, 60))
    drawn = _DRAWN_SCORERS[kind](classes, truth, predicted, times(rows, 60))
    for draw, of_draw in enumerate(rows):
        expected = score(kind, classes, truth[of_draw], predicted[of_draw]).values
        found = {name: values[draw] for name, values in drawn.items()}
        assert found == pytest.approx(expected, rel=1e-12)


def test_drawn_clips_score_as_in_scikit_learn():
    classes, truth, predicted = guesses("multiclass", 80)
    rows = np.random.default_rng(2).integers(80, size=(5, 80))
    drawn = _DRAWN_SCORERS["multiclass"](classes, truth, predicted, times(rows, 80))
    chosen = predicted.argmax(axis=1)
    for draw, of_draw in enumerate(rows):
        true, taken = truth[of_draw], chosen[of_draw]
        f1 = sk.f1_score(true, taken, labels=np.unique(true), average="macro")
        assert drawn["accuracy"][draw] == pytest.approx(sk.accuracy_score(true, taken), rel=1e-12)
        assert drawn["macro_f1"][draw] == pytest.approx(f1, rel=1e-12)
    classes, truth, predicted = guesses("multilabel", 80)
    rows = [*rows, np.tile(rows[0], 2), rows[1][:50]]  # groups make draws of unequal size
    drawn = _DRAWN_SCORERS["multilabel"](classes, truth, predicted, times(rows, 80))
    for draw, of_draw in enumerate(rows):
        true, scores = truth[of_draw], predicted[of_draw]
        assert true.any(axis=0).all()
        auc, precision = sk.roc_auc_score(true, scores), sk.average_precision_score(true, scores)
        assert drawn["roc_auc"][draw] == pytest.approx(auc, rel=1e-12)
        assert drawn["average_precision"][draw] == pytest.approx(precision, rel=1e-12)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass", "regression", "key"])
def test_intervals_of_several_seeds_include_their_mean(kind):
    for count in (6, 40):
        classes, truth, one = guesses(kind, count, seed=3)
        other = 1 - one  # as bad as the first one is good
        bounds = intervals(kind, classes, truth, np.stack([one, other]))
        for name, (low, high) in bounds.items():
            pair = [score(kind, classes, truth, p).values[name] for p in (one, other)]
            assert low <= np.mean(pair) <= high
        alone = intervals(kind, classes, truth, one)
        assert intervals(kind, classes, truth, np.stack([one, one])) == alone


def test_r2_of_a_constant_is_not_perfect():
    constant = np.full((4, 1), 0.1, np.float32)
    assert score("regression", ("x",), constant, constant).values["r2"] == 0


# --- Heads and protocols ---


def examples(count=90, size=6, seed=0):
    """Vectors whose class is the largest of their first three columns."""
    vectors = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    return Examples(vectors, vectors[:, :3].argmax(1))


@pytest.mark.parametrize(
    "settings",
    [
        CLMR_LINEAR.grid[0],
        Settings(standardize=True, hidden=64, dropout=0.25, check_every_steps=8, patience=50),
    ],
)
def test_heads_learn_and_repeat(settings):
    settings = replace(settings, learning_rate=0.01, max_epochs=80)
    training, valid, test = examples(300), examples(60, seed=1), examples(200, seed=2)
    head, again = (train("multiclass", 3, training, valid, settings, seed=4) for _ in range(2))
    predicted = head.predict(test.vectors)
    assert (predicted.argmax(1) == test.targets).float().mean() > 0.9
    torch.testing.assert_close(predicted.sum(1), torch.ones(200))
    assert torch.equal(predicted, again.predict(test.vectors))


def test_regression_finds_a_line_at_any_scale():
    vectors = examples(200).vectors
    values = 1000 + 50 * vectors[:, :1] - 20 * vectors[:, 1:2]
    settings = Settings(learning_rate=0.02, patience=30)
    split = (
        Examples(vectors[:150], values[:150]),
        Examples(vectors[150:], values[150:]),
    )
    head = train("regression", 1, *split, settings, seed=0)
    assert (head.predict(vectors[150:]) - values[150:]).abs().max() < 5


def test_protocols_are_those_of_the_papers():
    (settings,) = CLMR_LINEAR.grid
    assert (settings.hidden, settings.batch_size, settings.max_epochs) == (0, 48, 200)
    assert (settings.learning_rate, settings.weight_decay) == (1e-3, 1e-6)
    assert CLMR_LINEAR.one_window
    assert len(set(JUKEMIR.grid)) == 216
    assert not JUKEMIR.one_window
    few = budgeted(JUKEMIR, 5, seed=1)
    assert len(set(few.grid)) == 5
    assert set(few.grid) < set(JUKEMIR.grid)
    assert few == budgeted(JUKEMIR, 5, seed=1)


def made_up(splits, windows=3, seed=0):
    """A task whose embeddings are noisy one-hot classes."""
    rng = np.random.default_rng(seed)
    clips = [Clip(Path(f"{i}.wav"), split, labels=("ab"[i % 2],)) for i, split in enumerate(splits)]
    task = Task("made-up", "multiclass", ("a", "b"), tuple(clips))
    vectors = [
        np.float32(rng.normal(size=(windows, 4)) + (9 if clip.labels[0] == "b" else -9))
        for clip in clips
    ]
    return task, Features(task.clips, tuple(vectors), {"last": slice(0, 4)}, {})


def quick(protocol, points=2):
    """A protocol with faster probes."""
    grid = budgeted(protocol, points).grid
    sooner = {"standardize": False, "learning_rate": 0.01, "max_epochs": 100}
    return replace(protocol, grid=tuple(replace(settings, **sooner) for settings in grid))


@pytest.mark.parametrize("protocol", [CLMR_LINEAR, quick(JUKEMIR)])
def test_a_protocol_solves_an_easy_task(protocol):
    task, features = made_up(["train"] * 60 + ["valid"] * 20 + ["test"] * 20)
    outcome = run_protocol(task, features, protocol, seed=0)
    assert len(outcome.truth) == 20
    assert score(task.kind, task.classes, outcome.truth, outcome.predicted).values["accuracy"] > 0.9


def test_every_fold_is_tested_by_others():
    """Random embeddings score well only if a probe is tested on its own training clips."""
    splits = [f"fold{i % 4:02d}" for i in range(40)]
    task, features = made_up(splits)
    outcome = run_protocol(task, features, CLMR_LINEAR, seed=0)
    assert len(outcome.truth) == 40
    assert len(outcome.settings) == 4
    rng = np.random.default_rng(1)
    memory = tuple(np.float32(100 * rng.normal(size=(1, 50))) for _ in splits)
    blind = Features(task.clips, memory, {}, {})
    outcome = run_protocol(task, blind, CLMR_LINEAR, seed=0)
    accuracy = score(task.kind, task.classes, outcome.truth, outcome.predicted).values["accuracy"]
    assert accuracy < 0.8


def test_predictions_are_means_of_probabilities():
    task, features = made_up(["train"] * 40 + ["valid"] * 10 + ["test"] * 2, windows=1)
    pair = [features.windows[-2], features.windows[-1]]
    one = run_protocol(task, features, CLMR_LINEAR, seed=0).predicted
    both = np.concatenate(pair)
    joined = Features(features.clips, (*features.windows[:-2], both, both), features.layers, {})
    two = run_protocol(task, joined, CLMR_LINEAR, seed=0).predicted
    np.testing.assert_allclose(two[0], one.mean(axis=0), atol=1e-6)


def test_short_windows_are_joined_to_the_length_of_the_paper():
    """Three windows of a third of the paper's length make one example."""
    splits = ["train"] * 40 + ["valid"] * 10 + ["test"] * 4
    task, features = made_up(splits, windows=3)
    short = replace(features, window_samples=19_683, hop_samples=19_683)
    means = tuple(matrix.mean(axis=0, keepdims=True) for matrix in features.windows)
    whole = replace(features, windows=means)
    assert example_samples(CLMR_LINEAR, short) == example_samples(CLMR_LINEAR, whole) == 59_049
    assert example_samples(JUKEMIR, short) is None
    predicted = [run_protocol(task, f, CLMR_LINEAR, 0).predicted for f in (short, whole)]
    np.testing.assert_array_equal(*predicted)


def test_joined_windows_cover_the_whole_clip():
    task, features = made_up(["train"] * 40 + ["valid"] * 10 + ["test"] * 2, windows=5)
    short = replace(features, window_samples=19_683, hop_samples=19_683)
    ends = (*short.windows[:-1], np.concatenate([short.windows[-1][:4], -short.windows[-1][:1]]))
    first, second = (
        run_protocol(task, f, CLMR_LINEAR, 0).predicted[-1]
        for f in (short, replace(short, windows=ends))
    )
    assert not np.allclose(first, second)


def test_a_task_of_one_class_has_no_score():
    task, features = made_up(["train"] * 10 + ["valid"] * 4 + ["test"] * 4)
    kept = [number for number, clip in enumerate(task.clips) if clip.labels == ("a",)]
    clips = tuple(task.clips[number] for number in kept)
    windows = tuple(features.windows[number] for number in kept)
    with pytest.raises(TaskError, match="only one class in the train set: a"):
        run_protocol(task, replace(features, clips=clips, windows=windows), CLMR_LINEAR, 0)


def test_missing_splits_are_named():
    task, features = made_up(["train"] * 10 + ["test"] * 2)
    with pytest.raises(TaskError, match="no valid clips"):
        run_protocol(task, features, CLMR_LINEAR, seed=0)


# --- Embeddings ---


def test_embeddings_are_computed_once(small_model, music, tmp_path, monkeypatch):
    model = hear_tune.EmbeddingModel(small_model.encoder, "all")
    paths = sorted(p for p in music.rglob("*.*") if p.suffix != ".txt")
    (music / "broken.wav").write_bytes(b"no audio")
    clips = tuple(Clip(path, "train", ("x",)) for path in [*paths, music / "broken.wav"])
    task = Task("music", "multiclass", ("x",), clips)
    features = embed_task(task, model, tmp_path / "cache")
    assert [clip.path for clip in features.clips] == paths
    assert list(features.failed) == [str(music / "broken.wav")]
    expected = hear_tune.embed_file(paths[0], model, per="window").vectors
    np.testing.assert_allclose(features.windows[0], expected, atol=1e-5)
    last = features.of(["tail.2"])
    np.testing.assert_array_equal(last.windows[0], expected[:, model.layer_columns["tail.2"]])

    (music / "broken.wav").unlink()
    whole = Task("music", "multiclass", ("x",), clips[:-1])
    embed_task(whole, model, tmp_path / "cache")
    with monkeypatch.context() as context:
        context.setattr(model, "embed_windows", None)  # whatever calls it fails
        again = embed_task(whole, model, tmp_path / "cache")
    np.testing.assert_array_equal(again.windows[0], features.windows[0])
    soundfile.write(paths[0], noise(70_000, 9), RATE)
    changed = embed_task(whole, model, tmp_path / "cache")
    assert not np.allclose(changed.windows[0], features.windows[0])


def test_tracks_are_embedded_as_by_hear_tune_embed(small_model, tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, noise(150_000), RATE)
    task = Task("music", "multiclass", ("x",), (Clip(path, "train", ("x",)),))
    windows = embed_task(task, small_model, tmp_path / "cache").windows
    tracks = embed_task(task, small_model, tmp_path / "cache", per="track").windows
    assert len(windows[0]) > 1
    expected = hear_tune.embed_file(path, small_model).vectors
    np.testing.assert_allclose(tracks[0], expected, atol=1e-5)


@pytest.fixture
def noises(tmp_path):
    """A task of 20 files, more than one group."""
    clips = []
    for number in range(20):
        path = tmp_path / f"noise {number}.wav"
        soundfile.write(path, noise(3_000, number), RATE)
        clips.append(Clip(path, "train", ("ab"[number % 2],)))
    return Task("noises", "multiclass", ("a", "b"), tuple(clips))


def rewrite(path, seed):
    soundfile.write(path, noise(4_000, seed), RATE)


def counted(model, monkeypatch, then=lambda: None):
    """Count the windows that a model embeds; call `then` after each batch."""
    batches = []
    embed = model.embed_windows

    def embed_windows(audio):
        batches.append(len(audio))
        vectors = embed(audio)
        then()
        return vectors

    monkeypatch.setattr(model, "embed_windows", embed_windows)
    return batches


@pytest.mark.parametrize(
    "interrupted",
    [
        "hear_tune.probe.features.write_whole",
        "hear_tune.embedding.folder.EmbeddingOutput.finish",
        "hear_tune.embedding.folder.EmbeddingOutput.__exit__",  # all is embedded, and in the output
    ],
)
def test_what_changed_after_an_interruption_is_not_taken_from_the_cache(
    small_model, noises, tmp_path, monkeypatch, interrupted
):
    first = noises.clips[0].path
    with monkeypatch.context() as context:
        context.setattr(interrupted, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            embed_task(noises, small_model, tmp_path / "cache")
    gc.collect()  # a process that is killed has no locks
    for seed in (99, 98):
        rewrite(first, seed)
        features = embed_task(noises, small_model, tmp_path / "cache")
        expected = hear_tune.embed_file(first, small_model, "window").vectors
        np.testing.assert_allclose(features.windows[0], expected, atol=1e-5)


def test_a_file_that_changes_while_it_is_embedded(small_model, noises, tmp_path, monkeypatch):
    first = noises.clips[0].path
    with monkeypatch.context() as context:
        counted(small_model, context, then=lambda: rewrite(first, 99))
        features = embed_task(noises, small_model, tmp_path / "cache")
    assert "changed while it was embedded" in features.failed[str(first)]
    assert len(features.clips) == 19
    features = embed_task(noises, small_model, tmp_path / "cache")
    expected = hear_tune.embed_file(first, small_model, "window").vectors
    np.testing.assert_allclose(features.windows[0], expected, atol=1e-5)
    assert features.failed == {}


def test_one_file_that_changed_is_embedded_alone(small_model, noises, tmp_path, monkeypatch):
    batches = counted(small_model, monkeypatch)
    embed_task(noises, small_model, tmp_path / "cache")
    assert sum(batches) == 20
    rewrite(noises.clips[3].path, 99)
    embed_task(noises, small_model, tmp_path / "cache")
    assert sum(batches) == 21
    embed_task(noises, small_model, tmp_path / "cache")
    assert sum(batches) == 21


def test_swapped_files(small_model, noises, tmp_path):
    """All have the same size and modification time, as after unpacking an archive."""
    first, second = (clip.path for clip in noises.clips[:2])
    for path in (first, second):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    before = embed_task(noises, small_model, tmp_path / "cache").windows
    first.rename(tmp_path / "spare")
    second.rename(first)
    (tmp_path / "spare").rename(second)
    after = embed_task(noises, small_model, tmp_path / "cache").windows
    np.testing.assert_allclose(after[0], before[1], atol=1e-5)
    np.testing.assert_allclose(after[1], before[0], atol=1e-5)


def test_an_interrupted_pass_resumes(small_model, noises, tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        batches = counted(small_model, context, then=lambda: 1 / (3 - len(batches)))
        with pytest.raises(ZeroDivisionError):
            embed_task(noises, small_model, tmp_path / "cache")
    rewrite(noises.clips[19].path, 99)  # of what was not embedded yet
    batches = counted(small_model, monkeypatch)
    features = embed_task(noises, small_model, tmp_path / "cache")
    assert sum(batches) == 4
    assert len(features.clips) == 20


def test_the_cache_is_used_while_it_is_filled(small_model, noises, tmp_path, monkeypatch):
    half = replace(noises, clips=noises.clips[::2])
    known = embed_task(half, small_model, tmp_path / "cache")
    found = []

    def look():
        with monkeypatch.context() as context:
            context.setattr(small_model, "embed_windows", None)
            found.append(embed_task(half, small_model, tmp_path / "cache"))

    batches = counted(small_model, monkeypatch, then=look)
    embed_task(noises, small_model, tmp_path / "cache")
    assert sum(batches) == 10
    np.testing.assert_array_equal(found[0].windows, known.windows)


def test_a_clip_that_is_cut_off_is_used_and_named_each_time(small_model, noises, tmp_path):
    first = noises.clips[0].path
    content = first.read_bytes()
    first.write_bytes(content[: len(content) // 2])
    for _ in range(2):
        features = embed_task(noises, small_model, tmp_path / "cache")
        assert features.failed[str(first)].startswith("cut off: ")
        assert len(features.clips) == len(noises.clips)


def test_the_cache_is_of_files_not_of_their_names(small_model, tmp_path, monkeypatch):
    """The same command in two folders that differ only in the sound."""
    for number, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "a.wav"
        soundfile.write(path, noise(3_000, number), RATE)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    vectors = []
    for folder in ("one", "two"):
        monkeypatch.chdir(tmp_path / folder)
        task = Task("t", "multiclass", ("x",), (Clip(Path("a.wav"), "train", ("x",)),))
        vectors += embed_task(task, small_model, tmp_path / "cache").windows
    assert not np.allclose(*vectors)


def test_log_mel_of_a_sine():
    model = hear_tune.EmbeddingModel(LogMel())
    sound = torch.from_numpy(tone(1_000, 59_049) / 0.4)[None]
    embeddings, timestamps = hear_tune.get_timestamp_embeddings(sound, model)
    assert embeddings.shape == (1, 81, 128)
    assert timestamps[0, 0] == pytest.approx(1000 * 364.5 / RATE, abs=0.1)
    middle = embeddings[0, 40]
    assert -4 < middle.max() < 2  # a window's main lobe is three bins, a band may be one
    assert middle.min() == -80
    low, high = tone(500, 59_049), tone(4_000, 59_049)
    places = [hear_tune.embed_array(s, RATE, model).vectors[0].argmax() for s in (low, high)]
    assert places[0] < middle.argmax() < places[1]


def test_mfcc_statistics_of_halves():
    model = hear_tune.EmbeddingModel(MfccStatistics())
    steady, changing = tone(440, 59_049), tone(440, 59_049)
    changing[30_000:] = 0.5 * noise(29_049)
    a, b = (hear_tune.embed_array(s, RATE, model).vectors[0] for s in (steady, changing))
    assert a.shape == (40,)
    assert np.linalg.norm(b[20:]) > 5 * np.linalg.norm(a[20:])
    model = hear_tune.EmbeddingModel(MfccStatistics(), timestamp_layers="mfcc")
    coefficients, _ = hear_tune.get_timestamp_embeddings(torch.from_numpy(changing)[None], model)
    np.testing.assert_allclose(b[:20], coefficients[0].mean(0), atol=0.05)


# --- The command ---


@pytest.fixture
def labelled(tmp_path):
    folder = tmp_path / "labelled"
    for split, count in (("train", 6), ("valid", 3), ("test", 3)):
        for label, loudness in (("clean", 0.001), ("noisy", 0.5)):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                seed = 10 * ("train", "valid", "test").index(split) + number
                sound = 0.5 * tone(300 + 5 * seed, 20_000) + loudness * noise(20_000, seed)
                soundfile.write(folder / split / label / f"{number}.wav", sound, RATE)
    return folder


def run(*arguments):
    return main(["probe", *map(str, arguments)])


def test_probe_of_a_folder(labelled, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "jukemir", quick(JUKEMIR, 5))
    options = ["--baseline", "mfcc", "--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    assert run(labelled, "--protocol", "jukemir", "--points", 2, "--seeds", 0, 1, *options) == 0
    (path,) = (tmp_path / "results").glob("*.json")
    result = json.loads(path.read_text())
    assert result["clips"] == {"test": 6, "train": 12, "valid": 6}
    assert result["scores"]["accuracy"]["mean"] == 1
    assert len(result["scores"]["accuracy"]["each"]) == 2
    assert (result["root"], result["grid_points"]) == (str(labelled), 2)
    assert result["confusion"] == [[3, 0], [0, 3]]
    assert "± 0.000" in capsys.readouterr().out
    pictures = {picture.name.rpartition("_")[2] for picture in path.parent.glob("*.png")}
    assert pictures == {"classes.png", "confusion.png"}
    assert run(path) == 0
    assert "| mfcc | statistics | 40 | jukemir | 1.000" in capsys.readouterr().out


def test_each_choice_of_layers_is_a_result_of_its_own(labelled, tmp_path):
    options = ["--cache", tmp_path / "cache", "-o", tmp_path / "results", "--max-clips", 2]
    for layers in ([], ["--layers", "tail.5"], ["--layers", "tail.5,tail.9"]):
        assert run(labelled, *options, *layers) == 0
    results = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")]
    found = sorted(result["layers"] for result in results)
    default = ["whitened"]
    assert found == [["tail.5"], ["tail.5", "tail.9"], default]


def test_probe_of_every_layer(labelled, checkpoint, tmp_path, capsys):
    options = ["--model", checkpoint("small"), "--protocol", "layers"]
    options += ["--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    assert run(labelled, *options) == 0
    results = [load(path) for path in (tmp_path / "results").glob("*.json")]
    layers = [layer.name for layer in hear_tune.load_model(checkpoint("small")).encoder.layers]
    assert sorted(result["layers"] for result in results) == sorted([name] for name in layers)
    assert len(list((tmp_path / "results").glob("*_layers.*"))) == 2
    printed = capsys.readouterr()
    assert "| last | tail.3 | 8 | clmr-linear |" in printed.out
    counts = results[0]["clips"]
    assert results[0]["tested"] == counts["test"] < sum(counts.values())
    assert f"tested on {counts['test']} of {sum(counts.values())} clips" in printed.err


@pytest.fixture
def checkpoint(tmp_path):
    """Return a function that saves small encoders under the same file name."""

    def make(folder):
        path = tmp_path / folder / "last.safetensors"
        if not path.exists():
            path.parent.mkdir()
            torch.manual_seed(len(list(tmp_path.glob("*/last.safetensors"))))
            config = hear_tune.TuneConfig(2, contractive=2, expansive=2, tail=3, embedding_size=8)
            hear_tune.save_checkpoint(hear_tune.build_encoder(config).eval(), path)
        return path

    return make


def test_no_result_replaces_another_one(labelled, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PROTOCOLS, "jukemir", quick(JUKEMIR, 5))
    for picture in ("plot_classes", "plot_confusion"):
        monkeypatch.setattr(f"hear_tune.probe.run.{picture}", lambda *_: None)
    namesake = tmp_path / "other" / "labelled"
    shutil.copytree(labelled, namesake)
    options = ["--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    commands = [
        (labelled, "--model", checkpoint("A")),
        (labelled, "--model", checkpoint("B")),
        (namesake, "--model", checkpoint("B")),
        (labelled, "--model", checkpoint("B"), "--max-clips", 4),
        (labelled, "--model", checkpoint("B"), "--max-clips", 2),
        (labelled, "--model", checkpoint("B"), "--seeds", 1),
        (labelled, "--model", checkpoint("B"), "--layers", "tail.2"),
        (labelled, "--model", checkpoint("B"), "--protocol", "jukemir", "--points", 1),
        (labelled, "--model", checkpoint("B"), "--protocol", "jukemir", "--points", 2),
    ]
    for command in [*commands, commands[3], commands[8]]:
        assert run(*command, *options) == 0
    paths = sorted((tmp_path / "results").glob("*.json"))
    assert len(paths) == len(commands)
    clips = [json.loads(path.read_text())["clips"]["train"] for path in paths]
    assert sorted(clips) == [2, 4, *[12] * 7]
    capsys.readouterr()
    assert run(*paths) == 0
    rows = capsys.readouterr().out.splitlines()[4:]
    assert len({row.partition(" [")[0].rpartition("|")[0] for row in rows}) == len(commands)


def test_another_split_or_label_is_a_result_of_its_own(labelled, tmp_path, monkeypatch, capsys):
    for picture in ("plot_classes", "plot_confusion"):
        monkeypatch.setattr(f"hear_tune.probe.run.{picture}", lambda *_: None)
    paths = sorted(labelled.rglob("*.wav"))
    rows = [(str(p), p.parent.name, str(number % 8)) for number, p in enumerate(paths)]
    edited = [(rows[0][0], "noisy", rows[0][2]), *rows[1:]]
    by_album = ["--group", "Album"]
    options = ["--baseline", "mfcc", "--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    for contents, group in ((rows, []), (rows, by_album), (edited, by_album), (rows, by_album)):
        lines = [",".join(row) for row in [("path", "label", "album"), *contents]]
        kept = lines if group else [line.rpartition(",")[0] for line in lines]
        (tmp_path / "mine.csv").write_text("\n".join(kept))
        assert run(tmp_path / "mine.csv", *options, *group) == 0
    results = list((tmp_path / "results").glob("*.json"))
    assert len(results) == 3
    capsys.readouterr()
    assert run(*results) == 0
    assert "| labels |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["\u97f3\u697d", "\u041c\u0443\u0437\u044b\u043a\u0430", "a b\u0301"]
)
def test_results_are_named_in_any_script(labelled, tmp_path, name):
    options = ["--cache", tmp_path / "cache", "-o", tmp_path / "results", "--baseline", "mfcc"]
    labelled.rename(tmp_path / name)
    assert run(tmp_path / name, *options, "--name", "x/" * 500) == 0
    (path,) = (tmp_path / "results").glob("*.json")
    kept = unicodedata.normalize("NFC", name).replace(" ", "-")
    assert path.name.startswith(f"{kept}_x-x-")


def test_tables_distinguish_similar_rows():
    task, features = made_up(["train"] * 20 + ["valid"] * 6 + ["test"] * 6, windows=6)
    model = hear_tune.EmbeddingModel(MfccStatistics())
    protocol = quick(CLMR_LINEAR)
    one, two = (probe(task, features, model, protocol, [seed], "mine") for seed in (0, 1))
    assert "seeds" not in table([one])
    head, _, *rows = table([one, two]).splitlines()[2:]
    assert head.startswith("| model | layers | size | protocol | seeds |")
    assert [row.split(" | ")[4] for row in rows] == ["0", "1"]
    assert row_names([one, two])[1] == "mine, last, clmr-linear, seeds 1"
    longer = replace(features, window_samples=118_098, hop_samples=118_098)
    other = probe(task, longer, model, protocol, [0], "longer")
    head, _, *rows = table([one, other]).splitlines()[2:]
    assert "| seconds |" in head
    assert [row.split(" | ")[4] for row in rows] == ["2.68", "5.36"]
    numbers = one | {"kind": "regression", "scores": {"r2": one["scores"]["accuracy"]}}
    assert table([one, numbers]).count("**") == 4  # two tables


def test_the_digest_of_labels_is_that_of_their_groups_too():
    """Clips without a group add nothing to it."""
    clips = (Clip(Path("/b.wav"), "test", ("x",)), Clip(Path("/a.wav"), "train", ("y",)))
    task = Task("t", "multiclass", ("x", "y"), clips)
    assert _labels_digest(task).startswith("d7b040736f978a95")
    grouped = [
        replace(task, clips=(clips[0], replace(clips[1], group=group))) for group in ("", "1", "2")
    ]
    assert len(set(map(_labels_digest, grouped))) == 3


def test_tables_distinguish_data_of_unlike_rows():
    task, features = made_up(["train"] * 20 + ["valid"] * 6 + ["test"] * 6)
    model, protocol = hear_tune.EmbeddingModel(MfccStatistics()), PROTOCOLS["knn"]
    one = probe(task, features, model, protocol, [0], "one", "/x/labels.csv", 10)
    others = {
        "": {},
        "clips": {"clips": {"train": 10, "valid": 6, "test": 6}},
        "data": {"root": "/y/labels.csv"},
        "labels": {"labels_sha256": "0" * 64},
        "groups": {"grouping": "album"},
    }
    for column, changed in others.items():
        head = table([one, one | {"model": "two"} | changed]).splitlines()[2]
        details = head.partition(" | protocol | ")[2].partition("accuracy |")[0]
        assert details.removesuffix(" | ") == column


def test_scores_and_intervals_are_of_all_seeds():
    task, features = made_up(["train"] * 20 + ["valid"] * 6 + ["test"] * 30)
    noisy = tuple(
        w + np.float32(30 * noise(w.size, n).reshape(w.shape))
        for n, w in enumerate(features.windows)
    )
    model = hear_tune.EmbeddingModel(MfccStatistics())
    hard = replace(features, windows=noisy)
    result = probe(task, hard, model, quick(CLMR_LINEAR), [0, 1, 2], "mine")
    for metric, values in result["scores"].items():
        low, high = values["interval"]
        assert low <= values["mean"] <= high, metric
    f1 = np.mean([of_class["f1"] for of_class in result["per_class"].values()])
    assert f1 == pytest.approx(result["scores"]["macro_f1"]["mean"])


def test_clips_beyond_max_clips_are_not_reported(labelled, tmp_path, capsys):
    for seed, split in enumerate(["train", "train", "valid", "test"]):
        (labelled / split / "odd").mkdir(exist_ok=True)
        path = labelled / split / "odd" / f"{seed}.wav"
        soundfile.write(path, noise(9_000, seed), RATE)
    options = ["--baseline", "mfcc", "--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    assert run(labelled, "--max-clips", 2, *options) == 0
    error = capsys.readouterr().err
    assert "labelled:" not in error


def test_a_class_whose_files_all_fail_leaves_nothing_to_score(labelled, tmp_path, capsys):
    for path in labelled.rglob("noisy/*.wav"):
        path.write_bytes(b"no audio" + os.fsencode(path))
    options = ["--baseline", "mfcc", "--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    assert run(labelled, *options) == 2
    assert "only one class in the train set: clean" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ("--points", "0"),
        ("--points", "-3"),
        ("--max-clips", "0"),
        ("--max-clips=-1",),
        ("--seeds=-1",),
        ("--workers", "0"),
        ("--max", "3"),
        ("--seed", "3"),
    ],
)
def test_numbers_out_of_range_are_refused_at_once(wrong, capsys):
    with pytest.raises(SystemExit) as raised:
        run("nowhere", *wrong)
    assert raised.value.code == 2
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "expected"), [([], 3), (["--workers", "2"], 2)])
def test_probe_embeds_in_as_many_processes_as_embed(
    labelled, tmp_path, monkeypatch, given, expected
):
    asked = []

    def embed(*arguments, workers, **options):
        asked.append(workers)
        return hear_tune.embed_folder(*arguments, **options)

    monkeypatch.setattr("hear_tune.probe.features.embed_folder", embed)
    monkeypatch.setattr("hear_tune.probe.run.core_count", lambda: 3)
    options = ["--baseline", "mfcc", "--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    assert run(labelled, *options, *given) == 0
    assert asked == [expected]


@pytest.mark.parametrize("name", ["log-mel", "mfcc"])
def test_baselines_can_be_pickled(name):
    model = hear_tune.baselines.load_model(name=name)
    sound = tone(440, 59_049)
    expected = hear_tune.embed_array(sound, RATE, model).vectors
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(hear_tune.embed_array(sound, RATE, copied).vectors, expected)


def test_probe_without_standard_error(labelled, tmp_path, monkeypatch):
    """As in a windowed program; the embeddings are cached."""
    monkeypatch.setitem(PROTOCOLS, "jukemir", quick(JUKEMIR))
    options = ["--baseline", "mfcc", "--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    soundfile.write(labelled / "unlabelled.wav", noise(3_000, 9), RATE)  # worth a remark
    assert run(labelled, *options) == 0
    monkeypatch.setattr(sys, "stderr", None)
    assert run(labelled, *options, "--protocol", "jukemir") == 0


def test_a_bad_clip_is_listed_and_changes_the_exit_code(labelled, tmp_path, capsys):
    (labelled / "train/noisy/bad.wav").write_bytes(b"no audio")
    options = ["--baseline", "mfcc", "--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    assert run(labelled, *options) == 1
    assert "bad.wav" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_named(labelled, tmp_path, capsys):
    assert run(labelled, "--device", "cuda:99", "--cache", tmp_path / "cache") == 2
    assert "device 'cuda:99' cannot be used here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no data set 'nowhere'"),
        (["nowhere.CSV"], "nowhere.CSV: no such file"),
        (["gtzan", "--group", "artist"], "gtzan has no columns to group by"),
        (["gtzan", "--root", "nowhere"], "nowhere"),
        (["nowhere.csv", "--root", "x"], "--root is for data sets by name, not for nowhere.csv"),
        ([".", "--root", "x"], "--root is for data sets by name, not for ."),
        (["a.json"], "a.json: cannot be read as a result"),
        (["gtzan", "fma-small"], "one task at a time"),
        (["x", "--protocol", "knn", "--points", "2"], "--points is for the grid of"),
        (["x", "--protocol", "layers", "--layers", "tail.9"], "leave out --layers"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("means", [[-0.4, -0.2], [-0.1, 0.3], [0.2, 0.3]])
def test_bars_of_layers_are_within_the_figure(means, tmp_path, monkeypatch):
    """R2 may be negative."""
    figures = []
    monkeypatch.setattr("hear_tune.probe.plots.save_figure", lambda f, *_: figures.append(f))
    results = [
        {
            "layers": [f"tail.{number}"],
            "scores": {"r2": {"mean": mean, "interval": [mean - 0.1, mean + 0.1]}},
            "task": "t",
            "model": "m",
        }
        for number, mean in enumerate(means)
    ]
    plot_layers(results, tmp_path / "x.svg")
    bottom, top = figures[0].axes[0].get_ylim()
    assert bottom < min(means)
    assert max(means) < top
    if min(means) < 0:
        assert bottom < 0 <= top


def test_root_tells_a_data_set_from_a_folder_of_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gtzan/rock").mkdir(parents=True)
    assert run("gtzan", "--root", "nowhere") == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_command_offers_every_protocol_and_baseline():
    assert set(PROTOCOL_NAMES) == {*PROTOCOLS, LAYERS}
    assert set(BASELINE_NAMES) == set(BASELINES)
