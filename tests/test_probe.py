"""Probes: metrics with known answers, heads that learn, protocols that never peek."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchmetrics.functional.classification as tm
from conftest import noise, tone

import hear_tune
from hear_tune.baselines import LogMel, MfccStatistics
from hear_tune.cli import main
from hear_tune.datasets.task import Clip, Task, TaskError
from hear_tune.probe.features import Features, embed_task
from hear_tune.probe.heads import Examples, Settings, train
from hear_tune.probe.metrics import _tags_scorer, intervals, score
from hear_tune.probe.protocols import CLMR_LINEAR, JUKEMIR, budgeted, run_protocol

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


def test_a_tag_never_positive_is_left_out_and_named():
    truth = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]])
    predicted = np.array([[0.9, 0.5, 0.5], [0.1, 0.5, 0.4], [0.8, 0.2, 0.3]])
    scores = score("multilabel", ("a", "never", "always"), truth, predicted)
    assert scores.values == {"roc_auc": 1.0, "average_precision": 1.0}
    assert scores.left_out == ("never", "always")
    nothing = score("multilabel", ("a",), np.zeros((3, 1)), predicted[:, :1])
    assert nothing.left_out == ("a",)


def test_a_class_without_test_clips_is_left_out_of_macro_f1():
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


def test_intervals_hold_the_score_and_narrow_with_data():
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


def test_the_bootstrap_of_tags_equals_scikit_learn():
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 6)) < 0.2).astype(float)
    predicted = rng.integers(10, size=(60, 6)) / 10  # many of them equal
    score_rows = _tags_scorer(truth, predicted)
    for _ in range(20):
        rows = rng.integers(60, size=60)
        expected = score("multilabel", tuple("abcdef"), truth[rows], predicted[rows]).values
        assert score_rows(rows) == pytest.approx(expected)


# --- Heads and protocols ---


def examples(count=90, size=6, seed=0):
    """Vectors whose class is the largest of the first three columns."""
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
    settings = Settings(**{**vars(settings), "learning_rate": 0.01})
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
    """A task whose embeddings say the class, with some noise."""
    rng = np.random.default_rng(seed)
    clips = [Clip(Path(f"{i}.wav"), split, labels=("ab"[i % 2],)) for i, split in enumerate(splits)]
    task = Task("made-up", "multiclass", ("a", "b"), tuple(clips))
    vectors = [
        np.float32(rng.normal(size=(windows, 4)) + (9 if clip.labels[0] == "b" else -9))
        for clip in clips
    ]
    return task, Features(task.clips, tuple(vectors), {"last": slice(0, 4)}, {})


@pytest.mark.parametrize("protocol", [CLMR_LINEAR, budgeted(JUKEMIR, 2)])
def test_a_protocol_solves_an_easy_task(protocol):
    task, features = made_up(["train"] * 60 + ["valid"] * 20 + ["test"] * 20)
    outcome = run_protocol(task, features, protocol, seed=0)
    assert len(outcome.truth) == 20
    assert score(task.kind, task.classes, outcome.truth, outcome.predicted).values["accuracy"] > 0.9


def test_every_fold_is_tested_by_others():
    """Labels without any relation to the embeddings cannot be learnt, whatever a fold repeats."""
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


def test_probe_of_a_folder(labelled, tmp_path, capsys):
    options = ["--baseline", "mfcc", "--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    assert run(labelled, "--protocol", "jukemir", "--points", 2, "--seeds", 0, 1, *options) == 0
    (path,) = (tmp_path / "results").glob("*.json")
    result = json.loads(path.read_text())
    assert result["clips"] == {"test": 6, "train": 12, "valid": 6}
    assert result["scores"]["accuracy"]["mean"] == 1
    assert len(result["scores"]["accuracy"]["each"]) == 2
    assert result["confusion"] == [[3, 0], [0, 3]]
    assert "± 0.000" in capsys.readouterr().out
    pictures = {picture.name.rpartition("_")[2] for picture in path.parent.glob("*.png")}
    assert pictures == {"classes.png", "confusion.png"}
    assert run(path) == 0
    assert "| mfcc | statistics | 40 | jukemir | 1.000" in capsys.readouterr().out


def test_each_choice_of_layers_is_a_result_of_its_own(labelled, tmp_path):
    options = ["--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    for layers in ([], ["--layers", "tail.5"], ["--layers", "tail.5,tail.9"]):
        assert run(labelled, *options, *layers) == 0
    results = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")]
    found = sorted(result["layers"] for result in results)
    default = ["contractive.4", "tail.6", "tail.7"]
    assert found == [default, ["tail.5"], ["tail.5", "tail.9"]]


def test_probe_of_every_layer(labelled, tmp_path, capsys):
    options = ["--protocol", "layers", "--cache", tmp_path / "cache", "-o", tmp_path / "results"]
    assert run(labelled, *options) == 0
    results = sorted((tmp_path / "results").glob("*.json"))
    layers = [layer.name for layer in hear_tune.build_encoder(hear_tune.TuneConfig(11)).layers]
    assert len(results) > len(layers)
    assert len(list((tmp_path / "results").glob("*_layers.*"))) == 2
    assert "| tune+-free | tail.9 | 512 | clmr-linear |" in capsys.readouterr().out


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
        (["gtzan", "--root", "nowhere"], "nowhere"),
        (["a.json"], "a.json: cannot be read as a result"),
        (["gtzan", "fma-small"], "one task at a time"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
