"""Training runs: exact resumption, interruptions, clear errors before long work."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

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
from hear_tune.cli import EXIT_ERROR, main
from hear_tune.pretrain import cli
from hear_tune.pretrain.audio_store import build_store
from hear_tune.pretrain.callbacks import probe_accuracy
from hear_tune.pretrain.clmr import CLMR
from hear_tune.pretrain.lars import LARS

RATE = 22_050
VARIANT = "tune-vanilla-small"


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    for number in range(8):
        sound = 0.5 * noise(30_000, number) + tone(200 * (number + 1), 30_000)
        soundfile.write(folder / f"{number}.wav", sound, RATE)
    build_store([folder], folder / "store", workers=1)
    return folder / "store"


@pytest.fixture
def arguments(audio, tmp_path):
    """A run of a few seconds."""
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
    """Loss by step, from the logs of all the run's sessions, the newest first."""
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
    for steps in (3, 4, 7):  # in the middle, and at the end, of an epoch of three steps
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
    assert "is a tune-vanilla-small: give that variant" in capsys.readouterr().err
    del options["model.weights"]  # they are in the checkpoint from which the run goes on
    assert main(arguments(trainer__max_steps=2, **still, **options)) == 0
    resumed = hear_tune.load_checkpoint(tmp_path / "next/last.safetensors").training_record
    assert (resumed["steps"], resumed["before"]) == (2, records[0])


def test_a_run_with_an_average_goes_on_with_one(arguments, capsys):
    assert main(arguments(trainer__max_steps=2, **{"model.average_decay": 0.9})) == 0
    assert main(arguments(trainer__max_steps=3)) == 2
    assert "has an average of the weights" in capsys.readouterr().err


def test_a_seed_decides_everything(arguments, tmp_path):
    assert main(arguments(trainer__max_steps=2)) == 0
    assert main(arguments(trainer__max_steps=2, output=tmp_path / "same")) == 0
    assert main(arguments(trainer__max_steps=2, output=tmp_path / "other", data__seed=1)) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "same")
    assert losses(tmp_path / "run")[0] != losses(tmp_path / "other")[0]


def test_exported_weights_say_how_they_came_about(arguments, tmp_path):
    assert main(arguments(trainer__max_steps=2)) == 0
    record = hear_tune.load_checkpoint(tmp_path / "run/last.safetensors").training_record
    assert record["method"] == "CLMR"
    assert (record["steps"], record["pairs"], record["pieces"]) == (2, 8, 8)
    model = hear_tune.load_model(tmp_path / "run/last.safetensors")
    assert hear_tune.embed_array(noise(5000), RATE, model).vectors.shape == (1, 512)


def test_training_learns(arguments, tmp_path):
    """Eight tracks that differ as clearly as can be: the loss falls below that of chance."""
    options = {"model.optimizer": "torch.optim.Adam", "model.optimizer.lr": 0.003}
    assert main(arguments(trainer__max_steps=150, checkpoint_every=200, **options)) == 0
    curve = [loss for _, loss in sorted(losses(tmp_path / "run").items())]
    assert np.mean(curve[-30:]) < np.mean(curve[:10]) - 0.15


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_precision_and_accumulation(arguments, tmp_path, precision):
    options = {"trainer.precision": precision, "trainer.accumulate_grad_batches": 2}
    assert main(arguments(trainer__max_steps=3, data__pairs_per_epoch=24, **options)) == 0
    assert all(np.isfinite(loss) for loss in losses(tmp_path / "run").values())


def test_indicators_of_collapse_are_logged(arguments, tmp_path):
    assert main(arguments(trainer__max_steps=2)) == 0
    (log,) = (tmp_path / "run").glob("logs/version_0/metrics.csv")
    row = next(csv.DictReader(log.open()))
    assert 1 <= float(row["train/effective_rank"]) <= 4
    assert 0 < float(row["train/embedding_spread"]) < 1
    assert 0 <= float(row["train/contrastive_accuracy"]) <= 1
    assert list((tmp_path / "run").glob("logs/version_0/events.out.tfevents*"))


