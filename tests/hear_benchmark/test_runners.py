"""HEAR tasks: making them, and scoring them by heareval's own runners."""

import dataclasses
import importlib.util
import json
import pickle
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, noise, tone

import hear_tune
from hear_tune import baselines
from hear_tune.cli import main
from hear_tune.datasets.task import Clip, Task, TaskError
from hear_tune.networks.config import SAMPLE_RATE_HZ
from hear_tune.probe.metrics import score

pytest.importorskip("click", reason='needs pip install "hear-tune[hear]"')
pytest.importorskip("pandas", reason='needs pip install "hear-tune[hear]"')

from hear_tune.hear_benchmark import results
from hear_tune.hear_benchmark.make_task import folder_name, make_task
from hear_tune.hear_benchmark.rates import read_audio, resample_task

needs_heareval = pytest.mark.skipif(
    importlib.util.find_spec("heareval") is None,
    reason='needs pip install "hear-tune[hear]" and pip install --no-deps heareval==2021.1.3',
)
SPLITS = ("train", "valid", "test")
QUICK = ["--grid", "faster", "--grid-points", "1"]
SMALL_TASK = "spoken_digit-1.0.9-small"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in: heareval writes logs into the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkpoints(tmp_path):
    """Two quick encoders that differ in their weights alone."""
    config = hear_tune.TuneConfig(2, contractive=2, expansive=2, tail=3, embedding_size=8)
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        (tmp_path / str(seed)).mkdir()
        paths.append(tmp_path / str(seed) / "small.safetensors")
        hear_tune.save_checkpoint(hear_tune.build_encoder(config).eval(), paths[-1])
    return paths


def labelled(folder, labels_of, splits=SPLITS, kind="multiclass", seconds=0.5):
    """A task of tones whose pitch is told by the first label."""
    classes = sorted({label for labels in labels_of for label in labels})
    clips = []
    for split in splits:
        for index, labels in enumerate(labels_of):
            path = folder / split / f"{index}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            frequency = 220 * (1 + classes.index(labels[0])) if labels else 100
            soundfile.write(path, tone(frequency, round(seconds * SAMPLE_RATE_HZ)), SAMPLE_RATE_HZ)
            clips.append(Clip(path, split, tuple(labels)))
    return Task("tones", kind, tuple(classes), tuple(clips))


def read_json(path):
    return json.loads(Path(path).read_text())


def scores_of(embeddings_dir):
    return {(r["model"], r["task"]): r["scores"] for r in results.collect(Path(embeddings_dir))}


# Baselines as a HEAR module


@pytest.mark.parametrize("name", sorted(baselines.BASELINES))
def test_baselines_pass_the_checks_of_the_validator(name):
    model = baselines.load_model(name=name)
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in (16_000, 22_050, 32_000, 44_100, 48_000)
    clips = torch.from_numpy(np.stack([noise(43_659, seed) for seed in range(2)]))
    scenes = baselines.get_scene_embeddings(clips, model)
    assert scenes.shape == (2, model.scene_embedding_size)
    assert scenes.dtype == torch.float32
    embeddings, timestamps = baselines.get_timestamp_embeddings(clips, model)
    assert embeddings.shape == (*timestamps.shape, model.timestamp_embedding_size)
    assert embeddings.dtype == torch.float32
    spacing = timestamps.diff(dim=1)
    assert spacing.max() <= 50
    assert (spacing - spacing.mean()).abs().max() <= 1
    assert timestamps.max() <= 1000 * 43_659 / SAMPLE_RATE_HZ
    assert not any(module.training for module in model.modules())


def test_statistics_of_a_short_sound_are_not_of_silence():
    model = baselines.load_model(name="mfcc")
    sound = torch.from_numpy(noise(10_000))[None]
    long = sound.repeat(1, 6)[:, : model.window_samples]
    short, repeated = (baselines.get_scene_embeddings(clip, model) for clip in (sound, long))
    torch.testing.assert_close(short, repeated)


def test_baselines_refuse_what_they_cannot_load():
    with pytest.raises(ValueError, match=r"no baseline 'piano': one of .*mfcc"):
        baselines.load_model(name="piano")
    with pytest.raises(ValueError, match="no checkpoint"):
        baselines.load_model("weights.pt", name="mfcc")


# Making tasks


