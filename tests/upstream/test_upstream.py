"""The s3prl upstreams, as s3prl's own front ends use them."""

import ast
import os
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
import yaml
from conftest import ROOT, noise

import hear_tune
from hear_tune.audio.reading import to_mono
from hear_tune.cli import main
from hear_tune.datasets.task import Clip

pytestmark = pytest.mark.filterwarnings("ignore::hear_tune.UntrainedWarning")

s3prl = pytest.importorskip("s3prl", reason='needs pip install "hear-tune[s3prl]"')

from hear_tune.upstream import adaptations, hubconf, register  # noqa: E402

register()

from s3prl.nn import Featurizer, S3PRLUpstream  # noqa: E402
from s3prl.upstream.interfaces import Featurizer as LegacyFeaturizer  # noqa: E402

from hear_tune.upstream import problems, tables  # noqa: E402

RATE = 16_000
STRIDE = 529
ENTRIES = hubconf.__all__


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A quick encoder, coarser than the common stride, in a file."""
    torch.manual_seed(0)
    config = hear_tune.TuneConfig(2, contractive=2, expansive=2, tail=7, embedding_size=8)
    encoder = hear_tune.build_encoder(config).eval()
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    hear_tune.save_checkpoint(encoder, path)
    return str(path)


def wav(samples, seed=0):
    return torch.from_numpy(noise(samples, seed))


def batch(*lengths):
    wavs = torch.nn.utils.rnn.pad_sequence(
        [wav(length, seed) for seed, length in enumerate(lengths)], batch_first=True
    )
    return wavs, torch.tensor(lengths)


def state(expert, *wavs):
    with torch.no_grad():
        return expert.eval()(list(wavs))["last_hidden_state"]


# What the frames are


def test_native_rate_gives_the_timestamp_embeddings():
    audio = wav(50_000)
    expected, _ = hear_tune.get_timestamp_embeddings(audio[None], hear_tune.load_model())
    found = state(hubconf.tune_concat(sample_rate=22_050), audio)
    frames = expected.shape[1]
    assert found.shape == (1, -(-50_000 // 729), 512)
    torch.testing.assert_close(found[:, :frames], expected, rtol=1e-4, atol=1e-5)


def test_all_frames_of_a_short_clip_are_its_scene_embedding():
    audio = wav(9_000)
    expected = hear_tune.get_scene_embeddings(audio[None], hear_tune.load_model())
    found = state(hubconf.tune(sample_rate=22_050), audio)
    assert found.shape == (1, 13, 512)
    torch.testing.assert_close(found, expected[:, None].expand_as(found), rtol=1e-4, atol=1e-4)


def test_frames_at_the_centres_of_windows_are_the_embeddings_of_these_windows():
    """Each window passes through the network alone; the last one ends where the clip does."""
    audio = wav(2 * 19_683 + 5_000)
    windows = hear_tune.embed_array(audio.numpy(), 22_050, hear_tune.load_model(), "window")
    found = state(hubconf.tune(sample_rate=22_050), audio)[0]
    expected = torch.from_numpy(windows.vectors)
    assert len(expected) == 3
    for frame, window in {0: 0, 13: 0, 13 + 27: 1, len(found) - 1: 2}.items():
        torch.testing.assert_close(found[frame], expected[window], rtol=1e-3, atol=1e-3)


def test_16_khz_is_resampled_as_files_are():
    audio = wav(40_000)
    resampled = torch.from_numpy(to_mono(audio.numpy(), RATE))
    expected, _ = hear_tune.get_timestamp_embeddings(resampled[None], hear_tune.load_model())
    found = state(hubconf.tune_concat(), audio)
    frames = expected.shape[1]
    torch.testing.assert_close(found[:, :frames], expected, rtol=1e-4, atol=1e-5)


def test_layers_are_padded_with_zeros(checkpoint):
    expert = hubconf.tune_layers(checkpoint)
    single = hubconf.tune(checkpoint, layers="all")
    with torch.no_grad():
        states = expert.eval()([wav(9_000)])["hidden_states"]
    channels = [layer.channels for layer in expert.encoder.layers]
    assert len(states) == len(channels)
    assert {s.shape for s in states} == {(1, 18, max(channels))}
    kept = torch.cat([s[..., :width] for s, width in zip(states, channels, strict=True)], -1)
    torch.testing.assert_close(kept, state(single, wav(9_000)))
    assert all((s[..., width:] == 0).all() for s, width in zip(states, channels, strict=True))


def test_clmr_is_another_encoder():
    assert isinstance(hubconf.clmr().encoder.config, hear_tune.SampleCNNConfig)


# The contract


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_frame_counts_are_exact(checkpoint, rate):
    expert = hubconf.tune(checkpoint, sample_rate=rate)
    stride = expert.get_downsample_rates("hidden_states")
    near = [n * stride + d for n in (1, 2, 26, 27, 28, 200) for d in (-1, 0, 1)]
    lengths = [*range(1, 30), *near]
    for length in lengths:
        assert state(expert, wav(length)).shape[1] == -(-length // stride), length


@pytest.mark.parametrize("name", ENTRIES)
def test_both_front_ends(name, checkpoint):
    upstream = S3PRLUpstream(name, checkpoint).eval()
    featurizer = Featurizer(upstream)
    for lengths in [(RATE, 5_000), (700, 1), (STRIDE, STRIDE + 1)]:
        hidden, sizes = featurizer(*upstream(*batch(*lengths)))
        assert sizes.tolist() == [-(-length // STRIDE) for length in lengths]
        assert hidden.shape == (2, max(sizes), featurizer.output_size)
        assert torch.isfinite(hidden).all()
    assert featurizer.downsample_rate == STRIDE

    expert = hubconf.__dict__[name](ckpt=checkpoint, model_config=None, refresh=False)
    legacy = LegacyFeaturizer(expert, upstream_device="cpu")
    wavs = [wav(9_000), wav(20_000)]
    features = legacy(wavs, expert(wavs))
    assert [len(f) for f in features] == [round(9_000 / STRIDE), round(20_000 / STRIDE)]
    assert legacy.output_dim == featurizer.output_size


def test_an_utterance_does_not_depend_on_its_batch(checkpoint):
    expert = hubconf.tune_concat(checkpoint)
    wavs = [wav(n, n) for n in (300_000, 700, 14_000, 14_100, 299_990, 1)]
    together = state(expert, *wavs)
    for row, alone in enumerate(wavs):
        frames = -(-len(alone) // STRIDE)
        torch.testing.assert_close(together[row, :frames], state(expert, alone)[0])
        assert (together[row, frames:] == 0).all()


def test_keys_of_hidden_states(checkpoint):
    features = hubconf.tune_layers(checkpoint).eval()([wav(5_000)])
    states = features["hidden_states"]
    assert torch.equal(features["last_hidden_state"], states[-1])
    assert torch.equal(features["hidden_state_3"], states[3])
    expert = hubconf.tune_layers(checkpoint)
    one = LegacyFeaturizer(expert, "hidden_state_3", upstream_device="cpu")
    chosen = LegacyFeaturizer(expert, layer_selection=3, upstream_device="cpu")
    for featurizer in (one, chosen):
        assert torch.equal(featurizer([wav(5_000)], features)[0], states[3][0, :9])


def test_selections_of_layers_and_normalisation(checkpoint):
    upstream = S3PRLUpstream("tune_layers", checkpoint, normalize=True).eval()
    featurizer = Featurizer(upstream, layer_selections=[0, 4], normalize=True)
    assert len(featurizer.weights) == 2
    hidden, _ = featurizer(*upstream(*batch(8_000, 4_000)))
    assert torch.isfinite(hidden).all()
    few = S3PRLUpstream("tune_layers", checkpoint, extra_conf={"layers": "contractive.1,tail.5"})
    assert few.num_layers == 2


@pytest.mark.parametrize("name", ENTRIES)
def test_silence(name, checkpoint):
    upstream = S3PRLUpstream(name, checkpoint, normalize=True).eval()
    for hidden in upstream(torch.zeros(2, RATE), torch.tensor([RATE, 900]))[0]:
        assert torch.isfinite(hidden).all()


# Training


def statistics(module):
    return {k: v.clone() for k, v in module.state_dict().items() if "running" in k}


def unchanged(before, module):
    return all(torch.equal(before[key], value) for key, value in statistics(module).items())


def test_fine_tuning_reaches_all_parameters_and_statistics(checkpoint):
    upstream = S3PRLUpstream("tune_layers", checkpoint).train()
    featurizer = Featurizer(upstream)
    before = statistics(upstream)
    hidden, _ = featurizer(*upstream(*batch(30_000, 9_000)))
    hidden.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in upstream.parameters())
    assert featurizer.weights.grad.abs().sum() > 0
    assert not unchanged(before, upstream)


def test_a_frozen_network_is_not_changed_by_looking_at_features(checkpoint):
    upstream = S3PRLUpstream("tune", checkpoint)  # which leaves it in training mode
    expected = upstream.eval()(*batch(9_000, 4_000))[0][0]
    before = statistics(upstream)
    upstream.train()
    with torch.no_grad():
        assert torch.equal(upstream(*batch(9_000, 4_000))[0][0], expected)
    upstream.requires_grad_(False)
    assert torch.equal(upstream(*batch(9_000, 4_000))[0][0], expected)
    assert unchanged(before, upstream)


def test_gradients_in_evaluation_mode_leave_statistics_alone(checkpoint):
    expert = hubconf.tune(checkpoint).eval()
    before = statistics(expert)
    expert([wav(9_000)])["last_hidden_state"].sum().backward()
    assert all(p.grad is not None for p in expert.parameters())
    assert unchanged(before, expert)


def test_random_weights_by_s3prl(checkpoint):
    torch.manual_seed(0)
    upstream = S3PRLUpstream("tune", checkpoint, randomize=True).eval()
    plain = S3PRLUpstream("tune", checkpoint).eval()
    hidden, expected = (u(*batch(9_000, 4_000))[0][0] for u in (upstream, plain))
    assert torch.isfinite(hidden).all()
    assert not torch.allclose(hidden, expected)


def test_the_state_returns_from_a_checkpoint(checkpoint, tmp_path):
    expert = hubconf.tune(checkpoint)
    expert([wav(30_000)])["last_hidden_state"].sum()  # moves the statistics
    torch.save(expert.state_dict(), tmp_path / "state.pt")
    again = hubconf.tune(checkpoint)
    again.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert torch.equal(state(expert, wav(9_000)), state(again, wav(9_000)))


# Where checkpoints and options come from


def test_a_url_is_fetched_once_or_again(checkpoint, tmp_path, monkeypatch):
    from s3prl.util import download

    monkeypatch.setattr(download, "_download_dir", tmp_path / "cache")
    served = tmp_path / "served.safetensors"
    shutil.copy(checkpoint, served)
    url = served.as_uri()
    expected = state(hubconf.tune(checkpoint), wav(4_000))
    assert torch.equal(state(S3PRLUpstream("tune", url).upstream, wav(4_000)), expected)
    served.write_text("no checkpoint")
    assert torch.equal(state(hubconf.tune(url), wav(4_000)), expected)
    (copy,) = (tmp_path / "cache").glob("*.safetensors")
    os.utime(copy, (0, 0))  # s3prl takes a copy of the last seconds for another process's
    with pytest.raises(hear_tune.CheckpointError, match="not a checkpoint"):
        hubconf.tune(url, refresh=True)


def test_options_from_a_file(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text(yaml.safe_dump({"variant": "tune-vanilla-small", "sample_rate": 22_050}))
    expert = hubconf.tune(ckpt=None, model_config=str(path), refresh=False)
    assert expert.get_downsample_rates("hidden_states") == 729
    assert expert.encoder.config == hear_tune.get_variant("tune-vanilla-small").config
    path.write_text("- tune")
    with pytest.raises(ValueError, match=r"options\.yaml: must map names"):
        hubconf.tune(model_config=str(path))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sample_rate": 44_100}, ValueError, "must be 16000 or 22050, not 44100"),
        ({"layers": "tail.77"}, ValueError, "unknown layer 'tail.77'"),
        ({"variant": "tuna"}, ValueError, "unknown variant 'tuna'"),
        ({"variant": "clmr", "ckpt": "x.ckpt"}, ValueError, "a checkpoint or a variant"),
        ({"ckpt": "nowhere.ckpt"}, FileNotFoundError, "nowhere.ckpt: no such checkpoint"),
        ({"colour": "blue"}, TypeError, "colour"),
        ({"precision": "bfloat16"}, TypeError, "precision"),
    ],
)
def test_mistakes_are_named(options, error, message):
    with pytest.raises(error, match=message):
        hubconf.tune(**options)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(0), "at least one"),
        (torch.zeros(2, 8), "must be"),
        (torch.full((900,), np.nan), "NaN"),
    ],
)
def test_waveforms_that_are_none(checkpoint, audio, message):
    with pytest.raises(ValueError, match=message):
        hubconf.tune(checkpoint)([audio])


# Ways in


def test_registered_names():
    assert set(ENTRIES) <= set(S3PRLUpstream.available_names(only_registered_ckpt=True))


def test_torch_hub(checkpoint):
    expert = torch.hub.load(str(ROOT / "upstream"), "tune", checkpoint, source="local")
    assert torch.equal(state(expert, wav(4_000)), state(hubconf.tune(checkpoint), wav(4_000)))


@pytest.mark.slow
def test_copied_into_a_checkout_of_s3prl(checkpoint, tmp_path):
    """Upstreams are added as contributors do it: a folder, and a line in hub.py."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(s3prl.__path__[0], tmp_path / "s3prl", ignore=skip)
    shutil.copytree(ROOT / "upstream", tmp_path / "s3prl/upstream/tune", ignore=skip)
    with (tmp_path / "s3prl/hub.py").open("a") as hub:
        hub.write("\nfrom s3prl.upstream.tune.hubconf import *\n")
    code = (
        "from hear_tune.upstream.adaptations import adapt; adapt()\n"
        "import s3prl; from s3prl.nn import S3PRLUpstream\n"
        f"assert s3prl.__file__.startswith({str(tmp_path)!r})\n"
        f"assert S3PRLUpstream('tune_layers', {checkpoint!r}).num_layers == 12\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


# Adaptations


@pytest.fixture
def bare_torchaudio(monkeypatch):
    """An adapted torchaudio that lacks everything."""
    module = types.ModuleType("torchaudio")
    monkeypatch.setattr(adaptations, "torchaudio", module)
    monkeypatch.setattr(adaptations, "find_spec", lambda _: None)
    monkeypatch.delitem(sys.modules, "torchaudio.sox_effects", raising=False)
    adaptations.adapt()
    monkeypatch.setitem(sys.modules, "torchaudio.sox_effects", module.sox_effects)
    return module


def test_stand_ins_read_and_write_audio(bare_torchaudio, tmp_path):
    audio = torch.stack([wav(1_000), wav(1_000, 1)])
    bare_torchaudio.save(str(tmp_path / "a.flac"), audio, sample_rate=8_000)
    again, rate = bare_torchaudio.load(str(tmp_path / "a.flac"))
    torch.testing.assert_close(again, audio, rtol=0, atol=2**-15)
    info = bare_torchaudio.info(tmp_path / "a.flac")
    assert (rate, info.sample_rate, info.num_frames, info.num_channels) == (8_000, 8_000, 1_000, 2)


def test_what_torchaudio_lost_says_so(bare_torchaudio):
    bare_torchaudio.set_audio_backend("sox_io")
    with pytest.raises(NotImplementedError, match="no sox effects"):
        bare_torchaudio.sox_effects.apply_effects_tensor(wav(10), RATE, [["norm"]])


def test_what_torchaudio_has_is_left_alone(monkeypatch):
    module = types.ModuleType("torchaudio")
    module.set_audio_backend = module.info = module.load = module.save = len
    module.sox_effects = sys
    before = dict(vars(module))
    monkeypatch.setattr(adaptations, "torchaudio", module)
    monkeypatch.setitem(sys.modules, "torchaudio.sox_effects", sys)
    adaptations.adapt()
    assert vars(module) == before


# Problems


def table(tmp_path, rows, header="path,split,labels"):
    for name in {row.split(",")[0] for row in rows} - {"gone.wav"}:
        soundfile.write(tmp_path / name, noise(4_410), 44_100)
    (tmp_path / "clips.csv").write_text("\n".join([header, *rows]))
    return tmp_path / "clips.csv"


def prepared(problem, tmp_path, rows, **build_encoder):
    """The training set of a problem, and its classes."""
    conf = {"csv": table(tmp_path, rows)}
    train, valid, test = problem.prepare_data(conf, tmp_path, tmp_path)
    encoder = problem.build_encoder(build_encoder, tmp_path, tmp_path, train, valid, test)
    conf = {"sample_rate": 22_050}
    data = problem.build_dataset(conf, tmp_path, tmp_path, "train", train, encoder, 729)
    return data, pickle.loads(encoder.read_bytes()).category


def test_tags_of_clips(tmp_path):
    rows = ["a.wav,train,slow; piano", "b.wav,train,", "c.wav,train,polka", "d.wav,valid,piano"]
    classes = ["slow", "piano", "techno"]
    problem = problems.MagnaTagATune()
    data, category = prepared(problem, tmp_path, [*rows, "d.wav,test,techno"], classes=classes)
    assert category == ["piano", "slow", "techno"]
    assert [data[i]["y"].tolist() for i in range(len(data))] == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert data[0]["x"].shape == (2_205,)


def test_configuration_of_the_tags():
    config = problems.MagnaTagATune().default_config()
    assert len(set(config["build_encoder"]["classes"])) == 50
    assert config["build_task"]["scores"] == ["aucroc", "mAP"]
    assert config["build_downstream"] == {"hidden_layers": 0, "pooling_type": "MeanPooling"}


@pytest.mark.usefixtures("shared_data")
def test_tags_are_the_published_ones(shared_data):
    text = (shared_data / "mtt/output_labels_mtt.txt").read_text()
    published = ast.literal_eval(text[text.index("[") :])
    config = problems.MagnaTagATune().default_config()
    assert config["build_encoder"]["classes"] == published


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["a.wav,train,x"], "path,split,labels", "splits must be train, valid, test"),
        (["a.wav,train,x"], "path,split,tags", "has no column 'labels'"),
        (
            ["a.wav,train,x", "a.wav,valid,x", "gone.wav,test,x"],
            "path,split,labels",
            "1 of 3 clips are missing: .*gone.wav",
        ),
    ],
)
def test_tables_with_mistakes(rows, header, message, tmp_path):
    with pytest.raises((ValueError, OSError), match=message):
        tables.read_clips(table(tmp_path, rows, header))