def test_online_probe_and_best_weights(arguments, tmp_path, capsys):
    for label, frequency in (("low", 200), ("high", 3000)):
        (tmp_path / "labelled" / label).mkdir(parents=True)
        for number in range(6):
            sound = tone(frequency + 9 * number, 9_000) + 0.1 * noise(9_000, number)
            soundfile.write(tmp_path / "labelled" / label / f"{number}.wav", sound, RATE)
    options = {"probe.folder": tmp_path / "labelled", "probe.every_n_steps": 2}
    assert main(arguments(trainer__max_steps=4, **options)) == 0
    output = capsys.readouterr()
    assert "step 0: probe/accuracy" in output.out + output.err
    (log,) = (tmp_path / "run").glob("logs/version_0/metrics.csv")
    scores = [row["probe/accuracy"] for row in csv.DictReader(log.open()) if row["probe/accuracy"]]
    assert len(scores) == 3
    assert weights(tmp_path / "run", "best")


def test_probe_accuracy_of_known_vectors():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 30)
    vectors = rng.normal(size=(90, 5))
    assert probe_accuracy(vectors, labels) < 0.6
    vectors[:, :3] += 100 * np.repeat(np.eye(3), 30, axis=0)
    assert probe_accuracy(vectors, labels) == 1


# --- Interruptions ---


def start(arguments):
    command = [sys.executable, "-m", "hear_tune", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_stopped_from_outside(arguments, tmp_path, kind):
    """Ctrl-C loses nothing, kill -9 what came after the last checkpoint; both resume exactly."""
    process = start(arguments(trainer__max_steps=100_000))
    wait_for(tmp_path / "run/last.ckpt", process)
    time.sleep(1)
    process.send_signal(kind)
    output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output
    if kind == signal.SIGINT:
        assert process.returncode == 130
    done = torch.load(tmp_path / "run/last.ckpt", weights_only=True)["global_step"]
    assert done >= 2
    assert main(arguments(trainer__max_steps=done + 2)) == 0
    assert main(arguments(trainer__max_steps=done + 2, output=tmp_path / "whole")) == 0
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_by_folder_a_pair_is_told_from_its_folder_alone(arguments, tmp_path):
    """Random weights guess among 15 other views of a batch, or 3 of a folder's two tracks."""
    for number in range(8):
        path = tmp_path / f"music/{number // 2}/{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.5 * noise(30_000, number), RATE)
    build_store([tmp_path / "music"], tmp_path / "store", workers=1)
    store = json.dumps([str(tmp_path / "store")])
    run = {
        "data__batch_size": 8,
        "data__pairs_per_epoch": 8,
        "data__neighbours": 2,
        "trainer__max_steps": 1,
    }
    for kind, others in (("audio", 15), ("audio_by_folder", 3)):
        stores = {"data__audio": "[]", f"data__{kind}": store}
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
    """It is not there by half, whatever folder lies between."""
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
    ],
)
def test_mistakes_end_before_any_work(arguments, capsys, changes, message):
    assert main(arguments(**changes)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_two_runs_cannot_train_in_one_folder(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_LOCK_SECONDS", 0.1)
    (tmp_path / "run").mkdir(exist_ok=True)
    with FileLock(tmp_path / "run/lock"):
        assert main(arguments()) == EXIT_ERROR
    assert "run: another process is training there" in capsys.readouterr().err


def test_a_checkpoint_of_another_variant_is_refused(arguments, capsys):
    assert main(arguments(trainer__max_steps=2)) == 0
    assert main(arguments(model__variant="tune-vanilla", data__crop_samples=2187)) == 2
    assert f"is of {VARIANT}, not of tune-vanilla" in capsys.readouterr().err


def test_a_malicious_checkpoint_is_not_run(arguments, tmp_path, capsys):
    class Exploit:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'canary'}",)

    torch.save({"state_dict": Exploit()}, tmp_path / "evil.ckpt")
    assert main(arguments(resume=tmp_path / "evil.ckpt")) == 2
    assert "no checkpoint of a training run" in capsys.readouterr().err
    assert not (tmp_path / "canary").exists()


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
    process = start(arguments(**options, **ddp, data__batch_size=4))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    with safe_open(tmp_path / "ddp/last.safetensors", "pt") as file:
        assert json.loads(file.metadata()["hear_tune"])["training"]["pairs"] == 64
    one, two = losses(tmp_path / "run"), losses(tmp_path / "ddp")
    assert sorted(one) == sorted(two) == list(range(8))
    assert np.abs([one[step] - two[step] for step in one]).max() < 0.2
    assert np.corrcoef(list(one.values()), list(two.values()))[0, 1] > 0.8