def test_a_task_folder_as_heareval_reads_it(tmp_path):
    task = labelled(tmp_path / "audio", [["b", "a"], [], ["c, d"]], kind="multilabel")
    assert make_task(task, tmp_path / "tasks", seconds=0.6) == {}
    folder = tmp_path / "tasks" / folder_name(task)
    metadata = read_json(folder / "task_metadata.json")
    assert metadata["embedding_type"] == "scene"
    assert metadata["prediction_type"] == "multilabel"
    assert metadata["split_mode"] == "trainvaltest"
    assert metadata["splits"] == list(SPLITS)
    assert metadata["evaluation"] == ["aucroc", "mAP"]
    assert metadata["sample_duration"] == 0.6
    rows = (folder / "labelvocabulary.csv").read_text().splitlines()
    assert rows == ["idx,label", "0,a", "1,b", '2,"c, d"']
    for split in SPLITS:
        files = read_json(folder / f"{split}.json")
        assert list(files.values()) == [["b", "a"], [], ["c, d"]]
        for name in files:
            audio, rate = soundfile.read(folder / str(SAMPLE_RATE_HZ) / split / name)
            assert (len(audio), rate) == (13_230, SAMPLE_RATE_HZ)
            assert (audio[11_025:] == 0).all()
            assert audio[:11_025].any()


def test_clips_keep_their_lengths_unless_told(tmp_path):
    task = labelled(tmp_path / "audio", [["a"], ["b"]])
    make_task(task, tmp_path, rate=16_000)
    folder = tmp_path / folder_name(task)
    assert read_json(folder / "task_metadata.json")["sample_duration"] is None
    files = list((folder / "16000" / "train").iterdir())
    assert [soundfile.info(file).frames for file in files] == [8_000, 8_000]


def test_folds(tmp_path):
    task = labelled(tmp_path / "audio", [["a"], ["b"]], splits=("fold01", "fold00", "fold02"))
    make_task(task, tmp_path)
    metadata = read_json(tmp_path / folder_name(task) / "task_metadata.json")
    assert metadata["split_mode"] == "presplit_kfold"
    assert metadata["splits"] == ["fold00", "fold01", "fold02"]


def test_groups_are_kept_for_the_views(tmp_path):
    task = labelled(tmp_path / "audio", [["a"], ["b"]])
    clips = tuple(
        dataclasses.replace(clip, group="ann" if clip.labels == ("a",) else "")
        for clip in task.clips
    )
    make_task(dataclasses.replace(task, clips=clips), tmp_path)
    metadata = read_json(tmp_path / folder_name(task) / "task_metadata.json")
    assert metadata["groups"] == {split: {"000000-0.wav": "ann"} for split in SPLITS}


def test_bad_clips_are_left_out_and_named(tmp_path):
    task = labelled(tmp_path / "audio", [["a"], ["b"]])
    bad, missing = (clip.path for clip in task.of("test")[:1] + task.of("train")[:1])
    bad.write_bytes(b"no audio")
    missing.unlink()
    failed = make_task(task, tmp_path)
    assert failed.keys() == {str(bad), str(missing)}
    assert [*read_json(tmp_path / folder_name(task) / "test.json").values()] == [["b"]]


def test_an_interrupted_task_goes_on(tmp_path, monkeypatch):
    from hear_tune.hear_benchmark import make_task as module

    task = labelled(tmp_path / "audio", [["a"], ["b"]])
    first = interrupted_after(monkeypatch, 3, task, tmp_path)
    assert not (tmp_path / folder_name(task)).exists()
    read, rest = module.read_audio, []

    def counted(path, rate):
        rest.append(path)
        return read(path, rate)

    monkeypatch.setattr(module, "read_audio", counted)
    assert make_task(task, tmp_path) == {}
    assert [*first, *rest] == [clip.path for clip in task.clips]
    with pytest.raises(FileExistsError, match="already exists"):
        make_task(task, tmp_path)


def test_a_job_of_another_rate_starts_anew(tmp_path, monkeypatch):
    task = labelled(tmp_path / "audio", [["a"], ["b"]])
    folder = tmp_path / folder_name(task)
    interrupted_after(monkeypatch, 3, task, tmp_path)
    make_task(task, tmp_path, rate=48_000)
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["48000"]


def test_a_job_of_other_audio_starts_anew(tmp_path, monkeypatch):
    task = labelled(tmp_path / "audio", [["a"], ["b"]])
    interrupted_after(monkeypatch, 3, task, tmp_path)
    replaced = task.of("train")[0].path
    soundfile.write(replaced, tone(880, 11_025), SAMPLE_RATE_HZ)
    make_task(task, tmp_path)
    folder = tmp_path / folder_name(task) / str(SAMPLE_RATE_HZ)
    made = read_audio(folder / "train" / "000000-0.wav", SAMPLE_RATE_HZ)
    np.testing.assert_allclose(made, tone(880, 11_025), atol=1e-3)


