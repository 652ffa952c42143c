import itertools

import numpy as np
import pytest
import soundfile
import torch
from conftest import noise

import hear_tune
from hear_tune.cli import main
from hear_tune.embedding.library import read_library
from hear_tune.pretrain import WHITENING_COMPRESSION
from hear_tune.pretrain.pcm_store import AudioStore, build_store
from hear_tune.pretrain.whitening import (
    WHITENED,
    WHITENED_TIMESTAMPS,
    Whitening,
    drop_projections,
    whiten,
)

LAYERS = ["contractive.2", "tail.3"]
TIMESTAMP_LAYERS = ["contractive.2", "tail.6"]
SIZE = 12
CROP = 2_187


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Noise of several colours."""
    folder = tmp_path_factory.mktemp("music")
    for number in range(4):
        kernel = np.exp(-np.arange(100) / (1 + 8 * number))
        sound = np.convolve(noise(120_000, number), kernel, "same")
        soundfile.write(folder / f"{number}.wav", 0.9 * sound / np.abs(sound).max(), 22_050)
    build_store([folder], folder / "store", workers=1)
    return folder / "store"


@pytest.fixture(scope="module")
def encoder(store):
    torch.manual_seed(0)
    config = hear_tune.TuneConfig(4, contractive=2, expansive=2, tail=7, embedding_size=16)
    encoder = hear_tune.build_encoder(config).eval()
    encoder.training_record = {"crop_samples": CROP}
    whiten(encoder, [AudioStore(store)], LAYERS, TIMESTAMP_LAYERS, Whitening(SIZE, crops=2000))
    return encoder


@pytest.fixture
def clip():
    return noise(30_000, 9)


def of_store(store, embed):
    tracks = AudioStore(store)
    crops = [tracks.crop(t, s, CROP) for t in tracks.tracks for s in range(0, 110_000, 1_100)]
    return embed(torch.from_numpy(np.stack(crops)) / 2**15)


def spectrum(store, settings, per="windows"):
    """Variances of the principal components of an embedding, from the largest."""
    torch.manual_seed(0)
    config = hear_tune.TuneConfig(4, contractive=2, expansive=2, tail=3, embedding_size=16)
    encoder = hear_tune.build_encoder(config).eval()
    encoder.training_record = {"crop_samples": CROP}
    whiten(encoder, [AudioStore(store)], LAYERS, ["tail.3"], settings)
    embed = getattr(hear_tune.EmbeddingModel(encoder), f"embed_{per}")
    rows = of_store(store, embed).double().reshape(-1, settings.size)
    return torch.linalg.eigvalsh(torch.cov(rows.T)).flip(0)


def test_numbers_have_unit_variance(encoder, store):
    model = hear_tune.EmbeddingModel(encoder)
    assert model.layers == [WHITENED]
    assert model.scene_embedding_size == SIZE
    rows = of_store(store, model.embed_windows)
    assert rows.mean(0).abs().max() < 0.2
    assert 0.7 < rows.var(dim=0).mean() < 1.3


def test_power_decides_how_alike_components_are(store):
    ratios = []
    for power in (1, 0.5, 0):
        variances = spectrum(store, Whitening(SIZE, crops=300, power=power))
        ratios.append(float(variances[0] / variances[3]))
    assert 2 * ratios[0] < ratios[1] < ratios[2] / 2


def test_timestamps_have_a_power_of_their_own(store):
    ratios = []
    for power in (1, 0):
        settings = Whitening(SIZE, crops=300, power=0.5, timestamp_power=power)
        variances = spectrum(store, settings, "timestamps")
        ratios.append(float(variances[0] / variances[3]))
    assert 2 * ratios[0] < ratios[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"power": 1.5},
        {"power": -1},
        {"timestamp_power": 2},
        {"compression": 1e-4},
        {"size": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        Whitening(**wrong)


def test_timestamps_are_whitened_by_themselves(encoder, store):
    model = hear_tune.EmbeddingModel(encoder)
    assert model.timestamp_layers == [WHITENED_TIMESTAMPS]
    rows = of_store(store, model.embed_timestamps).flatten(0, 1)
    assert rows.shape[1] == SIZE
    assert 0.7 < rows[:, :4].std(dim=0).mean() < 1.3


def statistics_of(encoder, crops):
    """Means, deviations and maxima over time of the layers of crops (crops, CROP)."""
    features = encoder.features(crops[:, None], LAYERS).values()
    means = [feature.mean(dim=2) for feature in features]
    deviations = [feature.std(dim=2, correction=0) for feature in features]
    maxima = [feature.amax(dim=2) for feature in features]
    return torch.cat([*itertools.chain(*zip(means, deviations, maxima, strict=True))], dim=1)


@torch.no_grad()
def test_the_projection_is_of_the_layers_statistics(encoder, clip):
    crops = torch.from_numpy(clip[: 3 * CROP]).reshape(3, CROP)
    projection = encoder.projection(WHITENED)
    statistics = statistics_of(encoder, crops)
    expected = projection.linear(torch.log1p(statistics / projection.scale))
    found = hear_tune.EmbeddingModel(encoder).embed_windows(crops)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_track_is_projected_behind_the_mean_of_its_windows(encoder, clip):
    """The last window adds half of its audio; quiet ones must not count as much as loud ones."""
    samples = clip[: 3 * CROP + CROP // 2].copy()
    samples[CROP : 2 * CROP] *= 0.01
    model = hear_tune.EmbeddingModel(encoder, ["tail.4", WHITENED])
    windows = [*model.windows([samples])]
    crops = torch.from_numpy(np.stack([window.samples for window in windows]))
    weights = torch.tensor([1, 1, 1, 0.5])[:, None] / 3.5
    mean = (statistics_of(encoder, crops) * weights).sum(dim=0)
    expected = encoder.projection(WHITENED).of_statistics(mean)
    track = torch.from_numpy(hear_tune.embed_array(samples, 22_050, model).vectors[0])
    by_window = hear_tune.embed_array(samples, 22_050, model, per="window").vectors
    of_windows = (torch.from_numpy(by_window) * weights).sum(dim=0)
    plain, whitened = (model.layer_columns[name] for name in model.layers)
    torch.testing.assert_close(track[whitened], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(track[plain], of_windows[plain], atol=1e-5, rtol=1e-5)
    assert (track - of_windows)[whitened].abs().max() > 0.1
    scene = hear_tune.get_scene_embeddings(torch.from_numpy(samples)[None], model)
    torch.testing.assert_close(scene[0], track)


@torch.no_grad()
def test_each_window_has_statistics_of_its_own(encoder, clip):
    audio = torch.from_numpy(clip[: 3 * CROP])[None, None]
    features = encoder.features(audio, [*LAYERS, WHITENED])
    parts = {name: torch.cat(features[name].chunk(3, dim=2)) for name in LAYERS}
    expected = encoder.projection(WHITENED)(parts, CROP)
    torch.testing.assert_close(features[WHITENED][0].T, expected[..., 0])


@torch.no_grad()
def test_the_more_compression_the_smaller_the_scale(encoder, store):
    statistics = of_store(store, lambda crops: statistics_of(encoder, crops))
    alive = statistics.std(dim=0) > 1e-3
    ratio = encoder.projection(WHITENED).scale[alive] / statistics.std(dim=0)[alive]
    assert alive.sum() > 10
    assert 0.8 < ratio.median() * WHITENING_COMPRESSION < 1.25


def test_silence_has_a_gradient(encoder):
    """The deviation of a constant channel is 0."""
    encoder.zero_grad()
    encoder.features(torch.zeros(2, 1, CROP), [WHITENED])[WHITENED].sum().backward()
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    encoder.zero_grad()


def test_windows_must_be_whole_timestamps(store):
    encoder = hear_tune.build_encoder(hear_tune.TuneConfig(2, 2, 2, 2, embedding_size=8)).eval()
    encoder.training_record = {"crop_samples": 810}
    with pytest.raises(ValueError, match="windows of 810 samples cannot be whitened"):
        whiten(encoder, [AudioStore(store)], ["tail.2"], ["tail.2"], Whitening(crops=64))


@torch.no_grad()
def test_timestamps_are_projected_as_they_are(encoder, clip):
    whitened = hear_tune.EmbeddingModel(encoder)
    plain = hear_tune.EmbeddingModel(encoder, whitened=False)
    assert plain.layers == LAYERS
    assert plain.timestamp_layers == TIMESTAMP_LAYERS
    audio = torch.from_numpy(clip)[None]
    rows, _ = hear_tune.get_timestamp_embeddings(audio, plain)
    found, _ = hear_tune.get_timestamp_embeddings(audio, whitened)
    expected = encoder.projection(WHITENED_TIMESTAMPS).linear(rows)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("half", [False, True])
def test_a_checkpoint_keeps_it(encoder, clip, tmp_path, half):
    path = tmp_path / "whitened.safetensors"
    hear_tune.save_checkpoint(encoder, path)
    if half:
        assert main(["convert", str(path), "--half", "-o", str(path)]) == 0
    model = hear_tune.load_model(path)
    found = hear_tune.embed_array(clip, 22_050, model).vectors
    expected = hear_tune.embed_array(clip, 22_050, hear_tune.EmbeddingModel(encoder)).vectors
    np.testing.assert_allclose(found, expected, atol=0.05 if half else 0)
    assert hear_tune.load_model(path, whitened=False).layers == LAYERS
    assert hear_tune.load_model(path, layers="tail.7").layers == ["tail.7"]


def test_every_way_of_embedding_agrees(encoder, clip):
    model = hear_tune.EmbeddingModel(encoder)
    eager = hear_tune.EmbeddingModel(encoder, backend="eager")
    rounded = hear_tune.EmbeddingModel(encoder, precision="bfloat16")
    tracks = [hear_tune.embed_array(clip, 22_050, m).vectors[0] for m in (model, eager, rounded)]
    np.testing.assert_allclose(tracks[1], tracks[0], atol=1e-4)
    similarity = tracks[2] @ tracks[0] / np.linalg.norm(tracks[2]) / np.linalg.norm(tracks[0])
    assert similarity > 0.99
    audio = torch.from_numpy(clip)[None]
    scene = hear_tune.get_scene_embeddings(audio, model)[0]
    np.testing.assert_allclose(scene, tracks[0], atol=1e-5)
    timestamps, _ = hear_tune.get_timestamp_embeddings(audio, model)
    embedder = hear_tune.Embedder(model, sample_rate=22_050)
    parts = [embedder.push(part) for part in np.array_split(clip, 7)]
    rows = np.concatenate([part.vectors for part in [*parts, embedder.finish()]])
    np.testing.assert_allclose(rows, timestamps[0], atol=1e-4)


def test_it_is_exported(encoder, clip, tmp_path):
    pytest.importorskip("onnxruntime")
    import onnxruntime

    path = tmp_path / "model.safetensors"
    hear_tune.save_checkpoint(encoder, path)
    assert main(["export", str(tmp_path / "x.onnx"), "--model", str(path)]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    found = session.run(None, {"audio": clip[None]})[0][0]
    expected = hear_tune.embed_array(clip, 22_050, hear_tune.EmbeddingModel(encoder)).vectors[0]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_command_whitens(store, tmp_path, clip):
    torch.manual_seed(1)
    config = hear_tune.TuneConfig(2, contractive=2, expansive=2, tail=4, embedding_size=8)
    encoder = hear_tune.build_encoder(config).eval()
    encoder.training_record = {"crop_samples": CROP}
    hear_tune.save_checkpoint(encoder, tmp_path / "plain.safetensors")
    arguments = ["--whiten", str(store), "--layers", "contractive.2,tail.4", "--crops", "64"]
    arguments += ["--compression", "0.5"]
    output = str(tmp_path / "x.safetensors")
    assert main(["convert", str(tmp_path / "plain.safetensors"), "-o", output, *arguments]) == 0
    model = hear_tune.load_model(output)
    assert model.scene_embedding_size == 48  # no more than there are statistics
    stronger = [*arguments[:-1], "5"]
    again = str(tmp_path / "y.safetensors")
    assert main(["convert", str(tmp_path / "plain.safetensors"), "-o", again, *stronger]) == 0
    scales = [hear_tune.load_checkpoint(x).projection(WHITENED).scale for x in (output, again)]
    changed = scales[0] != scales[1]  # not those of statistics that hardly vary
    assert changed.any()
    torch.testing.assert_close(scales[0][changed], 10 * scales[1][changed])
    soundfile.write(tmp_path / "clip.wav", clip, 22_050)
    for options in ([], ["--no-whitening"]):
        rows = str(tmp_path / f"rows{len(options)}.parquet")
        command = ["embed", str(tmp_path / "clip.wav"), "-o", rows, "--model", output, *options]
        assert main(command) == 0
        wanted = hear_tune.load_model(output, whitened=not options)
        expected = hear_tune.embed_array(clip, 22_050, wanted).vectors
        assert read_library(rows).vectors.shape == expected.shape


def test_options_that_need_whitening_are_refused_without_it(encoder, tmp_path, capsys):
    path, output = str(tmp_path / "x.safetensors"), str(tmp_path / "y.safetensors")
    hear_tune.save_checkpoint(encoder, path)
    assert main(["convert", path, "-o", output, "--size", "3"]) == 2
    assert "go with --whiten" in capsys.readouterr().err
    assert main(["convert", path, "-o", output, "--no-whitening", "--whiten", "store"]) == 2
    assert "exclude each other" in capsys.readouterr().err
    assert main(["convert", path, "-o", output, "--no-whitening"]) == 0
    assert hear_tune.load_model(output).layers == LAYERS


def test_more_crops_than_statistics_are_needed(store):
    encoder = hear_tune.build_encoder(hear_tune.TuneConfig(2, 2, 2, 4, embedding_size=8)).eval()
    with pytest.raises(ValueError, match="48 crops cannot whiten 48 statistics"):
        whiten(
            encoder,
            [AudioStore(store)],
            ["contractive.2", "tail.4"],
            ["tail.4"],
            Whitening(crops=48),
        )


def test_too_little_audio_is_remarked(store, capsys):
    encoder = hear_tune.build_encoder(hear_tune.TuneConfig(64, 2, 2, 4, embedding_size=64)).eval()
    encoder.training_record = {"crop_samples": CROP}
    layers = ["contractive.2", "tail.4"]
    count = 3 * sum(encoder.layer(name).channels for name in layers)
    whiten(encoder, [AudioStore(store)], layers, ["tail.4"], Whitening(SIZE, crops=count + 1))
    assert f"windows of audio for {count} statistics" in capsys.readouterr().err


def test_training_goes_on_without_it(encoder):
    copy = hear_tune.build_encoder(encoder.config)
    copy.training_record = dict(encoder.training_record)
    copy.projections = encoder.projections
    drop_projections(copy)
    assert copy.embedding_layers == LAYERS
    assert copy.timestamp_layers == TIMESTAMP_LAYERS
    assert not any(name.startswith("projections") for name in copy.state_dict())
    assert WHITENED in encoder.projections