def test_tables_return_as_they_were_written(tmp_path):
    clips = [
        Clip(tmp_path / f"{split}.wav", split, labels)
        for split, labels in [("train", ("a", "no voice")), ("valid", ()), ("test", ("001",))]
    ]
    for clip in clips:
        clip.path.touch()
    assert tables.write_clips(clips, tmp_path / "clips.csv") == 3
    again = tables.read_clips(tmp_path / "clips.csv")
    assert again["wav_path"].tolist() == [str(clip.path) for clip in clips]
    assert again["split"].tolist() == [clip.split for clip in clips]
    assert [tuple(tables.split_labels(text)) for text in again["labels"]] == [
        clip.labels for clip in clips
    ]


def test_pitches_keep_their_distances():
    encoder = problems.NsynthPitch().encoder(["99", "100", "103", "99"])
    assert encoder.category == ["99", "100", "101", "102", "103"]


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["main", "HearGtzn"], "no problem of that name: 'HearGtzn'"),
        (["main"], "no problem of that name: none"),
        (["config", "tune"], "unknown configuration 'tune'"),
        (["smoke", "polka"], "unknown task 'polka'"),
    ],
)
def test_mistakes_end_in_one_clear_line(arguments, message, capsys):
    assert main(["s3prl", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("hear-tune: error: ")
    assert message in error


def test_errors_of_s3prl_keep_their_traceback(tmp_path, capsys):
    run = ["main", "ClipClassification", "--target_dir", str(tmp_path / "result")]
    run += ["--prepare_data.csv", str(tmp_path / "gone.csv"), "--cache_dir", str(tmp_path)]
    arguments = sys.argv
    assert main(["s3prl", *run]) == 1
    assert sys.argv is arguments
    assert "Traceback" in (error := capsys.readouterr().err)
    assert "gone.csv" in error


def test_configurations(capsys):
    assert main(["s3prl", "config"]) == 0
    names = capsys.readouterr().out.split()
    assert "MagnaTagATune" in names
    for name in names:
        assert main(["s3prl", "config", name]) == 0
        assert yaml.safe_load(Path(capsys.readouterr().out.strip()).read_text())


def test_without_s3prl(monkeypatch, capsys):
    monkeypatch.setattr("hear_tune.cli.common.find_spec", lambda _: None)
    assert main(["s3prl", "smoke"]) == 2
    assert 'pip install "hear-tune[s3prl]"' in capsys.readouterr().err


@pytest.mark.slow
def test_all_tasks_on_made_up_data():
    """s3prl.main runs every problem; run_downstream trains, and evaluates its checkpoint."""
    command = [sys.executable, "-m", "hear_tune", "s3prl", "smoke"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3_000:]
    for score in ("aucroc:", "top1_acc:", "chroma_acc:", "event_onset_50ms_fms:", "test acc:"):
        assert score in result.stdout
    assert result.stdout.splitlines()[-1] == "all passed"
