"""Views of embeddings beside heareval's, on made-up outputs of heareval."""

import json
import pickle
import random
import shutil
from importlib import import_module

import numpy as np
import pytest
import torch
from conftest import ROOT

from hear_tune.cli import main

pytest.importorskip("pandas", reason='needs pip install "hear-tune[hear]"')
pytest.importorskip("sklearn", reason='needs pip install "hear-tune[hear]"')

from hear_tune.hear_benchmark import views

FOLDS = ("fold00", "fold01", "fold02")
CLASSES = ("10", "9")  # not in the order of their numbers
PLAYERS = 8
NOTES = 6  # of a player in a fold


def embedded(folder, name="MFCC", embed=lambda label: [label, 1.0], groups=True):
    """The output of heareval's first runner for one model and task, as far as it is read."""
    task = folder / name / "module" / "notes-1.0-full"
    names = {
        split: {
            f"{player}-{note}.wav": [CLASSES[note % 2]]
            for player in range(PLAYERS)
            for note in range(NOTES)
        }
        for split in FOLDS
    }
    for split, labels in names.items():
        (task / split).mkdir(parents=True)
        (task / f"{split}.json").write_text(json.dumps(labels))
        for file, (label,) in labels.items():
            vector = np.array(embed(CLASSES.index(label)), np.float32)
            np.save(task / split / f"{file}.embedding.npy", vector)
        dimensions = json.dumps([len(labels), len(vector)])
        (task / f"{split}.embedding-dimensions.json").write_text(dimensions)
    metadata = {
        "task_name": "notes",
        "mode": "full",
        "embedding_type": "scene",
        "prediction_type": "multiclass",
        "splits": FOLDS,
        "evaluation": ["top1_acc"],
    }
    if groups:
        metadata["groups"] = {s: {file: file[0] for file in labels} for s, labels in names.items()}
    (task / "task_metadata.json").write_text(json.dumps(metadata))
    (task / "labelvocabulary.csv").write_text("idx,label\n0,10\n1,9\n")
    (task / ".done.embeddings").touch()
    model = {"folder": name, "name": name, "identity": f"{name} 1"}
    (folder / name / "model.json").write_text(json.dumps(model))
    return task


def score_by_heareval(task, wrong_player):
    """The output of the second runner: all right, but for the notes of one player."""
    draw = random.Random(0)
    for split in FOLDS:
        files = list(json.loads((task / f"{split}.json").read_text()).items())
        draw.shuffle(files)
        target = torch.tensor([[label == name for name in CLASSES] for _, (label,) in files])
        wrong = torch.tensor([[file.startswith(str(wrong_player))] for file, _ in files])
        tested = {"target": target.float(), "prediction": (target ^ wrong).float()}
        (task / f"{split}.predictions.pkl").write_bytes(pickle.dumps(tested))
    scores = {"test_top1_acc_mean": 7 / 8, "test_top1_acc_std": 0.01}
    (task / "test.predicted-scores.json").write_text(json.dumps({"aggregated_scores": scores}))
    done = {"embedding_size": 2, "grid_points": 1}
    (task / "prediction-done.json").write_text(json.dumps(done))


def by_view(folder):
    return {(row["view"], row["model"]): row for row in views.collect_views(folder)}


def test_each_view_of_an_embedding(tmp_path):
    score_by_heareval(embedded(tmp_path), wrong_player=3)
    rng = np.random.default_rng(0)
    embedded(tmp_path, "small", lambda label: [*rng.normal(size=2), 0.01 * label])
    rows = by_view(tmp_path)
    assert rows.keys() == {("heareval", "MFCC")} | {
        (view, model) for view in ("logistic", "knn") for model in ("MFCC", "small")
    }
    assert rows["heareval", "MFCC"]["score"] == 7 / 8
    assert rows["heareval", "MFCC"]["grid_points"] == 1
    assert rows["logistic", "MFCC"]["score"] == rows["knn", "MFCC"]["score"] == 1
    assert rows["logistic", "small"]["score"] == 1
    assert rows["knn", "small"]["score"] < 0.8
    for (_, model), row in rows.items():
        assert (row["clips"], row["groups"]) == (144, PLAYERS)
        assert row["embedding_size"] == (3 if model == "small" else 2)


def test_intervals_of_heareval_are_of_groups(tmp_path):
    """One of eight players is wrong: were clips drawn, the interval would be narrower by far."""
    widths = []
    for groups in (True, False):
        folder = tmp_path / str(groups)
        score_by_heareval(embedded(folder, groups=groups), wrong_player=3)
        low, high = by_view(folder)["heareval", "MFCC"]["interval"]
        assert low < 7 / 8 < high
        widths.append(high - low)
    deviation = np.sqrt(7 / 8 * 1 / 8)
    # skewed, and few: a rough normal approximation
    assert widths[0] == pytest.approx(3.92 * deviation / np.sqrt(8), rel=0.3)
    assert widths[1] == pytest.approx(3.92 * deviation / np.sqrt(144), rel=0.15)


def test_scores_of_events_have_no_interval(tmp_path):
    task = embedded(tmp_path)
    metadata = json.loads((task / "task_metadata.json").read_text())
    metadata |= {"embedding_type": "event", "evaluation": ["onset", "offset"]}
    (task / "task_metadata.json").write_text(json.dumps(metadata))
    scores = {f"test_{name}_{of}": 0.5 for name in ("onset", "offset") for of in ("mean", "std")}
    (task / "test.predicted-scores.json").write_text(json.dumps({"aggregated_scores": scores}))
    (task / "prediction-done.json").write_text('{"embedding_size": 2, "grid_points": 1}')
    rows = views.collect_views(tmp_path)
    assert [(row["view"], row["metric"]) for row in rows] == [
        ("heareval", "onset"),
        ("heareval", "offset"),
    ]
    assert "| notes | offset | 0.500 |" in views.view_tables(rows)


