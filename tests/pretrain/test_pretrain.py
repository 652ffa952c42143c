"""Training runs: exact resumption, interruptions, clear errors before long work."""

import csv
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import noise, tone
from filelock import FileLock
from lightning.pytorch import Trainer
from safetensors import safe_open

import hear_tune
from hear_tune.cli import EXIT_ERROR, EXIT_INTERRUPTED, main
from hear_tune.pretrain import callbacks
from hear_tune.pretrain import run as cli
from hear_tune.pretrain.callbacks import probe_accuracy
from hear_tune.pretrain.lars import LARS
from hear_tune.pretrain.module import CLMR
from hear_tune.pretrain.pcm_store import build_store
from hear_tune.pretrain.settings import MACHINE, SETTINGS

RATE = 22_050
VARIANT = "tune-vanilla-small"


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """A store of eight clearly different tracks, two per folder."""
    folder = tmp_path_factory.mktemp("music")
    for number in range(8):
        (folder / f"{number // 2}").mkdir(exist_ok=True)
        sound = 0.5 * noise(30_000, number) + tone(200 * (number + 1), 30_000)
        soundfile.write(folder / f"{number // 2}/{number}.wav", sound, RATE)
    build_store([folder], folder / "store", workers=1)
    return folder / "store"


@pytest.fixture
def arguments(audio, tmp_path):
    """Arguments of a run of a few seconds."""
    options = {
        "data.audio": json.dumps([str(audio)]),
        "data.batch_size": 4,
        "data.crop_samples": 2187,
        "data.pairs_per_epoch": 12,
        "model.variant": VARIANT,
        "trainer.accelerator": "cpu",
        "trainer.log_every_n_steps": 1,
        "trainer.max_steps": 7,
        "checkpoint_every": 2,
        "output": tmp_path / "run",
    }

    def build(**changes):
        merged = {**options, **{name.replace("__", "."): value for name, value in changes.items()}}
        return ["pretrain", *(f"--{name}={value}" for name, value in merged.items())]

    return build


def losses(run):
    """Loss by step, from the logs of all sessions of a run, newest first."""
    rows = {}
    for log in sorted(run.glob("logs/version_*/metrics.csv")):
        for row in csv.DictReader(log.open()):
            if row["train/loss"]:
                rows[int(row["step"])] = float(row["train/loss"])
    return rows


def weights(run, name="last"):
    return hear_tune.load_checkpoint(run / f"{name}.safetensors").state_dict()


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("scheduler", [False, True])
def test_interrupted_and_resumed_equals_uninterrupted(arguments, tmp_path, scheduler):
    options = {"model.average_decay": 0.5}
    if scheduler:
        options["model.optimizer"] = "hear_tune.pretrain.lars.LARS"
        options["model.optimizer.lr"] = 0.05
        options["model.lr_scheduler"] = "torch.optim.lr_scheduler.CosineAnnealingLR"
        options["model.lr_scheduler.T_max"] = 7
    assert main(arguments(**options)) == 0
    for steps in (3, 4, 7):  # within, and at the end of, an epoch of three steps
        assert main(arguments(output=tmp_path / "parts", trainer__max_steps=steps, **options)) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "parts")
    assert sorted(losses(tmp_path / "run")) == list(range(7))
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "parts"))


def test_an_average_of_weights_is_exported_and_changes_no_step(arguments, tmp_path):
    assert main(arguments(trainer__max_steps=3)) == 0
    for decay in (1e-9, 0.9):
        options = {"output": tmp_path / f"{decay}", "model.average_decay": decay}
        assert main(arguments(trainer__max_steps=3, **options)) == 0
        assert losses(tmp_path / f"{decay}") == losses(tmp_path / "run")
    newest, average = weights(tmp_path / "run"), weights(tmp_path / "0.9")
    for name, tensor in weights(tmp_path / "1e-09").items():
        torch.testing.assert_close(tensor, newest[name], rtol=0, atol=1e-6)
    assert any(not torch.allclose(average[name], newest[name], atol=1e-5) for name in newest)
    assert main(arguments(output=tmp_path / "x", **{"model.average_decay": 1.5})) == 2


