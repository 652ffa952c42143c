"""The checks of hear-validator, and others that runners rely on."""

import warnings

import numpy as np
import pytest
import torch
from conftest import noise, tone
from hypothesis import given, settings
from hypothesis import strategies as st

import hear_tune
from hear_tune.embedding.batching import embed_clips
from hear_tune.hear import _warn_untrained
from hear_tune.networks.config import WINDOW_SAMPLES

RATE = 22_050


def audio(*shape, seed=0):
    return torch.from_numpy(noise(int(np.prod(shape)), seed).reshape(shape))


def ms(samples):
    return 1000 * samples / RATE


# --- What hear-validator checks ---


def test_model_attributes(model):
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in (16_000, 22_050, 32_000, 44_100, 48_000)
    assert type(model.sample_rate) is int
    assert type(model.scene_embedding_size) is int
    assert type(model.timestamp_embedding_size) is int


@pytest.mark.parametrize("seconds", [1.07, 1.98, 4.0])
def test_timestamp_embeddings(model, seconds):
    clips = audio(2, int(seconds * RATE))
    embeddings, timestamps = hear_tune.get_timestamp_embeddings(clips, model)
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (2, timestamps.shape[1], model.timestamp_embedding_size)
    assert timestamps.shape[0] == 2
    spacing = timestamps.diff(dim=1)
    assert (spacing - spacing.mean()).abs().max() <= 1
    assert spacing.mean() <= 50
    assert (timestamps[:, 0] <= 50).all()
    assert (timestamps <= 1000 * seconds).all()
    assert (timestamps[:, -1] >= 1000 * seconds - 50).all()


def test_scene_embeddings(model):
    embeddings = hear_tune.get_scene_embeddings(audio(4, int(2.74 * RATE)), model)
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (4, model.scene_embedding_size)


# --- What it does not ---


def test_model_is_frozen_for_evaluation(model):
    assert not any(module.training for module in model.modules())
    clips = audio(2, 30_000).requires_grad_()
    assert not hear_tune.get_scene_embeddings(clips, model).requires_grad
    assert not hear_tune.get_timestamp_embeddings(clips, model)[0].requires_grad


def test_same_audio_same_embedding(model):
    clips = audio(3, 100_000)
    for embed in (hear_tune.get_scene_embeddings, hear_tune.get_timestamp_embeddings):
        first, second = embed(clips, model), embed(clips, model)
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("length", [5, 20_000, 150_000])
def test_a_clip_does_not_depend_on_its_batch(model, length):
    clips = audio(5, length)
    scenes = hear_tune.get_scene_embeddings(clips, model)
    frames, _ = hear_tune.get_timestamp_embeddings(clips, model)
    for row in (0, 4):
        alone = clips[row : row + 1]
        torch.testing.assert_close(scenes[row], hear_tune.get_scene_embeddings(alone, model)[0])
        torch.testing.assert_close(
            frames[row], hear_tune.get_timestamp_embeddings(alone, model)[0][0]
        )


def test_a_clip_does_not_depend_on_longer_neighbours(model):
    clips = [audio(length, seed=length) for length in (1, 500, 20_000, 60_000, 150_000)]
    together = hear_tune.get_scene_embeddings(clips, model)
    for row, clip in enumerate(clips):
        alone = hear_tune.get_scene_embeddings(clip[None], model)[0]
        torch.testing.assert_close(together[row], alone)


def test_whole_windows_give_the_plain_mean(model):
    clip = audio(1, 3 * WINDOW_SAMPLES)
    with torch.no_grad():
        windows = model.encoder(clip.view(3, 1, WINDOW_SAMPLES))
    scene = hear_tune.get_scene_embeddings(clip, model)
    torch.testing.assert_close(scene[0], windows.mean(dim=0))


