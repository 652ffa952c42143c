import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hear_tune import VARIANTS, ConfigError, SampleCNNConfig, TuneConfig, build_encoder, get_variant
from hear_tune.checkpoints.files import load_checkpoint
from hear_tune.checkpoints.foreign import infer_config, tensor_shapes
from hear_tune.embedding.model import EmbeddingModel
from hear_tune.networks.config import WINDOW_SAMPLES, config_from_dict, config_to_dict
from hear_tune.networks.geometry import encoder_layers
from hear_tune.networks.summary import PROBE_CLASSES, macs_per_second, parameter_count

REFERENCE = json.loads((Path(__file__).parent / "fixtures/reference_outputs.json").read_text())

# Multiply-accumulates of a window, in millions, counted on the reference implementation.
WINDOW_MMACS = {
    "tune+": 833,
    "tune-tail+5": 648,
    "tune-vanilla": 5296,
    "tune-contractive+3": 228,
    "tune-expansive-2": 3915,
    "tune-clmr-tail": 2081,
    "tune+-large": 7313,
    "tune+-smaller-rep": 861,
    "tune-vanilla-small": 622,
    "clmr": 1729,
}


def made_up_tensor(rng, key, shape):
    """The reference outputs' weights, by the rules that come with them."""
    x = rng.standard_normal(shape)
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_var"):
        x = 0.5 + np.abs(x)
    elif key.endswith("running_mean"):
        x = 0.1 * x
    elif len(shape) >= 2:
        x = x * np.sqrt(2 / np.prod(shape[1:]))
    elif key.endswith("weight"):
        x = 1 + 0.1 * x
    else:
        x = 0.1 * x
    return torch.tensor(np.asarray(x, np.float32))


def made_up_audio():
    t = np.arange(WINDOW_SAMPLES) / 22050
    sweep = 0.3 * np.sin(2 * np.pi * 220 * t * (1 + 0.1 * t))
    pings = 0.2 * np.sin(2 * np.pi * 1760 * t) * np.exp(-3 * (t % 0.5))
    square = 0.05 * np.sign(np.sin(2 * np.pi * 55 * t))
    return torch.tensor((sweep + pings + square).astype(np.float32))[None, None]


def reference_state(row):
    rng = np.random.default_rng(0)
    return {key: made_up_tensor(rng, key, shape) for key, shape in row["state_dict"]}