def test_going_on_from_weights_of_another_run(arguments, tmp_path, capsys):
    still = {"model.optimizer": "torch.optim.SGD", "model.optimizer.lr": 0.0}
    assert main(arguments(trainer__max_steps=1, **still)) == 0
    start = tmp_path / "run/last.safetensors"
    options = {"output": tmp_path / "next", "data.seed": 1, "model.weights": start}
    assert main(arguments(trainer__max_steps=1, **still, **options)) == 0
    records = [
        hear_tune.load_checkpoint(w).training_record
        for w in (start, tmp_path / "next/last.safetensors")
    ]
    assert records[1]["before"] == records[0]
    assert "before" not in records[0]
    first, second = weights(tmp_path / "run"), weights(tmp_path / "next")
    assert torch.equal(first["tail.4.conv.weight"], second["tail.4.conv.weight"])
    assert not torch.equal(first["tail.4.norm.running_mean"], second["tail.4.norm.running_mean"])
    assert main(arguments(**options, model__variant="tune+", data__crop_samples=19_683)) == 2
    said = capsys.readouterr().err
    assert "is a tune-vanilla-small: give that variant" in said
    assert "crops of" not in said
    longer = options | {"output": tmp_path / "longer", "data.crop_samples": 4374}
    assert main(arguments(trainer__max_steps=1, **longer)) == 0
    assert "trained on crops of 2187 samples, not 4374" in capsys.readouterr().err
    assert main(arguments(trainer__max_steps=2, **longer)) == 0
    assert "crops of" not in capsys.readouterr().err
    del options["model.weights"]  # the checkpoint has its own
    assert main(arguments(trainer__max_steps=2, **still, **options)) == 0
    resumed = hear_tune.load_checkpoint(tmp_path / "next/last.safetensors").training_record
    assert (resumed["steps"], resumed["before"]) == (2, records[0])


def test_a_seed_decides_everything(arguments, tmp_path):
    assert main(arguments(trainer__max_steps=2)) == 0
    assert main(arguments(trainer__max_steps=2, output=tmp_path / "same")) == 0
    assert main(arguments(trainer__max_steps=2, output=tmp_path / "other", data__seed=1)) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "same")
    assert losses(tmp_path / "run")[0] != losses(tmp_path / "other")[0]


def test_one_store_needs_no_list(arguments, audio, tmp_path):
    assert main(arguments(trainer__max_steps=2, data__audio=audio)) == 0
    assert main(arguments(trainer__max_steps=2, output=tmp_path / "list")) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "list")


def test_exported_weights_say_how_they_came_about(arguments, tmp_path):
    assert main(arguments(trainer__max_steps=2)) == 0
    record = hear_tune.load_checkpoint(tmp_path / "run/last.safetensors").training_record
    assert record["method"] == "CLMR"
    assert (record["steps"], record["pairs"], record["pieces"]) == (2, 8, 8)
    model = hear_tune.load_model(tmp_path / "run/last.safetensors")
    assert hear_tune.embed_array(noise(5000), RATE, model).vectors.shape == (1, 512)


def test_training_learns(arguments, tmp_path):
    """With eight clearly different tracks, the loss falls below that of chance."""
    options = {"model.optimizer": "torch.optim.Adam", "model.optimizer.lr": 0.003}
    steps = {"trainer__max_steps": 100, "checkpoint_every": 200}
    assert main(arguments(data__crop_samples=729, **steps, **options)) == 0
    curve = [loss for _, loss in sorted(losses(tmp_path / "run").items())]
    assert np.mean(curve[-30:]) < np.mean(curve[:10]) - 0.15


def test_lower_precision_is_nearly_the_same(arguments, tmp_path):
    assert main(arguments(trainer__max_steps=2)) == 0
    low = {"trainer__precision": "bf16-mixed", "output": tmp_path / "low"}
    assert main(arguments(trainer__max_steps=2, **low)) == 0
    full, rounded = losses(tmp_path / "run"), losses(tmp_path / "low")
    assert full != rounded
    assert rounded == pytest.approx(full, abs=0.1)
    record = hear_tune.load_checkpoint(tmp_path / "low/last.safetensors").training_record
    assert record["precision"] == "bf16-mixed"


def test_a_step_of_several_batches(arguments, tmp_path):
    """Without a step between, the second batch sees the first weights."""
    still = {"model.optimizer": "torch.optim.SGD", "model.optimizer.lr": 0.0}
    options = {"data__pairs_per_epoch": 24, "trainer__max_steps": 2}
    assert main(arguments(**options, trainer__accumulate_grad_batches=3)) == 0
    assert main(arguments(output=tmp_path / "still", **{**options, **still})) == 0
    run = torch.load(tmp_path / "run/last.ckpt", weights_only=True)
    assert delivered(run) == 2 * 3
    record = hear_tune.load_checkpoint(tmp_path / "run/last.safetensors").training_record
    assert (record["steps"], record["pairs"]) == (2, 2 * 3 * 4)