def interrupted_after(monkeypatch, count, task, tasks_dir):
    """Make a task until a number of files is read; return their paths."""
    from hear_tune.hear_benchmark import make_task as module

    read, paths = module.read_audio, []

    def read_some(path, rate):
        if len(paths) == count:
            raise KeyboardInterrupt
        paths.append(path)
        return read(path, rate)

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_audio", read_some)
        with pytest.raises(KeyboardInterrupt):
            make_task(task, tasks_dir)
    return paths


def test_audio_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    from hear_tune.hear_benchmark import rates

    def stop(path, *_, **__):
        path.write_bytes(b"RIFF")
        raise KeyboardInterrupt

    monkeypatch.setattr(rates.soundfile, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        rates.write_audio(tmp_path / "a.wav", tone(220, 100), SAMPLE_RATE_HZ)
    assert list(tmp_path.iterdir()) == []


def test_links_of_two_rates_keep_their_length_and_pitch(tmp_path):
    content = b""
    for rate in (16_000, 48_000):
        time = np.arange(rate) / rate
        soundfile.write(tmp_path / "x.ogg", 0.5 * np.sin(2 * np.pi * 440 * time), rate)
        content += (tmp_path / "x.ogg").read_bytes()
    (tmp_path / "x.ogg").write_bytes(content)
    samples = read_audio(tmp_path / "x.ogg", 32_000)
    assert len(samples) == pytest.approx(64_000, abs=2)
    for part in (samples[2_000:30_000], samples[34_000:62_000]):
        spectrum = abs(np.fft.rfft(part * np.hanning(len(part))))
        assert spectrum.argmax() * 32_000 / len(part) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("label", ["NA", "01", "1.50"])
def test_labels_that_heareval_would_misread_are_refused(tmp_path, label):
    task = labelled(tmp_path / "audio", [[label], ["2"]])
    with pytest.raises(TaskError, match="to heareval: give it another name"):
        make_task(task, tmp_path)


def test_what_heareval_cannot_score_is_refused(tmp_path):
    with pytest.raises(TaskError, match="no regression"):
        make_task(Task("mood", "regression", ("valence",), ()), tmp_path)
    task = labelled(tmp_path / "audio", [["a"], ["b"]], splits=("train", "test"))
    with pytest.raises(TaskError, match="train, valid and test"):
        make_task(task, tmp_path)


# Rates


def test_resampling_once_and_whole(tmp_path, monkeypatch):
    from hear_tune.hear_benchmark import rates

    task = labelled(tmp_path / "audio", [["a"], ["b"]])
    make_task(task, tmp_path, rate=48_000)
    folder = tmp_path / folder_name(task)
    write = rates.write_audio

    def write_some(path, samples, rate):
        if "valid" in path.parts:
            raise KeyboardInterrupt
        write(path, samples, rate)

    with monkeypatch.context() as patch:
        patch.setattr(rates, "write_audio", write_some)
        with pytest.raises(KeyboardInterrupt):
            resample_task(folder, SAMPLE_RATE_HZ)
    assert not (folder / str(SAMPLE_RATE_HZ)).exists()

    resample_task(folder, SAMPLE_RATE_HZ)
    for split in SPLITS:
        for index, name in enumerate(read_json(folder / f"{split}.json")):
            audio, rate = soundfile.read(folder / str(SAMPLE_RATE_HZ) / split / name)
            assert (len(audio), rate) == (11_025, SAMPLE_RATE_HZ)
            inner = slice(500, -500)
            expected = tone(220 * (1 + index), 11_025)
            np.testing.assert_allclose(audio[inner], expected[inner], atol=2e-3)
    (folder / "48000").rename(folder / "gone")
    resample_task(folder, SAMPLE_RATE_HZ)  # there is nothing to do
    with pytest.raises(FileNotFoundError, match="no such file"):
        resample_task(_without(folder, "test"), 16_000)


def _without(folder, split):
    for path in (folder / str(SAMPLE_RATE_HZ) / split).iterdir():
        path.unlink()
    return folder


# The table


def test_table_puts_the_leaderboard_beside_our_scores(tmp_path):
    for number, points in (("1", 0.25), ("2", 0.5)):
        folder = tmp_path / number / "module" / "nsynth_pitch-v2.2.3-5h"
        folder.mkdir(parents=True)
        model = {"folder": number, "name": "TUNE", "identity": ""}
        (tmp_path / number / "model.json").write_text(json.dumps(model))
        metadata = {"task_name": "nsynth_pitch", "mode": "5h", "evaluation": ["pitch_acc"]}
        (folder / "task_metadata.json").write_text(json.dumps(metadata))
        tested = {"test": {"test_loss": 1.0, "test_pitch_acc": points}, "hparams": {"lr": 1}}
        (folder / "test.predicted-scores.json").write_text(json.dumps(tested))
        done = {"embedding_size": 512, "grid_points": 8}
        (folder / "prediction-done.json").write_text(json.dumps(done))
    assert results.table(results.collect(tmp_path)).splitlines() == [
        "| task | metric | TUNE (1) | TUNE (2) | PaSST base | OpenL3 | CREPE | GURA fuse cat |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| nsynth_pitch 5h | pitch_acc | 0.250 | 0.500 | 0.256 | 0.560 | 0.870 | 0.846 |",
    ]


def test_scores_of_other_data_than_the_leaderboard_s_are_marked(tmp_path):
    folder = tmp_path / "1" / "module" / "mridangam-tonic-1.0-full"
    folder.mkdir(parents=True)
    (tmp_path / "1" / "model.json").write_text('{"folder": "1", "name": "TUNE", "identity": ""}')
    metadata = {"task_name": "mridangam-tonic", "mode": "full", "evaluation": ["top1_acc"]}
    (folder / "task_metadata.json").write_text(json.dumps(metadata))
    tested = {"test": {"test_loss": 1.0, "test_top1_acc": 0.5}}
    (folder / "test.predicted-scores.json").write_text(json.dumps(tested))
    (folder / "prediction-done.json").write_text('{"embedding_size": 512, "grid_points": 8}')
    row = results.table(results.collect(tmp_path)).splitlines()[-1]
    assert row == "| mridangam-tonic | top1_acc | 0.500 | ~0.819 | ~0.937 | ~0.824 | ~0.923 |"


def test_make_task_and_table_commands(here, capsys):
    table_of_noise(here)
    assert main(["hear", "make-task", "labelled", "--root", "sounds.csv"]) == 0
    assert "sounds-1.0-full: 6 clips" in capsys.readouterr().out
    assert read_json("tasks/sounds-1.0-full/test.json")["000001-test1.wav"] == ["b"]
    assert main(["hear", "table", "nowhere"]) == 2
    assert "no scores" in capsys.readouterr().err


def test_make_task_command_checks_the_task(here, capsys):
    table_of_noise(here)
    labels = (here / "sounds.csv").read_text()
    shutil.copy(here / "sounds" / "train0.wav", here / "sounds" / "test0.wav")
    command = ["hear", "make-task", "labelled", "--root", "sounds.csv"]
    assert main(command) == 2
    assert "the same file in two splits" in capsys.readouterr().err
    assert not (here / "tasks").exists()

    table_of_noise(here)
    (here / "sounds.csv").write_text(labels.replace("valid1.wav,b", "valid1.wav,c"))
    with (here / "sounds.csv").open("a") as file:
        file.write("\nsounds/test2.wav,c,test")
    soundfile.write(here / "sounds" / "test2.wav", noise(2_000, 99), SAMPLE_RATE_HZ)
    assert main(command) == 0
    expected = "sounds: in the valid set, but never in the training set: c"
    assert expected in capsys.readouterr().err


def table_of_noise(here):
    """Write two different sounds per split, a and b, and their sounds.csv."""
    (here / "sounds").mkdir(exist_ok=True)
    rows = ["path,label,split"]
    for number, (split, i) in enumerate((split, i) for split in SPLITS for i in (0, 1)):
        path = here / "sounds" / f"{split}{i}.wav"
        soundfile.write(path, noise(2_000, number), SAMPLE_RATE_HZ)
        rows.append(f"{path.relative_to(here)},{'ab'[i]},{split}")
    (here / "sounds.csv").write_text("\n".join(rows))


def test_magnatagatune_as_a_task(here):
    program = str(ROOT / "recipes" / "clmr" / "made_up.py")
    subprocess.run([sys.executable, program, "data", "data/magnatagatune"], check=True)
    assert main(["hear", "make-task", "magnatagatune"]) == 0
    folder = here / "tasks" / "magnatagatune-1.0-full"
    metadata = read_json(folder / "task_metadata.json")
    assert metadata["sample_duration"] == 29.0
    assert metadata["split_mode"] == "trainvaltest"
    assert metadata["prediction_type"] == "multilabel"
    assert metadata["evaluation"] == ["aucroc", "mAP"]
    assert len((folder / "labelvocabulary.csv").read_text().splitlines()) == 51
    audio = next((folder / str(SAMPLE_RATE_HZ) / "test").iterdir())
    assert soundfile.info(audio).frames == 29 * SAMPLE_RATE_HZ


def test_splits_of_one_data_set_are_tasks_beside_each_other(here):
    for voice, speaker in enumerate(("ann", "bob", "cyd")):
        for digit in range(2):
            for number in (0, 5, 10):
                path = here / "data" / "fsdd" / "recordings" / f"{digit}_{speaker}_{number}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, noise(2_000, 100 * voice + number + digit), 8_000)
    assert main(["hear", "make-task", "fsdd-digit"]) == 0
    assert main(["hear", "make-task", "fsdd-digit", "--split", "speakers"]) == 0
    metadata = read_json(here / "tasks" / "fsdd-digit-1.0-speakers" / "task_metadata.json")
    assert metadata["mode"] == "speakers"
    assert metadata["splits"] == ["fold00", "fold01", "fold02"]
    official = read_json(here / "tasks" / "fsdd-digit-1.0-full" / "task_metadata.json")
    assert (official["mode"], official["split_mode"]) == ("full", "trainvaltest")


def test_strokes_are_as_long_as_in_hear(here):
    rows = ["file,label,tonic,fold"]
    for fold in range(3):
        for label in ("cha", "tha"):
            name = f"{label}{fold}.wav"
            (here / "data" / "mridangam").mkdir(parents=True, exist_ok=True)
            soundfile.write(here / "data" / "mridangam" / name, noise(2_000, fold), 8_000)
            rows.append(f"{name},{label},csh,fold{fold:02d}")
    (here / "data" / "mridangam" / "labels.csv").write_text("\n".join(rows))
    assert main(["hear", "make-task", "mridangam-stroke"]) == 0
    folder = here / "tasks" / "mridangam-stroke-1.0-full"
    assert read_json(folder / "task_metadata.json")["sample_duration"] == 0.81
    audio = next((folder / str(SAMPLE_RATE_HZ) / "fold00").iterdir())
    assert soundfile.info(audio).frames == round(0.81 * SAMPLE_RATE_HZ)


# heareval itself


@needs_heareval
def test_clips_are_embedded_once_and_probes_are_counted(here, checkpoints, capsys, monkeypatch):
    splits = [f"fold{number:02d}" for number in range(4)]
    task = labelled(here / "audio", [["a"], ["b"]], splits)  # each fold has the same two clips
    make_task(task, here / "tasks", seconds=0.5)
    make_task(task, here / "tasks", seconds=0.5, mode="again")
    heard = []
    embed = hear_tune.get_scene_embeddings

    def counted(audio, model):
        heard.extend(audio)
        return embed(audio, model)

    monkeypatch.setattr(hear_tune, "get_scene_embeddings", counted)
    run = ["hear", "run", "hear_tune", "--model", str(checkpoints[0]), *QUICK]
    assert main(run) == 0
    assert len(heard) == 2
    # one probe of the grid, and one for each of the other folds
    assert "tones-1.0-full: 100%" in (printed := capsys.readouterr().err)
    assert "4/4" in printed
    for split in splits:
        stored = [
            np.load(
                next(here.glob(f"embeddings/*/*/tones-1.0-{mode}/{split}/*-1.wav.embedding.npy"))
            )
            for mode in ("full", "again")
        ]
        np.testing.assert_array_equal(*stored)
        expected = embed(heard[1][None], hear_tune.load_model(checkpoints[0]))[0]
        np.testing.assert_allclose(stored[0], expected, rtol=1e-4, atol=1e-5)
    for mark in here.glob("embeddings/*/*/*/.done.embeddings"):  # as if interrupted
        mark.unlink()
    assert main(run) == 0
    assert len(heard) == 2


@needs_heareval
def test_models_of_different_weights_and_options_are_kept_apart(here, checkpoints, capsys):
    make_task(labelled(here / "audio", [["a"], ["b"]] * 4), here / "tasks")
    first, second = checkpoints
    runs = [
        [str(first)],
        [str(second)],
        [str(first), "--model-options", '{"layers": "tail.2"}', "--name", "another layer"],
    ]
    for model in runs:
        assert main(["hear", "run", "hear_tune", "--model", *model, *QUICK]) == 0
    found = results.collect(here / "embeddings")
    assert len({result["folder"] for result in found}) == 3
    assert {r["model"] for r in found} == {"hear_tune small.safetensors", "another layer"}
    assert all(set(r["scores"]) == {"top1_acc"} for r in found)
    matrices = {path.read_bytes() for path in here.glob("embeddings/*/*/*/test.embeddings.npy")}
    assert len(matrices) == 3
    assert not list(here.rglob("*.ckpt"))

    # what is done is not done again, and a name is kept
    times = {path: path.stat().st_mtime_ns for path in here.rglob("*.predictions.pkl")}
    for model in (runs[0], runs[2][:3]):
        assert main(["hear", "run", "hear_tune", "--model", *model, *QUICK]) == 0
    assert results.collect(here / "embeddings") == found
    assert times == {path: path.stat().st_mtime_ns for path in here.rglob("*.predictions.pkl")}
    capsys.readouterr()
    again = ["hear", "run", "hear_tune", "--model", *runs[0], "--grid-points", "2"]
    assert main(again) == 1
    assert "has scores of --grid-points 1" in capsys.readouterr().err


@needs_heareval
def test_a_failed_task_does_not_stop_the_others(here, checkpoints, capsys):
    task = labelled(here / "audio", [["a"], ["b"]] * 4)
    make_task(task, here / "tasks")
    broken = here / "tasks" / "a-broken-task"
    make_task(task, here / "tasks2")
    (here / "tasks2" / folder_name(task)).rename(broken)
    (broken / "valid.json").unlink()
    assert main(["hear", "run", "hear_tune", "--model", str(checkpoints[0]), *QUICK]) == 1
    captured = capsys.readouterr()
    assert "failed: tasks/a-broken-task" in captured.err
    assert "| tones | top1_acc |" in captured.out


@needs_heareval
@pytest.mark.parametrize("changed", ["labels", "audio"])
def test_scores_of_another_version_of_a_task_are_not_reused(here, capsys, changed):
    task = labelled(here / "audio", [["a"], ["b"]] * 4)
    make_task(task, here / "tasks")
    run = ["hear", "run", "hear_tune.baselines", "--model-options", '{"name": "mfcc"}', *QUICK]
    assert main(run) == 0
    scored = next(here.glob("embeddings/*/*/*/prediction-done.json"))
    shutil.rmtree(here / "tasks")
    make_task(task, here / "tasks")  # equal to the first
    assert main(run) == 0

    shutil.rmtree(here / "tasks")
    if changed == "labels":
        swapped = {"a": ("b",), "b": ("a",)}
        task = dataclasses.replace(
            task,
            clips=tuple(dataclasses.replace(c, labels=swapped[c.labels[0]]) for c in task.clips),
        )
    else:
        soundfile.write(task.clips[0].path, noise(11_025), SAMPLE_RATE_HZ)
    make_task(task, here / "tasks")
    capsys.readouterr()
    for command in (run, ["hear", "embeddings", *run[2:5]]):
        assert main(command) == 1
        printed = capsys.readouterr()
        folder = scored.parent.relative_to(here)
        assert f"{folder} is of another version of the task" in printed.err
        assert f"rm -r {folder}" in printed.err
    assert str(folder) not in printed.out.splitlines()
    shutil.rmtree(folder)
    assert main(run) == 0
    assert scored.exists()


@needs_heareval
def test_embeddings_without_a_record_of_their_task_are_taken_as_they_are(here):
    make_task(labelled(here / "audio", [["a"], ["b"]] * 4), here / "tasks")
    run = ["hear", "run", "hear_tune.baselines", "--model-options", '{"name": "mfcc"}', *QUICK]
    assert main(run) == 0
    (record,) = here.rglob("task-version.json")
    record.unlink()
    labels = next(here.glob("tasks/*/train.json"))
    labels.write_text(labels.read_text() + "\n")
    times = {path: path.stat().st_mtime_ns for path in (here / "embeddings").rglob("*.json")}
    del times[next(here.glob("embeddings/*/model.json"))]
    assert main(run) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert not list(here.rglob("task-version.json"))


@needs_heareval
def test_the_two_runners_one_after_the_other(here, checkpoints, capsys):
    make_task(labelled(here / "audio", [["a"], ["b"]] * 4), here / "tasks", rate=48_000)
    assert main(["hear", "embeddings", "hear_tune", "--model", str(checkpoints[0])]) == 0
    folder = capsys.readouterr().out.splitlines()[-1]
    assert not (Path(folder) / "prediction-done.json").exists()
    assert main(["hear", "predictions", folder, *QUICK, "--in-memory", "False"]) == 0
    assert len(scores_of("embeddings")) == 1
    assert_embedded_by(hear_tune.load_model(checkpoints[0]), here, Path(folder))


@needs_heareval
def test_weights_of_the_package_have_names(here, capsys):
    make_task(labelled(here / "audio", [["a"], ["b"]] * 4), here / "tasks")
    for name in hear_tune.PRETRAINED:
        assert main(["hear", "embeddings", "hear_tune", "--model", name]) == 0
        folder = capsys.readouterr().out.splitlines()[-1]
        assert_embedded_by(hear_tune.load_model(name), here, Path(folder))


def assert_embedded_by(model, here, folder):
    """A test clip's stored embedding is that of a model."""
    (path,) = (here / "tasks").glob(f"*/{SAMPLE_RATE_HZ}/test/*-0.wav")
    audio = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]
    (stored,) = Path(folder, "test").glob("*-0.wav.embedding.npy")
    expected = hear_tune.get_scene_embeddings(audio, model)[0].numpy()
    np.testing.assert_allclose(np.load(stored), expected, rtol=1e-5, atol=1e-6)