def test_what_no_classifier_can_tell_is_left_out(tmp_path, capsys):
    embedded(tmp_path)
    alone = embedded(tmp_path, "alone")
    metadata = json.loads((alone / "task_metadata.json").read_text())
    metadata["groups"] = {s: dict.fromkeys(files, "one") for s, files in metadata["groups"].items()}
    (alone / "task_metadata.json").write_text(json.dumps(metadata))
    assert by_view(tmp_path).keys() == {("logistic", "MFCC"), ("knn", "MFCC")}
    assert "left out: notes: 0 clips to label 144 others by" in capsys.readouterr().err


def test_predictions_of_other_labels_are_refused(tmp_path):
    task = embedded(tmp_path)
    score_by_heareval(task, wrong_player=3)
    labels = json.loads((task / "fold01.json").read_text())
    (task / "fold01.json").write_text(json.dumps(dict(reversed(labels.items()))))
    with pytest.raises(ValueError, match=r"fold01\.predictions\.pkl: not of the labels"):
        views.collect_views(tmp_path)
    for file in task.glob("*.predictions.pkl"):
        file.unlink()
    assert by_view(tmp_path)["heareval", "MFCC"]["interval"] is None


def test_views_are_computed_once_for_each_embedding(tmp_path, monkeypatch):
    task = embedded(tmp_path)
    first = views.collect_views(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(views, "run_protocol", lambda *_, **__: pytest.fail("computed again"))
        assert views.collect_views(tmp_path) == first
    for path in task.glob("fold*/*.npy"):
        np.save(path, np.float32([0, int(path.name[2]) % 2]))
    (task / ".done.embeddings").unlink()
    (task / ".done.embeddings").touch()
    called = []
    run = views.run_protocol
    monkeypatch.setattr(
        views, "run_protocol", lambda *a, **k: called.append(a[2].name) or run(*a, **k)
    )
    views.collect_views(tmp_path)
    assert called == ["logistic", "knn"]


def test_the_command_writes_a_table_for_each_view(tmp_path, capsys):
    score_by_heareval(embedded(tmp_path), wrong_player=3)
    embedded(tmp_path, "other")
    saved = tmp_path / "scores.json"
    assert main(["hear", "table", str(tmp_path), "--views", "--json", str(saved)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("**")] == [
        "**heareval, 1 grid point**",
        "**logistic**",
        "**knn**",
    ]
    low, high = by_view(tmp_path)["heareval", "MFCC"]["interval"]
    assert f"| notes | top1_acc | 0.875 [{low:.3f}, {high:.3f}] |" in lines
    assert lines.count("| notes | accuracy | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] |") == 2
    rows = json.loads(saved.read_text())
    assert views.view_tables(rows).splitlines() == lines


def test_the_recipe_puts_the_tables_between_their_marks(tmp_path, monkeypatch):
    tables = recipe_tables(monkeypatch)
    score_by_heareval(embedded(tmp_path / "out"), wrong_player=3)
    page, text = tmp_path / "page.md", "Before.\n"
    for name in tables.SCORES:
        (tmp_path / name).write_text(json.dumps(views.collect_views(tmp_path / "out")))
        text += f"<!-- {name} -->\nold\n<!-- end of {name} -->\nAfter {name}.\n"
    page.write_text(text)
    tables.fill(page, tmp_path)
    filled = page.read_text()
    assert "old" not in filled
    assert filled.count("| notes | top1_acc | 0.875 [") == 2
    assert filled.startswith("Before.\n<!-- scores.json -->\n\n**heareval, 1 grid point**\n")
    assert filled.endswith("\n<!-- end of events.json -->\nAfter events.json.\n")
    tables.fill(page, tmp_path)
    assert page.read_text() == filled


def test_the_recipe_shows_the_scores_beside_it(tmp_path, monkeypatch):
    tables = recipe_tables(monkeypatch)
    shown = tables.HERE / tables.README
    page = shutil.copy(shown, tmp_path / "page.md")
    tables.fill(page, tables.HERE)
    assert page.read_bytes() == shown.read_bytes()


def test_the_summary_is_of_the_same_scores(tmp_path, monkeypatch):
    tables = recipe_tables(monkeypatch)
    for shown in (ROOT / name for name in tables.SUMMARISED):
        page = shutil.copy(shown, tmp_path / shown.name)
        tables.fill_summary(page, tables.HERE)
        assert page.read_bytes() == shown.read_bytes()


def test_a_summary_marks_the_best_of_each_view(monkeypatch):
    tables = recipe_tables(monkeypatch)
    place = {"task": "notes", "mode": "full"}
    rows = [
        {**place, "model": "TUNE+", "view": "logistic", "score": 0.75},
        {**place, "model": "MFCC", "view": "logistic", "score": 0.5},
        {**place, "model": "MFCC", "view": "knn", "score": 0.25},
        {**place, "model": "another", "view": "knn", "score": 0.9},
    ]
    row = tables.summary(rows).splitlines()[-1]
    assert row == "| notes | **0.750** / – / – | 0.500 / 0.250 / – | – / – / – |"


def recipe_tables(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "recipes" / "hear")
    return import_module("tables")