def delivered(checkpoint):
    """Number of batches before a checkpoint."""
    (loader,) = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    return loader["delivered"]


def test_indicators_of_collapse_are_logged(arguments, tmp_path, monkeypatch):
    """Of four pairs whose embeddings are the axes of four dimensions out of 512."""

    def axes(self, audio):
        embeddings = 0 * self.encoder(audio[:, None]) + torch.eye(4, 512)
        return {self.clmr_layer: embeddings[:, :, None]}

    monkeypatch.setattr(CLMR, "forward", axes)
    assert main(arguments(trainer__max_steps=2)) == 0
    (log,) = (tmp_path / "run").glob("logs/version_0/metrics.csv")
    row = next(csv.DictReader(log.open()))
    assert float(row["train/effective_rank"]) == pytest.approx(4)
    spread = 4 / 512 * math.sqrt(3) / 4  # of each of the four: a one and three zeros
    assert float(row["train/embedding_spread"]) == pytest.approx(spread, rel=1e-5)
    assert float(row["train/contrastive_accuracy"]) == 1
    assert list((tmp_path / "run").glob("logs/version_0/events.out.tfevents*"))


@pytest.fixture
def probed(arguments, tmp_path, monkeypatch):
    """A run with a probe every two steps, whose scores by step the test chooses."""
    for label, frequency in (("low", 200), ("high", 3000)):
        (tmp_path / "labelled" / label).mkdir(parents=True)
        for number in range(6):
            sound = tone(frequency + 9 * number, 9_000) + 0.1 * noise(9_000, number)
            soundfile.write(tmp_path / "labelled" / label / f"{number}.wav", sound, RATE)
    options = {"probe.folder": tmp_path / "labelled", "probe.every_n_steps": 2}

    def run(steps, scores=None, **changes):
        if scores is not None:
            values = iter(scores)
            monkeypatch.setattr(callbacks, "probe_accuracy", lambda *_: next(values))
        return main(arguments(trainer__max_steps=steps, **{**options, **changes}))

    return run


def best(run):
    """Step and score of the best weights."""
    record = hear_tune.load_checkpoint(run / "best.safetensors").training_record
    return record["steps"], record["probe"]["accuracy"]


def test_online_probe(probed, tmp_path, capsys):
    assert probed(4) == 0
    output = capsys.readouterr()
    assert "step 0: probe/accuracy" in output.out + output.err
    (log,) = (tmp_path / "run").glob("logs/version_0/metrics.csv")
    scores = [row["probe/accuracy"] for row in csv.DictReader(log.open()) if row["probe/accuracy"]]
    assert len(scores) == 3


def test_the_best_weights_are_those_that_were_scored(probed, arguments, tmp_path):
    """The probe comes at every second step, a checkpoint at every third."""
    assert probed(6, [0.1, 0.2, 0.9, 0.3], checkpoint_every=3) == 0
    assert best(tmp_path / "run") == (4, 0.9)
    assert main(arguments(trainer__max_steps=4, output=tmp_path / "four")) == 0
    assert_same(weights(tmp_path / "run", "best"), weights(tmp_path / "four"))


def test_a_step_of_several_batches_is_probed_once(probed, tmp_path):
    """The last step of an epoch of three batches has one batch."""
    assert probed(4, [0.1, 0.2, 0.3], trainer__accumulate_grad_batches=2) == 0
    assert best(tmp_path / "run") == (4, 0.3)


def test_a_run_that_goes_on_knows_what_to_beat(probed, tmp_path):
    assert probed(2, [0.1, 0.9]) == 0
    assert probed(4, [0.6]) == 0
    assert best(tmp_path / "run") == (2, 0.9)
    assert probed(6, [0.95]) == 0
    assert best(tmp_path / "run") == (6, 0.95)


def test_the_score_to_beat_is_of_clips_not_of_a_spelling(probed, tmp_path, monkeypatch):
    assert probed(2, [0.1, 0.9]) == 0
    monkeypatch.chdir(tmp_path)
    assert probed(4, [0.6], **{"probe.folder": "./labelled"}) == 0
    assert best(tmp_path / "run") == (2, 0.9)
    path = tmp_path / "labelled/low/0.wav"
    soundfile.write(path, noise(9_500), RATE)
    assert probed(6, [0.5]) == 0
    assert best(tmp_path / "run") == (6, 0.5)