@needs_heareval
def test_options_are_checked_before_work(here, capsys):
    make_task(labelled(here / "audio", [["a"], ["b"]]), here / "tasks")
    for arguments, message in [
        (["run"], "Missing argument"),
        (["run", "hear_tune", "--grid-pints", "1"], "--grid-pints"),
        (["run", "no_such_module"], "not a HEAR module"),
        (["run", "hear_tune", "--model-options", "[1]"], "JSON object"),
        (["run", "hear_tune", "--model-options", '{"layers": "tail.99"}'], "tail.99"),
        (["embeddings", "hear_tune", "--task", "opera"], "no task 'opera'"),
    ]:
        assert main(["hear", *arguments]) == 2, arguments
        assert message in capsys.readouterr().err
    assert not (here / "embeddings").exists()


@needs_heareval
def test_scores_of_tags_are_those_of_our_probe(here):
    labels = [["a"], ["a", "b"], ["b"], [], ["c"], ["c", "a"]] * 3
    make_task(labelled(here / "audio", labels, kind="multilabel"), here / "tasks")
    options = ["--model-options", '{"name": "mfcc"}', "--name", "MFCC"]
    assert main(["hear", "run", "hear_tune.baselines", *options, *QUICK]) == 0
    (pickled,) = here.rglob("test.predictions.pkl")
    tested = pickle.loads(pickled.read_bytes())
    ours = score(
        "multilabel", ("a", "b", "c"), tested["target"].numpy(), tested["prediction"].numpy()
    )
    theirs = scores_of("embeddings")["MFCC", "tones"]
    assert theirs["aucroc"] == pytest.approx(ours.values["roc_auc"], abs=1e-6)
    assert theirs["mAP"] == pytest.approx(ours.values["average_precision"], abs=1e-6)


