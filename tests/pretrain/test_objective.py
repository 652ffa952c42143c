"""The acoustic objective: features of signals with known answers, and runs that predict them."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch
from conftest import noise, tone

import hear_tune
from hear_tune.cli import main
from hear_tune.networks.projection import STATISTICS
from hear_tune.pretrain.acoustic import LOWEST_FRAME_PITCH, LOWEST_PITCH, TARGETS, Acoustics
from hear_tune.pretrain.objective import (
    STATISTICS_BATCHES,
    AcousticObjective,
    LayerTargets,
    Standardised,
)
from hear_tune.pretrain.pcm_store import build_store

RATE = 22_050
SAMPLES = 19_683
VARIANT = "tune-vanilla-small"


def hz(pitch):
    return 440 * 2 ** ((pitch - 69) / 12)


def harmonic(pitch, strengths):
    """Partials of a pitch, of these amplitudes."""
    return sum(a * tone(n * hz(pitch), SAMPLES) for n, a in enumerate(strengths, 1))


def acoustics(*sounds):
    return Acoustics(torch.from_numpy(np.stack(sounds).astype(np.float32)))


@pytest.mark.parametrize("pitch", [21, 33, 45, 69, 93, 108])
def test_a_tone_is_in_its_semitone(pitch):
    sound = acoustics(tone(hz(pitch), SAMPLES))
    assert sound.semitones.argmax() + LOWEST_PITCH == pitch
    if pitch > LOWEST_FRAME_PITCH:
        frames = sound.frame_semitones[0].argmax(dim=0) + LOWEST_FRAME_PITCH
        assert (frames == pitch).all()


def test_frames_follow_time():
    sound = acoustics(np.concatenate([tone(440, SAMPLES // 3), tone(880, 2 * SAMPLES // 3)]))
    pitches = sound.frame_semitones[0].argmax(dim=0) + LOWEST_FRAME_PITCH
    assert pitches.tolist() == pytest.approx([69] * 9 + [81] * 18)
    salient = sound.frame_salience[0].argmax(dim=0) + LOWEST_FRAME_PITCH
    assert set(salient[:8].tolist()) == {69}
    assert set(salient[11:].tolist()) == {81}
    low, high = sound.frame_mels[0, :, 0].argmax(), sound.frame_mels[0, :, -1].argmax()
    assert low < high


@pytest.mark.parametrize("pitch", [33, 50, 69, 84])
def test_a_harmonic_tone_with_a_weak_fundamental_gets_its_pitch(pitch):
    sound = acoustics(harmonic(pitch, [0.05, 0.8, 1, 0.7, 0.5, 0.4]))
    assert sound.semitones.argmax() + LOWEST_PITCH != pitch
    assert sound.salience.argmax() + LOWEST_PITCH == pitch
    if pitch > LOWEST_FRAME_PITCH:
        frames = sound.frame_salience[0, :, 3:-3].argmax(dim=0) + LOWEST_FRAME_PITCH
        assert (frames == pitch).all()


def test_an_octave_and_a_twelfth_are_no_lower_pitch():
    for strengths in ([1, 0.5, 0.25, 0.12], [1]):
        for pitch in (45, 69, 81):
            assert acoustics(harmonic(pitch, strengths)).salience.argmax() + LOWEST_PITCH == pitch


def test_the_mel_spectrum_of_noise_is_flat():
    sound = acoustics(*(noise(SAMPLES, seed) for seed in range(32)))
    means = sound.mel_means.mean(dim=0)
    assert means.abs().max() < 0.35  # of bands of few bins, the mean logarithm is lower
    assert means[20:].abs().max() < 0.15
    assert acoustics(tone(440, SAMPLES)).mel_means.abs().max() > 5


def test_level_alone_tells_how_loud_it_is():
    sound = acoustics(
        *(gain * harmonic(57, [1, 1, 1]) + gain * noise(SAMPLES) for gain in (1, 0.5))
    )
    loud, quiet = sound.level[:, 0]
    assert acoustics(tone(440, SAMPLES)).level.item() == pytest.approx(np.log(0.08), abs=1e-3)
    assert (loud - quiet).item() == pytest.approx(2 * np.log(2), abs=1e-3)
    for name, target in TARGETS.items():
        if name != "level":
            first, second = target.of(sound)
            torch.testing.assert_close(first, second, atol=0.02, rtol=0)


def test_deviations_tell_a_steady_sound_from_one_that_changes():
    steady = harmonic(57, np.ones(8)) + 0.01 * noise(SAMPLES)
    beats = steady * (np.arange(SAMPLES) // 3000 % 2)
    sound = acoustics(steady, beats)
    for name in ("mel_deviations", "mfcc_deviations"):
        first, second = TARGETS[name].of(sound).mean(dim=(1, 2))
        assert second > 2 * first, name


def test_silence_is_finite_and_has_no_pitch():
    sound = acoustics(np.zeros(SAMPLES), tone(440, SAMPLES))
    for name, target in TARGETS.items():
        assert torch.isfinite(target.of(sound)).all(), name
    torch.testing.assert_close(sound.salience[0], torch.full((88,), 1 / 88))
    torch.testing.assert_close(sound.frame_salience[0], torch.full((69, 27), 1 / 69))


@pytest.mark.parametrize("name", TARGETS)
def test_targets_of_a_window_do_not_depend_on_its_batch(name):
    target = TARGETS[name]
    together = target.of(acoustics(noise(SAMPLES), tone(440, SAMPLES)))
    assert together.shape[:2] == (2, target.size)
    assert together.shape[2] in (1, SAMPLES // 729)
    torch.testing.assert_close(target.of(acoustics(noise(SAMPLES)))[0], together[0])
    if target.is_distribution:
        torch.testing.assert_close(together.sum(dim=1), torch.ones(2, together.shape[2]))


def test_windows_of_another_shape_are_refused():
    for shape in ((SAMPLES,), (1, 730), (1, 0)):
        with pytest.raises(ValueError, match="multiple of 729"):
            Acoustics(torch.zeros(shape))


def test_targets_are_standardised_by_the_first_batches_and_no_others():
    standard = Standardised(2)
    spread = torch.tensor([[3.0], [0.0]])
    place = torch.tensor([[5.0], [7.0]])
    torch.manual_seed(0)
    for _ in range(STATISTICS_BATCHES):
        standard(torch.randn(16, 2, 9) * spread + place)
    found = {name: tensor.clone() for name, tensor in standard.state_dict().items()}
    result = standard(torch.randn(500, 2, 9) * spread + place)
    assert result[:, 0].mean().abs() < 0.1
    assert result[:, 0].std() == pytest.approx(1, abs=0.05)
    assert result[:, 1].abs().max() < 0.1
    assert all(torch.equal(found[name], new) for name, new in standard.state_dict().items())
    early = Standardised(2).eval()
    early(torch.randn(16, 2, 9))
    assert early.moments.batches == 0


@pytest.fixture
def encoder():
    return hear_tune.build_encoder(hear_tune.get_variant(VARIANT).config)


def test_predictions_begin_at_zero_and_then_learn_what_a_layer_tells(encoder):
    """The "layer" is what is asked for, so that a linear prediction can be perfect."""
    layer = encoder.layers[-1]
    asked = [
        LayerTargets(layer.name, ["semitones"], 0.5),
        LayerTargets(layer.name, ["salience"], 2),
    ]
    objective = AcousticObjective(asked, encoder)
    audio = torch.from_numpy(np.stack([tone(hz(pitch), SAMPLES) for pitch in range(40, 80, 5)]))
    features = torch.zeros(len(audio), layer.channels, 1)
    levels = Acoustics(audio).semitones
    features[:, :88] = (levels - levels.min())[:, :, None]  # as behind a ReLU
    features.requires_grad_()
    first = objective(audio, {layer.name: features})
    semitones, salience = first.losses.values()
    assert list(first.losses) == [f"{layer.name}/semitones", f"{layer.name}/salience"]
    assert semitones == pytest.approx(1, abs=0.05)
    assert first.loss.item() == pytest.approx(0.5 * semitones.item() + 2 * salience.item())
    first.loss.backward()
    assert not features.grad.any()
    optimizer = torch.optim.Adam(objective.parameters(), 0.01)
    for _ in range(50):
        optimizer.zero_grad()
        prediction = objective(audio, {layer.name: features.detach()})
        prediction.loss.backward()
        optimizer.step()
    assert all(loss < 0.1 for loss in prediction.losses.values())


def windows(statistic, count, frames):
    """One channel of windows (frames,) that differ in one of their statistics alone."""
    for above in range(1, count + 1):
        share = above / frames  # of the frames, above the mean of 0; the deviation is 1
        values = torch.full((frames,), -((share / (1 - share)) ** 0.5))
        values[:above] = peak = ((1 - share) / share) ** 0.5
        of_others = {"mean": values - peak, "deviation": values / peak, "maximum": values}
        yield 8 + of_others[statistic]


@pytest.mark.parametrize("statistic", STATISTICS)
def test_each_statistic_tells_what_it_has(encoder, statistic):
    loudness = torch.linspace(0.1, 0.8, 8)
    audio = torch.from_numpy(noise(SAMPLES, 0)) * loudness[:, None]
    features = torch.zeros(8, encoder.layer("tail.4").channels, 28)
    features[:, 0] = torch.stack([*windows(statistic, 8, 28)])
    objective = AcousticObjective([LayerTargets("tail.4", ["level"])], encoder)
    optimizer = torch.optim.Adam(objective.parameters(), 0.02)
    for _ in range(100):
        optimizer.zero_grad()
        loss = objective(audio, {"tail.4": features}).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.15


@pytest.mark.parametrize("frames", [3, 27, 81])
def test_frames_of_any_layer_meet_those_of_timestamps(encoder, frames):
    objective = AcousticObjective([LayerTargets("tail.4", ["frame_mels"])], encoder)
    features = torch.randn(2, encoder.layer("tail.4").channels, frames)
    audio = torch.from_numpy(np.stack([noise(SAMPLES, 0), tone(440, SAMPLES)]))
    assert torch.isfinite(objective(audio, {"tail.4": features}).loss)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([LayerTargets("tail.4", ["loudness"])], "unknown target 'loudness': there are semitones"),
        ([LayerTargets("tail.99", ["level"])], "unknown layer 'tail.99'"),
        ([LayerTargets("tail.4", ["level", "level"])], "asked for level twice"),
        ([LayerTargets("tail.4", ["level"], -1)], "weight must be at least 0"),
        ([LayerTargets("tail.4", [])], "asks for nothing"),
    ],
)
def test_mistakes_are_named(encoder, asked, message):
    with pytest.raises(ValueError, match=message):
        AcousticObjective(asked, encoder)


ASKED = [
    {"layer": "contractive.4", "targets": ["mel_means", "level"], "weight": 0.5},
    {"layer": "tail.4", "targets": ["salience", "frame_semitones"]},
]


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """A store of six tracks."""
    folder = tmp_path_factory.mktemp("music")
    for number in range(6):
        sound = 0.3 * noise(30_000, number) + tone(200 * (number + 1), 30_000)
        soundfile.write(folder / f"{number}.wav", sound, RATE)
    build_store([folder], folder / "store", workers=1)
    return folder / "store"


@pytest.fixture
def train(audio, tmp_path):
    """Trains a run of a few steps; returns its exit code."""

    def run(name, steps=5, asked=ASKED, **changes):
        options = {
            "data.audio": json.dumps([str(audio)]),
            "data.batch_size": 3,
            "data.crop_samples": 2187,
            "model.variant": VARIANT,
            "model.average_decay": 0.5,
            "trainer.accelerator": "cpu",
            "trainer.log_every_n_steps": 1,
            "trainer.max_steps": steps,
            "output": tmp_path / name,
            **({"model.objective": json.dumps(asked)} if asked else {}),
            **{key.replace("__", "."): value for key, value in changes.items()},
        }
        return main(["pretrain", *(f"--{key}={value}" for key, value in options.items())])

    return run


def encoder_of(folder):
    return hear_tune.load_checkpoint(folder / "last.safetensors")


def assert_same(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def column(folder, name):
    (log,) = folder.glob("logs/version_0/metrics.csv")
    return [float(row[name]) for row in csv.DictReader(log.open()) if row[name]]


def test_a_run_with_an_objective_goes_on_exactly(train, tmp_path):
    assert train("whole") == 0
    for steps in (2, 5):
        assert train("parts", steps) == 0
    assert_same(encoder_of(tmp_path / "whole"), encoder_of(tmp_path / "parts"))


def test_losses_are_logged_in_every_row_however_short_an_epoch_is(train, tmp_path):
    """Of two batches here: Lightning forgets at its end what has not been written."""
    assert train("run", steps=9, trainer__log_every_n_steps=3) == 0
    for name in ("loss", "contrastive_loss", "effective_rank", "tail.4/salience"):
        assert len(column(tmp_path / "run", f"train/{name}")) == 3


def test_losses_are_logged_and_predictions_left_behind(train, tmp_path):
    assert train("run", model__clmr_weight=0.25) == 0
    parts = {
        name: column(tmp_path / "run", f"train/{name}")
        for name in (
            "contrastive_loss",
            "contractive.4/mel_means",
            "contractive.4/level",
            "tail.4/salience",
            "tail.4/frame_semitones",
        )
    }
    weights = [0.25, 0.5, 0.5, 1, 1]
    total = np.array(list(parts.values())).T @ weights
    np.testing.assert_allclose(column(tmp_path / "run", "train/loss"), total, rtol=1e-5)
    record = encoder_of(tmp_path / "run").training_record
    assert record["objective"] == [ASKED[0], {**ASKED[1], "weight": 1.0}]
    assert record["clmr_weight"] == 0.25


def test_an_objective_without_weight_changes_no_bit_of_clmr(train, tmp_path):
    assert train("plain", asked=None) == 0
    assert train("weightless", asked=[{**task, "weight": 0} for task in ASKED]) == 0
    assert_same(encoder_of(tmp_path / "plain"), encoder_of(tmp_path / "weightless"))
    assert "objective" not in encoder_of(tmp_path / "plain").training_record
    assert train("heard", asked=ASKED) == 0
    with pytest.raises(AssertionError):
        assert_same(encoder_of(tmp_path / "plain"), encoder_of(tmp_path / "heard"))


def test_a_run_without_a_loss_is_refused(train, capsys):
    assert train("run", 1, asked=None, model__clmr_weight=0) == 2
    assert "nothing to train on" in capsys.readouterr().err


def test_clmr_on_a_layer_teaches_none_behind_it(train, tmp_path):
    options = {"model__clmr_layer": "tail.2", "model__average_decay": 0, "asked": None}
    assert train("one", 1, **options) == 0
    assert train("more", 3, **options) == 0
    one, more = (encoder_of(tmp_path / name).state_dict() for name in ("one", "more"))
    for name in one:
        if name.endswith("conv.weight"):
            behind = name.startswith("tail.") and int(name.split(".")[1]) > 2
            assert torch.equal(one[name], more[name]) == behind, name
    assert encoder_of(tmp_path / "one").training_record["clmr_layer"] == "tail.2"
    assert train("none", asked=None, model__clmr_layer="tail.99") == 2


def test_clmr_of_statistics_is_another_run_and_goes_on_exactly(train, tmp_path, capsys):
    options = {"asked": None, "model__clmr_statistics": True}
    assert train("means", 3, asked=None) == 0
    assert train("whole", 3, **options) == 0
    assert train("parts", 2, **options) == 0
    assert train("parts", 3, asked=None) == 2
    assert "model.clmr_statistics True, not False" in capsys.readouterr().err
    assert train("parts", 3, **options) == 0
    means, whole, parts = (encoder_of(tmp_path / name) for name in ("means", "whole", "parts"))
    assert_same(whole, parts)
    with pytest.raises(AssertionError):
        assert_same(means, whole)
    assert whole.training_record["clmr_statistics"] is True
    assert "clmr_statistics" not in means.training_record


def test_signs_of_a_collapse_are_those_of_the_layer(train, tmp_path):
    """Statistics are standardised, and spread whatever the layer does."""
    for name in ("means", "statistics"):
        assert train(name, 1, asked=None, model__clmr_statistics=name == "statistics") == 0
    for sign in ("embedding_spread", "effective_rank"):
        means, statistics = (column(tmp_path / x, f"train/{sign}") for x in ("means", "statistics"))
        assert means == statistics


def test_another_objective_must_not_go_on(train, capsys):
    assert train("run", 1) == 0
    other = [ASKED[0], {**ASKED[1], "targets": ["semitones", "frame_semitones"]}]
    assert train("run", 2, asked=other) == 2
    assert "model.objective.1.targets.0 'salience', not 'semitones'" in capsys.readouterr().err
    assert train("run", 2, asked=None) == 2
    assert train("run", 2) == 0


def test_a_checkpoint_from_before_there_were_objectives_goes_on_without(train, tmp_path, capsys):
    assert train("run", 1, asked=None) == 0
    path = tmp_path / "run/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for option in ("objective", "clmr_layer", "clmr_statistics", "clmr_weight"):
        del checkpoint["hear_tune_settings"]["model"][option]
    torch.save(checkpoint, path)
    assert train("run", 2) == 2
    assert "another objective" in capsys.readouterr().err
    assert train("run", 2, asked=None, model__clmr_statistics=True) == 2
    assert "contrasts means: give the same clmr_statistics" in capsys.readouterr().err
    assert train("run", 2, asked=None) == 0