def test_clips_that_are_cut_off_are_named(probed, tmp_path, capsys):
    path = tmp_path / "labelled/low/0.wav"
    path.write_bytes(path.read_bytes()[:9_000])
    assert probed(1, [0.5]) == 0
    assert f"probe: {path}: cut off" in capsys.readouterr().err


def test_killed_between_a_score_and_the_next_checkpoint(probed, tmp_path, monkeypatch):
    """Repeated, the step scores lower, as on another machine: the better weights stay."""
    step = CLMR.training_step

    def broken(self, pairs):
        if self.global_step == 4:
            raise OSError("gone")
        return step(self, pairs)

    with monkeypatch.context() as patch:
        patch.setattr(CLMR, "training_step", broken)
        assert probed(6, [0.1, 0.2, 0.9], checkpoint_every=3) == 2
    assert best(tmp_path / "run") == (4, 0.9)
    assert probed(6, [0.8, 0.7], checkpoint_every=3) == 0
    assert best(tmp_path / "run") == (4, 0.9)


def test_scores_of_other_clips_or_of_another_run_are_nothing_to_beat(probed, tmp_path):
    assert probed(2, [0.1, 0.9]) == 0
    assert probed(4, [0.6], **{"probe.max_clips": 7}) == 0
    assert best(tmp_path / "run") == (4, 0.6)
    assert probed(2, [0.2, 0.1], resume="never") == 0
    assert best(tmp_path / "run") == (0, 0.2)
    assert probed(1, resume="never", **{"probe.folder": "null"}) == 0
    assert not (tmp_path / "run/best.safetensors").exists()


def test_the_best_weights_of_another_run_are_not_kept(probed, tmp_path):
    assert probed(2, [0.1, 0.9], output=tmp_path / "other") == 0
    assert probed(2, [0.1, 0.2]) == 0
    resume = {"resume": tmp_path / "run/last.ckpt", "output": tmp_path / "other"}
    assert probed(4, [0.3], **resume) == 0
    assert best(tmp_path / "other") == (4, 0.3)


def test_a_run_that_fails_at_once_leaves_no_weights_of_the_one_that_it_replaced(
    arguments, tmp_path, monkeypatch, capsys
):
    assert main(arguments(trainer__max_steps=1)) == 0
    last = tmp_path / "run/last.safetensors"
    again = {"resume": "never", "trainer__max_steps": 1}
    assert main(arguments(**again, **{"model.weights": last})) == 2
    assert f"{last}: this run would replace it" in capsys.readouterr().err
    assert last.exists()
    with monkeypatch.context() as patch:
        patch.setattr(CLMR, "training_step", lambda *_: 1 / 0)
        assert main(arguments(**again)) == 2
    assert not last.exists()


def test_probe_accuracy_of_known_vectors():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 30)
    vectors = rng.normal(size=(90, 5))
    assert probe_accuracy(vectors, labels) < 0.6
    vectors[:, :3] += 100 * np.repeat(np.eye(3), 30, axis=0)
    assert probe_accuracy(vectors, labels) == 1


# --- Interruptions ---


def wait_for_another(path, old, process):
    """Wait until a process has rewritten a file; return its time."""
    while not path.exists() or (new := path.stat().st_mtime_ns) == old:
        assert process.is_alive()
        time.sleep(0.02)
    return new


def work(arguments, said):
    """Run a command in its own process."""
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(arguments))


def test_stopped_from_outside(arguments, tmp_path):
    """Ctrl-C and SIGTERM lose nothing, kill -9 the steps after a checkpoint; all resume exactly."""
    context = multiprocessing.get_context("forkserver")  # which imports everything but once
    context.set_forkserver_preload(["hear_tune.cli.pretrain"])
    checkpoint, written = tmp_path / "run/last.ckpt", None
    for kind in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        said = tmp_path / kind.name
        process = context.Process(target=work, args=(arguments(trainer__max_steps=100_000), said))
        process.start()
        written = wait_for_another(checkpoint, written, process)
        os.kill(process.pid, kind)
        process.join(60)
        assert not process.is_alive(), f"{kind.name} did not stop it"
        assert process.exitcode == (-kind if kind == signal.SIGKILL else EXIT_INTERRUPTED)
        assert "Traceback" not in said.read_text()
        written = checkpoint.stat().st_mtime_ns
    done = torch.load(checkpoint, weights_only=True)["global_step"]
    assert done >= 2 + 2 + 2
    assert main(arguments(trainer__max_steps=done + 2)) == 0
    assert main(arguments(trainer__max_steps=done + 2, output=tmp_path / "whole")) == 0
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_a_step_of_fewer_batches_counts_as_many_pairs_as_it_had(arguments, tmp_path):
    """An epoch of five batches ends in a step of one."""
    options = {"data__pairs_per_epoch": 20, "trainer__max_steps": 6}
    assert main(arguments(**options, trainer__accumulate_grad_batches=2)) == 0
    record = hear_tune.load_checkpoint(tmp_path / "run/last.safetensors").training_record
    assert (record["steps"], record["pairs"]) == (6, 10 * 4)