@pytest.mark.parametrize("name", REFERENCE)
def test_equals_the_reference_implementation(name, tmp_path):
    """Weights under the reference's names, the variant found from the tensors, equal outputs."""
    path = tmp_path / "reference.pt"
    torch.save(reference_state(REFERENCE[name]), path)
    encoder = load_checkpoint(path)
    assert encoder.config == get_variant(name).config
    with torch.no_grad():
        embedding = encoder(made_up_audio())[0].numpy()
    expected = np.array(REFERENCE[name]["expected"])
    assert np.abs(embedding - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", REFERENCE)
def test_parameter_counts_are_the_published_ones(name):
    row = REFERENCE[name]
    config = get_variant(name).config
    assert parameter_count(config, PROBE_CLASSES) == row["parameters_with_50_class_head"]
    assert config.embedding_size == row["embedding_size"]


@pytest.mark.parametrize("name", WINDOW_MMACS)
def test_macs(name):
    macs = macs_per_second(get_variant(name).config) * WINDOW_SAMPLES / 22050
    assert round(macs / 1e6) == pytest.approx(WINDOW_MMACS[name], abs=1)


@pytest.mark.parametrize("name", VARIANTS)
def test_layers_describe_the_network(name):
    encoder = build_encoder(VARIANTS[name].config).eval()
    names = [layer.name for layer in encoder.layers]
    with torch.no_grad():
        features = encoder.features(torch.randn(1, 1, encoder.stride), names)
    assert list(features) == names
    for layer in encoder.layers:
        shape = (1, layer.channels, encoder.stride // layer.stride)
        assert tuple(features[layer.name].shape) == shape
        assert encoder.get_submodule(layer.name).conv.in_channels == layer.in_channels


@pytest.mark.parametrize("name", VARIANTS)
def test_config_is_found_from_shapes_and_survives_json(name):
    config = VARIANTS[name].config
    assert infer_config(tensor_shapes(config)) == config
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


@pytest.mark.parametrize(
    ("size", "widths"),
    [
        (32, [22, 32, 32, 32, 32, 32, 32, 32, 32]),
        (64, [22, 44, 64, 64, 64, 64, 64, 64, 64]),
        (128, [22, 44, 88, 128, 128, 128, 128, 128, 128]),
        (1024, [22, 44, 88, 176, 352, 704, 1024, 1024, 1024]),
    ],
)
def test_other_representation_sizes(size, widths):
    layers = encoder_layers(VARIANTS[f"tune+-rep-{size}"].config)
    assert [layer.channels for layer in layers if layer.name.startswith("tail")] == widths


CUSTOM = [
    TuneConfig(3, contractive=2, expansive=1, tail=3, extra_connections=True, embedding_size=7),
    TuneConfig(2, contractive=3, expansive=0, tail=1, embedding_size=5),
    TuneConfig(2, contractive=4, expansive=4, tail=6, extra_connections=True, embedding_size=16),
    TuneConfig(2, contractive=2, expansive=2, tail=SampleCNNConfig((3, 4, 5)), embedding_size=5),
    SampleCNNConfig((4, 6, 8)),
]


@pytest.mark.parametrize("config", CUSTOM)
def test_receptive_field_is_what_reaches_a_frame(config):
    """Clicks beyond it never change a frame; on the way down, clicks at its borders do."""
    encoder = build_encoder(config).double().eval()
    for module in encoder.modules():  # positive weights let a click pass ReLU and max pooling
        if isinstance(module, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    length = encoder.stride * 15
    for layer in encoder.layers:
        grid = layer.grid
        assert grid.last - grid.first + 1 == grid.receptive_field
        frames = length // grid.stride // 2 + torch.arange(-1, 2)
        clicks = torch.zeros(len(frames), 4, length, dtype=torch.double)
        for column, offset in enumerate([grid.first - 1, grid.first, grid.last, grid.last + 1]):
            clicks[torch.arange(len(frames)), column, frames * grid.stride + offset] = 1e3
        silent = torch.zeros(1, 1, length, dtype=torch.double)
        with torch.no_grad():
            outputs = encoder.features(clicks.view(-1, 1, length), [layer.name])[layer.name]
            expected = encoder.features(silent, [layer.name])[layer.name]
        close = torch.isclose(outputs, expected, rtol=1e-9, atol=1e-9)
        changed = (~close).any(dim=1).view(len(frames), 4, -1)
        before, first, last, after = changed[torch.arange(len(frames)), :, frames].any(dim=0)
        assert not before, layer.name
        assert not after, layer.name
        if layer.name.startswith(("contractive", "blocks")):
            assert first, layer.name
            assert last, layer.name


def test_no_expansive_path_leaves_a_plain_cnn():
    names = [layer.name for layer in encoder_layers(CUSTOM[1])]
    assert names == ["contractive.0", "contractive.1", "contractive.2", "contractive.3", "tail.4"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"filters": 0}, "filters must be a positive integer"),
        ({"filters": 2.5}, "filters must be a positive integer"),
        ({"filters": 11, "expansive": 5}, "between 0 and the contractive length 4"),
        ({"filters": 11, "tail": 0}, "tail must be a positive integer"),
        ({"filters": 11, "tail": 13}, "too deep"),
        ({"filters": 11, "contractive": 60}, "too deep"),
        ({"filters": 10_000}, "too wide"),
        ({"filters": 11, "embedding_size": 10**6}, "too wide"),
        ({"filters": 11, "tail_flat_from": 9}, "levels 1 to 4"),
        ({"filters": 11, "tail": SampleCNNConfig(), "embedding_size": 9}, "ends in 512"),
        ({"filters": 11, "tail": SampleCNNConfig(), "extra_connections": True}, "SampleCNN"),
    ],
)
def test_impossible_networks_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        TuneConfig(**fields)


def test_unknown_names_are_refused_with_a_hint(small_model):
    with pytest.raises(ConfigError, match=r"did you mean tune\+"):
        get_variant("tune++")
    with pytest.raises(ValueError, match=r"has contractive\.0"):
        small_model.encoder.features(torch.zeros(1, 1, 27), ["tail.99"])


def test_fine_layers_need_no_coarse_frames():
    """Their timestamps are those beside a coarser layer, from audio too short for that one."""
    encoder = build_encoder(TuneConfig(2, contractive=4, expansive=4, tail=8, embedding_size=8))
    beside = EmbeddingModel(encoder, timestamp_layers="contractive.4,tail.6,tail.8")
    fine = EmbeddingModel(encoder, timestamp_layers="contractive.4,tail.6")
    audio = torch.rand(1, 9 * 6_561) - 0.5
    size = fine.timestamp_embedding_size
    torch.testing.assert_close(
        fine.embed_timestamps(audio), beside.embed_timestamps(audio)[..., :size]
    )
    assert fine.embed_timestamps(audio[:, : 2 * 729]).shape == (1, 2, size)
    (stretch,) = fine.stretches([audio[0, :730].numpy()])
    assert len(stretch.samples) == 2 * 729
    with pytest.raises(ValueError, match=r"multiple of 6561, the coarsest stride on the way to"):
        beside.embed_timestamps(audio[:, : 2 * 729])


def test_audio_of_a_wrong_shape_is_refused(small_model):
    for shape in [(27,), (1, 27), (1, 2, 27)]:
        with pytest.raises(ValueError, match="batch, 1, samples"):
            small_model.encoder(torch.zeros(shape))
    for length in (0, 26, 28):
        with pytest.raises(ValueError, match="multiple of 27"):
            small_model.encoder(torch.zeros(1, 1, length))


@pytest.mark.parametrize("variant", ["tune+", "clmr"])
def test_torch_compile_sees_one_graph(variant):
    encoder = build_encoder(get_variant(variant).config).eval()
    audio = torch.randn(2, 1, encoder.stride)
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(audio), encoder(audio))