@needs_heareval
def test_folds_have_a_mean_and_a_deviation(here):
    folds = tuple(f"fold{index:02d}" for index in range(3))
    make_task(labelled(here / "audio", [["a"], ["b"]] * 3, splits=folds), here / "tasks")
    options = ["--model-options", '{"name": "mfcc"}']
    assert main(["hear", "run", "hear_tune.baselines", *options, *QUICK]) == 0
    (result,) = results.collect(here / "embeddings")
    tested = read_json(next(here.rglob("test.predicted-scores.json")))
    each = [tested[fold]["test_top1_acc"] for fold in folds]
    assert result["scores"]["top1_acc"] == pytest.approx(np.mean(each))
    assert result["deviations"]["top1_acc"] == pytest.approx(np.std(each, ddof=1))


@needs_heareval
def test_events_are_scored_with_the_postprocessing_of_their_best_epoch(here, monkeypatch):
    """An event task from notes with known onsets, and its best epoch not the last."""
    from heareval.predictions.task_predictions import EventPredictionModel

    tested = []
    original = EventPredictionModel.epoch_best_postprocessing_or_default

    def spy(model, epoch):
        tested.append((epoch, sorted(model.epoch_best_postprocessing)))
        return original(model, epoch)

    monkeypatch.setattr(EventPredictionModel, "epoch_best_postprocessing_or_default", spy)
    command = [sys.executable, str(ROOT / "recipes" / "hear" / "notes.py"), "tasks", "--clips", "3"]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    metadata_path = here / "tasks" / "synthesized-notes-1.0-full" / "task_metadata.json"
    metadata = read_json(metadata_path)
    metadata["evaluation_params"]["task_specific_param_grid"] = {
        "max_epochs": [3],
        "check_val_every_n_epoch": [1],
    }
    metadata_path.write_text(json.dumps(metadata))
    options = ["--model-options", '{"name": "log-mel"}', "--name", "log-mel"]
    assert main(["hear", "run", "hear_tune.baselines", *options, "--grid-points", "1"]) == 0
    scores = scores_of("embeddings")["log-mel", "synthesized-notes"]
    assert list(scores) == ["event_onset_50ms_fms", "event_onset_offset_50ms_20perc_fms"]
    assert tested[-1][0] in tested[-1][1]
    best = read_json(next(here.rglob("test.predicted-scores.json")))["test"]["epoch"]
    assert tested[-1][0] == best