@pytest.mark.parametrize("stop", [4, 7])
@pytest.mark.parametrize("kind", ["Ctrl-C", "another callback"])
def test_stopped_within_a_step_of_several_batches(arguments, tmp_path, monkeypatch, kind, stop):
    """Steps are of the batches 1 to 3, 4 to 6, and 7 and 8, the last ones of an epoch."""
    options = {
        "data__batch_size": 2,
        "data__pairs_per_epoch": 16,
        "trainer__accumulate_grad_batches": 3,
        "trainer__max_steps": 5,
        "checkpoint_every": 100,
    }
    assert main(arguments(**options, output=tmp_path / "whole")) == 0
    step, batches = CLMR.training_step, []

    def stopped(self, pairs):
        batches.append(pairs)
        if len(batches) == stop:
            if kind == "Ctrl-C":
                os.kill(os.getpid(), signal.SIGINT)
            else:  # as Lightning's own for max_time does
                self.trainer.should_stop = True
        return step(self, pairs)

    with monkeypatch.context() as patch:
        patch.setattr(CLMR, "training_step", stopped)
        assert main(arguments(**options)) == (EXIT_INTERRUPTED if kind == "Ctrl-C" else 0)
    saved = torch.load(tmp_path / "run/last.ckpt", weights_only=True)
    assert (saved["global_step"], delivered(saved)) == {4: (2, 6), 7: (3, 8)}[stop]
    assert main(arguments(**options)) == 0
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


# --- Going on with other settings ---


def test_what_decides_the_outcome_must_stay(arguments, audio, tmp_path, capsys):
    assert main(arguments(trainer__max_steps=1)) == 0
    before = (tmp_path / "run/last.ckpt").read_bytes()
    other = shutil.copytree(audio, tmp_path / "other")
    (index,) = other.glob("*.json")
    index.write_text(re.sub(r'"crc32": \d', '"crc32": 9', index.read_text(), count=1))
    chain = "hear_tune.pretrain.augment.AugmentationChain"
    changes = {
        "data.audio": {"data.audio": json.dumps([str(other)])},
        "data.batch_size 4, not 5": {"data.batch_size": 5},
        "data.crop_samples 2187, not 2268": {"data.crop_samples": 2268},
        "data.seed 0, not 1": {"data.seed": 1},
        "data.neighbours 1, not 2": {"data.neighbours": 2},
        "model.variant": {"model.variant": "tune-vanilla"},
        "model.weights": {"model.weights": tmp_path / "run/last.safetensors"},
        "model.temperature 0.5, not 0.1": {"model.temperature": 0.1},
        "model.average_decay 0.0, not 0.9": {"model.average_decay": 0.9},
        "model.augmentation None, not AugmentationChain": {
            "model.augmentation": chain,
            "model.augmentation.transforms": "[]",
        },
        "model.optimizer Adam, not SGD": {"model.optimizer": "torch.optim.SGD"},
        "model.optimizer.init_args.lr 0.0003, not 0.001": {
            "model.optimizer": "torch.optim.Adam",
            "model.optimizer.lr": 0.001,
        },
        "trainer.precision '32-true', not 'bf16-mixed'": {"trainer.precision": "bf16-mixed"},
        "trainer.accumulate_grad_batches": {"trainer.accumulate_grad_batches": 2},
        "trainer.gradient_clip_val": {"trainer.gradient_clip_val": 1.0},
    }
    for told, change in changes.items():
        capsys.readouterr()
        assert main(arguments(trainer__max_steps=3, **change)) == EXIT_ERROR
        (line,) = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
        assert f"run/last.ckpt: was begun with {told}" in line
        assert "choose another --output, or begin anew with --resume never" in line
    assert (tmp_path / "run/last.ckpt").read_bytes() == before
    assert main(arguments(trainer__max_steps=1, resume="never", data__batch_size=5)) == 0
    record = hear_tune.load_checkpoint(tmp_path / "run/last.safetensors").training_record
    assert record["pairs"] == 5