def test_scene_changes_smoothly_with_length(model):
    """Embeddings change smoothly as a clip gets another window."""
    clip = torch.from_numpy(tone(330, 4 * WINDOW_SAMPLES) * noise(4 * WINDOW_SAMPLES))
    at_windows = hear_tune.get_scene_embeddings(clip[None, : 2 * WINDOW_SAMPLES], model)
    a_little_more = hear_tune.get_scene_embeddings(clip[None, : 2 * WINDOW_SAMPLES + 20], model)
    assert torch.cosine_similarity(at_windows, a_little_more).item() > 0.9999


def test_silence_behind_a_short_sound_changes_nothing(model):
    short = audio(1, 20_000)
    padded = torch.nn.functional.pad(short, (0, 10_000))
    scenes = [hear_tune.get_scene_embeddings(clip, model) for clip in (short, padded)]
    torch.testing.assert_close(*scenes)


def test_any_length_from_one_sample(model):
    for length in (1, 364, 365, 19_684, 59_050):
        clip = audio(1, length)
        assert torch.isfinite(hear_tune.get_scene_embeddings(clip, model)).all()
        embeddings, timestamps = hear_tune.get_timestamp_embeddings(clip, model)
        assert torch.isfinite(embeddings).all()
        assert timestamps.shape[1] == max(1, (length + 364) // 729)
        assert timestamps.max() <= ms(length)


@pytest.mark.parametrize("minutes", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_timestamps_do_not_drift(small_model, minutes):
    """Clicks every ten seconds show at their positions, to the end."""
    clip = torch.zeros(1, 60 * minutes * RATE)
    clip[0, 5 * RATE :: 10 * RATE] = 1
    embeddings, timestamps = hear_tune.get_timestamp_embeddings(clip, small_model)
    expected = (torch.arange(timestamps.shape[1], dtype=torch.float64) + 0.5) * ms(729)
    assert (timestamps[0] - expected).abs().max() < 0.2
    assert timestamps[0, -1] > 60_000 * minutes - 50
    quiet, _ = hear_tune.get_timestamp_embeddings(torch.zeros_like(clip), small_model)
    heard = timestamps[0, (embeddings != quiet)[0].any(dim=1)]
    distances = (heard[:, None] - (5_000 + 10_000 * torch.arange(6 * minutes))).abs()
    assert distances.amin(dim=0).max() < 20
    assert distances.amin(dim=1).max() < 40


@pytest.mark.parametrize("length", [5 * 19_683, 900_000])
def test_timestamps_are_those_of_one_pass(model, length):
    """Segments with context give the result of a single pass over the whole clip."""
    clip = audio(1, length)
    embeddings, _ = hear_tune.get_timestamp_embeddings(clip, model)
    padded = np.pad(clip[0].numpy(), (0, -length % 19_683), mode="symmetric")
    whole = model.embed_timestamps(torch.from_numpy(padded)[None])[:, : embeddings.shape[1]]
    torch.testing.assert_close(embeddings, whole, rtol=1e-4, atol=1e-4)


def test_timestamps_see_several_time_scales(model):
    assert model.timestamp_layers == ["contractive.4", "tail.6", "tail.9"]
    clip = torch.zeros(2, 8 * 19_683)
    clip[1, 4 * 19_683] = 1
    embeddings, timestamps = hear_tune.get_timestamp_embeddings(clip, model)
    reach_ms = []
    for part in embeddings.split([176, 352, 512], dim=2):
        heard = timestamps[1, ((part[0] - part[1]).abs() > 1e-6).any(dim=1)]
        reach_ms.append((heard.max() - heard.min()).item())
    assert reach_ms[0] < reach_ms[1] < reach_ms[2]
    assert reach_ms[0] <= 2 * ms(729)
    assert reach_ms[2] > 1000


def test_statistics_of_whole_windows_have_no_timestamps():
    clip = audio(1, 30_000)
    with pytest.raises(ValueError, match="whitened is of whole windows: name other layers"):
        hear_tune.get_timestamp_embeddings(clip, hear_tune.load_model(timestamp_layers="whitened"))
    every = hear_tune.load_model(timestamp_layers="all")
    assert "tail.9" in every.timestamp_layers
    assert "whitened" not in every.timestamp_layers
    assert hear_tune.get_timestamp_embeddings(clip, every)[0].isfinite().all()


def test_layer_options(model, small_model):
    encoder = model.encoder
    several = hear_tune.EmbeddingModel(encoder, layers="tail.5, tail.9", timestamp_layers="all")
    assert several.scene_embedding_size == 352 + 512
    assert several.timestamp_embedding_size == sum(layer.channels for layer in encoder.layers)
    clip = audio(2, 70_000)
    scene = hear_tune.get_scene_embeddings(clip, several)
    torch.testing.assert_close(scene[:, 352:], hear_tune.get_scene_embeddings(clip, model))
    for wrong in ("tail.99", "", [], "tail.9,tail.9"):
        with pytest.raises(ValueError, match="layer"):
            hear_tune.EmbeddingModel(encoder, layers=wrong)
    assert small_model.timestamp_layers == ["contractive.2", "tail.3"]


def test_hop_option(model):
    dense = hear_tune.EmbeddingModel(model.encoder, hop_ms=1000)
    clip = audio(1, 200_000)
    starts = [window.start for window in dense.windows([clip[0].numpy()])]
    assert starts == [0, 22_050, 44_100, 66_150, 88_200, 110_250, 132_300, 200_000 - WINDOW_SAMPLES]
    assert hear_tune.get_scene_embeddings(clip, dense).shape == (1, 512)
    for wrong in (0, -5, 2700, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="hop_ms"):
            hear_tune.EmbeddingModel(model.encoder, hop_ms=wrong)


@pytest.mark.parametrize("variant", ["clmr", "tune-vanilla-small", "tune-clmr-tail"])
@pytest.mark.filterwarnings("ignore::hear_tune.UntrainedWarning")
def test_other_variants(variant):
    model = hear_tune.load_model(variant=variant)
    clip = audio(2, 30_000)
    assert hear_tune.get_scene_embeddings(clip, model).shape == (2, 512)
    embeddings, timestamps = hear_tune.get_timestamp_embeddings(clip, model)
    assert embeddings.shape == (2, 41, model.timestamp_embedding_size)
    assert timestamps.shape == (2, 41)


def test_wrong_audio_is_refused(model):
    for wrong in (torch.zeros(5), torch.zeros(1, 1, 5), torch.zeros(0, 5), torch.zeros(2, 0), []):
        with pytest.raises(ValueError, match=r"n_s"):
            hear_tune.get_scene_embeddings(wrong, model)
    with pytest.raises(ValueError, match="must be a tensor"):
        hear_tune.get_timestamp_embeddings([torch.zeros(5)], model)
    with pytest.raises(ValueError, match="NaN"):
        hear_tune.get_scene_embeddings(torch.full((1, 500), torch.nan), model)
    with pytest.raises(ValueError, match="floating point"):
        hear_tune.get_scene_embeddings(torch.zeros(1, 500, dtype=torch.int16), model)
    with pytest.raises(ValueError, match="must be a tensor"):
        hear_tune.get_scene_embeddings(np.zeros((1, 500), np.float32), model)


def test_untrained_weights_are_fixed_and_announced_once():
    _warn_untrained.cache_clear()
    state = torch.get_rng_state()
    with pytest.warns(hear_tune.UntrainedWarning, match=r"tune\+ has random weights"):
        first = hear_tune.load_model(variant="tune+")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = hear_tune.load_model("", variant="tune+")
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_untrained_weights_are_the_same_whatever_was_drawn_before():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(123)
        first = hear_tune.load_model(variant="tune+")
        torch.manual_seed(456)
        second = hear_tune.load_model(variant="tune+")
    assert first.identity == second.identity


def test_training_mode_never_touches_embeddings(small_model):
    clip = audio(2, 70_000)
    expected = hear_tune.get_scene_embeddings(clip, small_model)
    identity = small_model.identity
    small_model.train()
    torch.testing.assert_close(hear_tune.get_scene_embeddings(clip, small_model), expected)
    assert small_model.identity == identity


def test_windows_are_as_long_as_the_crops_of_training(model):
    encoder = hear_tune.build_encoder(model.encoder.config).eval()
    encoder.training_record = {"crop_samples": 19_683}
    trained = hear_tune.EmbeddingModel(encoder)
    clip = torch.from_numpy(noise(2 * 19_683))
    with torch.no_grad():
        windows = encoder(clip.view(2, 1, 19_683))
    scene = hear_tune.get_scene_embeddings(clip[None], trained)
    torch.testing.assert_close(scene[0], windows.mean(dim=0))
    with pytest.raises(ValueError, match="to 893, not 1000"):
        hear_tune.EmbeddingModel(encoder, hop_ms=1_000)


def test_the_last_window_weighs_what_it_adds(model):
    clip = audio(1, WINDOW_SAMPLES + 10_000)
    with torch.no_grad():
        windows = model.encoder(torch.stack([clip[:, :WINDOW_SAMPLES], clip[:, 10_000:]]))
    share = 10_000 / WINDOW_SAMPLES
    expected = (windows[0] + share * windows[1]) / (1 + share)
    torch.testing.assert_close(hear_tune.get_scene_embeddings(clip, model)[0], expected)


def test_load_model_from_a_checkpoint(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    digest = hear_tune.save_checkpoint(model.encoder, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = hear_tune.load_model(str(path), sha256=digest, layers="tail.5")
    assert loaded.identity == model.identity
    assert loaded.identity.startswith("tune+ sha256:")
    assert loaded.scene_embedding_size == 352
    with pytest.raises(ValueError, match="checkpoint or a variant"):
        hear_tune.load_model(path, variant="clmr")
    with pytest.raises(ValueError, match="no checkpoint was given"):
        hear_tune.load_model(sha256=digest)
    with pytest.raises(hear_tune.CheckpointError, match="its sha256 is"):
        hear_tune.load_model(path, sha256=digest[::-1])


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3 * 24 * 3**9), st.lists(st.integers(0, 10**7), max_size=6))
def test_timestamps_do_not_depend_on_how_a_clip_arrives(small_model, length, cuts):
    """Grid, order, milliseconds, and the values of one pass over the whole clip."""
    clip = noise(length, length)
    blocks = np.split(clip, sorted(cut % (length + 1) for cut in cuts))
    parts = [part for _, part in embed_clips(small_model, [(0, blocks)], "timestamp")]
    vectors = np.concatenate([part.vectors for part in parts])
    centres_ms = np.concatenate([500 * (part.start + part.end) for part in parts])
    whole, timestamps = hear_tune.get_timestamp_embeddings(
        torch.from_numpy(clip)[None], small_model
    )
    np.testing.assert_array_equal(vectors, whole[0])
    np.testing.assert_allclose(centres_ms, timestamps[0], rtol=1e-6)
    if length > 729:
        grid = (np.arange(len(centres_ms)) + 0.5) * 1000 * 729 / 22_050
        np.testing.assert_allclose(centres_ms, grid)
    assert centres_ms[-1] <= 1000 * length / 22_050
    padded = torch.from_numpy(np.pad(clip, (0, -length % 729), mode="symmetric"))[None]
    one_pass = small_model.embed_timestamps(padded)[0, : len(vectors)]
    np.testing.assert_allclose(vectors, one_pass, rtol=1e-4, atol=1e-5)


def test_samples_before_sounds_are_refused(small_model):
    clip = audio(2, 9_000)
    for embed in (hear_tune.get_scene_embeddings, hear_tune.get_timestamp_embeddings):
        with pytest.raises(ValueError, match="more sounds than samples: transpose it"):
            embed(clip.T, small_model)