@needs_heareval
@pytest.mark.usefixtures("here")
def test_the_official_small_task(shared_data, capsys):
    """Plumbing: its audio is of one bit."""
    (archive,) = (shared_data / "hear").glob("*.tar.gz")
    subprocess.run(["tar", "xzf", archive], check=True)
    tasks = ["--tasks-dir", "hear-2021.0.6/tasks", "--task", SMALL_TASK]
    options = ["--model-options", '{"name": "log-mel"}']
    assert main(["hear", "run", "hear_tune.baselines", *options, *tasks, *QUICK]) == 0
    assert "| spoken_digit small | top1_acc |" in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("heareval") is not None, reason="heareval is here")
def test_what_is_missing_is_said(capsys):
    assert main(["hear", "run", "hear_tune"]) == 2
    assert "pip install --no-deps heareval==2021.1.3" in capsys.readouterr().err


# Adaptations. Without them there is no run at all (TensorFlow, options of the trainer, hooks, what
# checkpoints may hold), events have no postprocessing, or GPUs no names.


@needs_heareval
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="there is TensorFlow"
)
def test_tensorflow_is_not_needed_and_not_left_behind():
    code = (
        "import importlib.util\n"
        "from hear_tune.hear_benchmark.adaptations import adapt\n"
        "adapt()\n"
        "from heareval.embeddings.task_embeddings import Embedding\n"
        "assert Embedding('hear_tune').type == 'torch'\n"
        "assert importlib.util.find_spec('tensorflow') is None\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@needs_heareval
@pytest.mark.parametrize("name", ["NVIDIA A100", b"NVIDIA A100"])
def test_names_of_gpus_are_text_or_bytes(monkeypatch, name):
    """heareval's own module, on a machine with one GPU that is made up."""
    from hear_tune.hear_benchmark.adaptations import _keep_device_names, adapt

    adapt()
    pynvml = types.ModuleType("pynvml")
    calls = ["HandleByIndex", "MemoryInfo"]
    for call in calls:
        setattr(pynvml, f"nvmlDeviceGet{call}", lambda _: None)
    pynvml.NVMLError, pynvml.nvmlInit = OSError, lambda: None
    pynvml.nvmlDeviceGetName = lambda _: name
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    spec = importlib.util.find_spec("heareval.gpu_max_mem")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _keep_device_names(module)
    assert module.device_name() == "NVIDIA A100"


@needs_heareval
def test_trainer_takes_heareval_options():
    from heareval.predictions import task_predictions

    from hear_tune.hear_benchmark.adaptations import adapt

    adapt()
    trainer = task_predictions.pl.Trainer(gpus=None, logger=False, enable_checkpointing=False)
    assert trainer.strategy.root_device.type == "cpu"


@needs_heareval
def test_old_lightning_is_left_alone(monkeypatch):
    """Where Lightning has what heareval wants, nothing is replaced."""
    from hear_tune.hear_benchmark import adaptations

    class OldTrainer:
        def __init__(self, gpus=None):
            pass

    class OldModule:
        def validation_epoch_end(self, outputs):
            pass

    class Model(OldModule):
        def validation_epoch_end(self, outputs):
            pass

    old = types.SimpleNamespace(Trainer=OldTrainer, LightningModule=OldModule)
    monkeypatch.setattr(adaptations, "pl", old)
    predictions = types.SimpleNamespace(pl=old)
    adaptations._keep_trainer_options(predictions)
    adaptations._keep_epoch_ends(Model)
    assert predictions.pl is old
    assert "validation_epoch_end" in vars(Model)
    assert not hasattr(Model, "on_validation_epoch_end")