def test_what_decides_nothing_may_change(probed, arguments, audio, tmp_path):
    """Nor does the place of the music, or of the checkpoint, count."""
    assert main(arguments(trainer__max_steps=5, output=tmp_path / "whole")) == 0
    assert main(arguments(trainer__max_steps=3)) == 0
    moved = shutil.copytree(audio, tmp_path / "moved")
    changes = {
        "data__audio": json.dumps([str(moved)]),
        "data__workers": 1,
        "trainer__log_every_n_steps": 3,
        "trainer__max_epochs": 50,
        "trainer__max_time": "01:00:00:00",
        "checkpoint_every": 4,
        "resume": tmp_path / "run/last.ckpt",
        "output": tmp_path / "next",
    }
    assert probed(5, **changes) == 0
    assert_same(weights(tmp_path / "next"), weights(tmp_path / "whole"))


def strip(checkpoint):
    """A checkpoint from before runs recorded their settings."""
    saved = torch.load(checkpoint, weights_only=True)
    del saved[SETTINGS], saved[MACHINE]
    torch.save(saved, checkpoint)


def test_a_checkpoint_without_settings_goes_on(arguments, tmp_path):
    assert main(arguments(trainer__max_steps=4, output=tmp_path / "whole")) == 0
    assert main(arguments(trainer__max_steps=2)) == 0
    strip(tmp_path / "run/last.ckpt")
    assert main(arguments(trainer__max_steps=4)) == 0
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert main(arguments(trainer__max_steps=5, data__batch_size=5)) == EXIT_ERROR


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__variant": "tune-vanilla"}, f"is of {VARIANT}, not of tune-vanilla"),
        ({"model__average_decay": 0.9}, "has no average of the weights"),
    ],
)
def test_a_checkpoint_without_settings_that_does_not_fit(
    arguments, tmp_path, capsys, change, message
):
    assert main(arguments(trainer__max_steps=1)) == 0
    strip(tmp_path / "run/last.ckpt")
    assert main(arguments(**change)) == EXIT_ERROR
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limit", "raised"),
    [({"trainer__max_steps": 2}, 3), ({"trainer__max_steps": -1, "trainer__max_epochs": 1}, 2)],
)
def test_a_run_that_has_reached_its_limit_says_so(arguments, capsys, limit, raised):
    assert main(arguments(**limit)) == 0
    assert "nothing to do" not in capsys.readouterr().out
    assert main(arguments(**limit)) == 0
    option, value = list(limit.items())[-1]
    wanted = f"nothing to do after {2 if value == 2 else 3} steps; raise --trainer.{option[9:]} "
    assert f"{wanted}({value})" in capsys.readouterr().out
    assert main(arguments(**{**limit, option: raised})) == 0
    assert "nothing to do" not in capsys.readouterr().out


def test_another_number_of_threads_is_told(arguments, tmp_path, capsys):
    """Another number of threads changes the last bits of sums."""
    assert main(arguments(trainer__max_steps=1)) == 0
    assert main(arguments(trainer__max_steps=2)) == 0
    assert "the last bits" not in capsys.readouterr().err
    saved = torch.load(tmp_path / "run/last.ckpt", weights_only=True)
    threads = torch.get_num_threads()
    assert saved[MACHINE]["threads"] == threads
    saved[MACHINE]["threads"] += 1
    torch.save(saved, tmp_path / "run/last.ckpt")
    assert main(arguments(trainer__max_steps=3)) == 0
    told = f"last.ckpt: was written with threads {threads + 1}, not {threads}; the last bits"
    assert told in capsys.readouterr().err


# --- On the way ---


def test_by_folder_a_pair_is_told_from_its_folder_alone(arguments, audio, tmp_path):
    """Random weights choose among 15 other views of a batch, or 3 of a folder's two tracks."""
    run = {
        "data__batch_size": 8,
        "data__pairs_per_epoch": 8,
        "data__neighbours": 2,
        "trainer__max_steps": 1,
    }
    for kind, others in (("audio", 15), ("audio_by_folder", 3)):
        stores = {"data__audio": "[]", f"data__{kind}": audio}
        assert main(arguments(**run, **stores, output=tmp_path / kind)) == 0
        assert losses(tmp_path / kind)[0] == pytest.approx(np.log(others), abs=0.2)


def test_the_bar_counts_windows(arguments, capsys):
    assert main(arguments()) == 0
    shown = re.findall(
        r"([\d.]+)(s/step|step/s), loss [^,]*, ([\d.]+) windows/s", capsys.readouterr().err
    )
    rate, unit, windows = shown[-1]
    steps_per_second = float(rate) if unit == "step/s" else 1 / float(rate)
    assert float(windows) / steps_per_second == pytest.approx(2 * 4, rel=0.1)


def test_without_a_standard_error(probed, monkeypatch):
    """As in programs with windows."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        assert probed(2) == 0


def test_nothing_that_is_called_is_to_go(arguments, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "all")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        assert main(arguments(trainer__max_steps=1)) == 0


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(
    arguments, tmp_path, monkeypatch, capsys
):
    step = CLMR.training_step

    def broken(self, crops):
        if self.global_step == 3:
            self.projector[0].weight.data.fill_(torch.nan)
        return step(self, crops)

    monkeypatch.setattr(CLMR, "training_step", broken)
    assert main(arguments()) == 2
    assert "the loss became nan at step 3" in capsys.readouterr().err
    state = torch.load(tmp_path / "run/last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())


def test_broken_off_while_the_checkpoint_is_written(arguments, tmp_path, monkeypatch):
    """A checkpoint is never left incomplete."""
    assert main(arguments(output=tmp_path / "whole")) == 0
    save = Trainer.save_checkpoint

    def broken(self, path, *args, **options):
        save(self, path, *args, **options)
        if self.global_step == 4:
            os.truncate(path, 1000)
            raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", broken)
        assert main(arguments()) == 2
    assert main(arguments()) == 0
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.mark.parametrize("size", [5, 5000])
def test_a_damaged_checkpoint_is_named(arguments, tmp_path, capsys, size):
    assert main(arguments(trainer__max_steps=2)) == 0
    path = tmp_path / "run/last.ckpt"
    os.truncate(path, size)
    assert main(arguments()) == 2
    assert "last.ckpt: damaged or no checkpoint" in capsys.readouterr().err
    assert main(arguments(resume="never")) == 0


@pytest.mark.parametrize("setting", ["data.batch_size", "model.variant", "trainer", "probe"])
def test_settings_left_empty_are_named(audio, tmp_path, capsys, setting):
    config = {
        "data": {"audio": [str(audio)], "batch_size": 4, "crop_samples": 2187},
        "model": {"variant": VARIANT},
        "trainer": {"max_steps": 1},
        "probe": {"folder": None},
        "output": str(tmp_path / "run"),
    }
    *sections, name = setting.split(".")
    (config[sections[0]] if sections else config)[name] = None
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(config))
    assert main(["pretrain", "--config", str(tmp_path / "x.yaml")]) == 2
    assert setting in capsys.readouterr().err


# --- Mistakes ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__audio": '["nowhere"]'}, "nowhere: no audio store"),
        ({"data__batch_size": 9}, "a batch of 9 pairs needs as many tracks, and there are 8"),
        ({"data__crop_samples": 99_999}, "none of 8 tracks has 49999 samples"),
        ({"data__crop_samples": 2188}, "multiple of 81"),
        ({"model__variant": "tune-tail5"}, "did you mean tune-tail"),
        ({"output": "/dev/null/run"}, "/dev/null/run: cannot be written"),
        ({"resume": "nothing.ckpt"}, "nothing.ckpt: no such checkpoint"),
        ({"probe.folder": "nowhere"}, "nowhere: no such folder of labelled clips"),
        ({"data__batch_size": 0}, "batch_size must be at least 2, not 0"),
        ({"data__batch_size": 1}, "batch_size must be at least 2, not 1"),
        ({"data__crop_samples": 0}, "crop_samples must be at least 1, not 0"),
        ({"data__pairs_per_epoch": 0}, "pairs_per_epoch must be at least 1, not 0"),
        ({"data__neighbours": -1}, "neighbours must be at least 1, not -1"),
        ({"data__workers": -1}, "workers must be at least 0, not -1"),
        ({"data__seed": -1}, "seed must be at least 0, not -1"),
        ({"data__shortest_seconds": -1}, "shortest_seconds must be at least 0, not -1"),
        ({"model__projection_size": 0}, "projection_size must be at least 1, not 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, not 0"),
        ({"probe.every_n_steps": 0}, "every_n_steps must be at least 1, not 0"),
        ({"probe.max_clips": 0}, "max_clips must be at least 1, not 0"),
        ({"trainer__max_time": "soon"}, "not a valid duration"),
        ({"trainer__limit_train_batches": 2}, "give --data.pairs_per_epoch instead"),
    ],
)
def test_mistakes_end_before_any_work(arguments, capsys, changes, message):
    assert main(arguments(**changes)) == 2
    said = capsys.readouterr().err
    (error,) = [line for line in said.splitlines() if line.startswith("hear-tune: error")]
    assert message in error
    assert "Traceback" not in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(arguments, capsys):
    assert main(arguments(trainer__accelerator="gpu")) == EXIT_ERROR
    assert "--trainer.accelerator gpu; cpu is always there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_memory_that_is_too_small(arguments, capsys, monkeypatch, error):
    def too_much(*_):
        raise error

    monkeypatch.setattr(CLMR, "training_step", too_much)
    assert main(arguments()) == EXIT_ERROR
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hear-tune: error: out of memory: give a --data.batch_size below 4")


def test_options_are_not_taken_by_their_beginnings(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main([*arguments(), "--trainer.max_step", "1"])
    assert end.value.code == EXIT_ERROR
    assert "unrecognized arguments: --trainer.max_step" in capsys.readouterr().err


def test_two_runs_cannot_train_in_one_folder(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_LOCK_SECONDS", 0.1)
    (tmp_path / "run").mkdir(exist_ok=True)
    with FileLock(tmp_path / "run/lock"):
        assert main(arguments()) == EXIT_ERROR
    assert "run: another process is training there" in capsys.readouterr().err


def test_a_malicious_checkpoint_is_not_run(arguments, tmp_path, capsys):
    class Exploit:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'canary'}",)

    torch.save({"state_dict": Exploit()}, tmp_path / "evil.ckpt")
    assert main(arguments(resume=tmp_path / "evil.ckpt")) == 2
    assert "no checkpoint of a training run" in capsys.readouterr().err
    assert not (tmp_path / "canary").exists()
    with pytest.raises(AttributeError):  # in other hands it is
        torch.load(tmp_path / "evil.ckpt", weights_only=False)["state_dict"].keys()
    assert (tmp_path / "canary").exists()


# --- Parts ---


def test_lars_on_a_known_step():
    matrix = torch.nn.Parameter(torch.full((2, 2), 3.0))
    bias = torch.nn.Parameter(torch.full((2,), 3.0))
    optimizer = LARS([matrix, bias], lr=0.5, momentum=0.9, weight_decay=0.0, trust=0.1)
    for parameter in (matrix, bias):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    # trust * |w| / |g| = 0.1 * 6 / 2 = 0.3 for the matrix, 1 for the bias
    torch.testing.assert_close(matrix.data, torch.full((2, 2), 3 - 0.5 * 0.3))
    torch.testing.assert_close(bias.data, torch.full((2,), 3 - 0.5))
    before = bias.data.clone()
    for parameter in (matrix, bias):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(bias.data, before - 0.5 * 0.9)


def test_lars_decays_weights_within_its_scale():
    """As in SimCLR's code: the norm of gradient plus decay, not the sum of their norms."""
    matrix = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    optimizer = LARS([matrix], lr=2.0, weight_decay=0.75, trust=0.1)
    matrix.grad = torch.tensor([[4.0, -3.0]])
    optimizer.step()
    # g + 0.75 w = (6.25, 0); scaled by 0.1 * 5 / 6.25 = 0.08 it is (0.5, 0)
    torch.testing.assert_close(matrix.data, torch.tensor([[3.0 - 2 * 0.5, 4.0]]))


@pytest.mark.slow
def test_two_processes_train_one_model(arguments, tmp_path):
    """DDP on two CPU processes: the same pairs, and so nearly the same curve, as one.

    Nearly, because each process normalises its own half of a batch: torch has no synchronised
    batch normalisation on CPUs. Without augmentation, which each process draws for itself.
    """
    options = {
        "trainer.max_steps": 8,
        "model.augmentation": "hear_tune.pretrain.augment.AugmentationChain",
        "model.augmentation.transforms": "[]",
    }
    assert main(arguments(**options, data__batch_size=8)) == 0
    ddp = {"trainer.devices": 2, "trainer.strategy": "ddp", "output": tmp_path / "ddp"}
    command = [sys.executable, "-m", "hear_tune"]
    command += arguments(**options, **ddp, data__batch_size=4)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with safe_open(tmp_path / "ddp/last.safetensors", "pt") as file:
        assert json.loads(file.metadata()["hear_tune"])["training"]["pairs"] == 64
    one, two = losses(tmp_path / "run"), losses(tmp_path / "ddp")
    assert sorted(one) == sorted(two) == list(range(8))
    assert np.abs([one[step] - two[step] for step in one]).max() < 0.2
    assert np.corrcoef(list(one.values()), list(two.values()))[0, 1] > 0.8
