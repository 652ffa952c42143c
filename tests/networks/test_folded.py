"""The folded network computes what the plain one does."""

import copy

import pytest
import torch
from conftest import noise, tone
from torch.nn import functional as F

import hear_tune
from hear_tune.networks.folded import FoldedEncoder


def encoder_with_statistics(name):
    """Random weights whose batch normalisation is far from the identity."""
    torch.manual_seed(0)
    encoder = hear_tune.build_encoder(hear_tune.get_variant(name).config)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    return encoder.eval()


@pytest.fixture(scope="module")
def encoder():
    return encoder_with_statistics("tune+")


@pytest.mark.parametrize("name", list(hear_tune.VARIANTS))
def test_every_layer_of_every_variant_is_that_of_the_plain_network(name):
    plain = encoder_with_statistics(name)
    names = [layer.name for layer in plain.layers]
    audio = torch.from_numpy(noise(2 * plain.stride)).view(2, 1, -1)
    with torch.no_grad():
        expected = plain.features(audio, names)
        features = FoldedEncoder(plain).features(audio, names)
    for name in names:
        assert features[name].shape == expected[name].shape
        largest = expected[name].abs().max()
        torch.testing.assert_close(features[name], expected[name], rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize("per", ["track", "window", "timestamp"])
def test_embeddings_do_not_depend_on_the_backend(encoder, per):
    samples = noise(100_000)
    rows = {
        backend: hear_tune.embed_array(
            samples, 22_050, hear_tune.EmbeddingModel(encoder, backend=backend), per
        ).vectors
        for backend in ("eager", "folded", "auto")
    }
    tolerance = 1e-4 * abs(rows["eager"]).max()
    assert abs(rows["folded"] - rows["eager"]).max() < tolerance
    assert (rows["auto"] == rows["folded"]).all()


def test_bfloat16_rounds_and_says_so():
    exact = hear_tune.load_model(backend="eager")
    rounded = hear_tune.load_model(precision="bfloat16")
    clip = torch.from_numpy(noise(50_000))[None]
    scenes = hear_tune.get_scene_embeddings(clip, exact)
    rough = hear_tune.get_scene_embeddings(clip, rounded)
    assert rough.dtype == torch.float32
    assert 0 < 1 - F.cosine_similarity(rough, scenes) < 5e-4
    assert rounded.identity == f"{exact.identity} bfloat16"


def test_changed_weights_change_embeddings(encoder):
    model = hear_tune.EmbeddingModel(copy.deepcopy(encoder), backend="folded")
    audio = torch.from_numpy(noise(59_049))[None]
    before = model.embed_windows(audio)
    assert torch.equal(model.embed_windows(audio), before)
    with torch.no_grad():
        model.encoder.tail["9"].norm.bias.add_(1)
    assert not torch.allclose(model.embed_windows(audio), before)
    model.encoder.load_state_dict(encoder.state_dict())
    assert torch.equal(model.embed_windows(audio), before)


def halve_data(encoder):
    for parameter in encoder.parameters():
        parameter.data.mul_(0.5)


def halve_by_a_vector(encoder):
    vector = torch.nn.utils.parameters_to_vector(encoder.parameters())
    torch.nn.utils.vector_to_parameters(0.5 * vector, encoder.parameters())


def move_statistics(encoder):
    encoder.tail["9"].norm.running_mean.data.add_(1)


@pytest.mark.parametrize("edit", [halve_data, halve_by_a_vector, move_statistics])
def test_edits_that_leave_no_version_are_noticed(encoder, edit):
    """Averages of weights and hand-written optimizers edit a tensor's data."""
    model = hear_tune.EmbeddingModel(copy.deepcopy(encoder), backend="folded")
    audio = torch.from_numpy(noise(59_049))[None]
    before = model.embed_windows(audio)
    edit(model.encoder)
    expected = hear_tune.EmbeddingModel(model.encoder, backend="folded").embed_windows(audio)
    assert torch.equal(model.embed_windows(audio), expected)
    assert not torch.allclose(expected, before)


@pytest.mark.parametrize("backend", ["eager", "folded"])
def test_an_encoder_in_training_embeds_as_in_evaluation_and_goes_on_training(encoder, backend):
    audio = torch.from_numpy(noise(59_049))[None]
    expected = hear_tune.EmbeddingModel(encoder, backend=backend).embed_windows(audio)
    trained = copy.deepcopy(encoder).train()
    trained.tail["9"].eval()  # as one part that is frozen
    modes = [module.training for module in trained.modules()]
    state = copy.deepcopy(trained.state_dict())
    model = hear_tune.EmbeddingModel(trained, backend=backend)
    assert torch.equal(model.embed_windows(audio), expected)
    assert [module.training for module in trained.modules()] == modes
    assert all(torch.equal(state[name], tensor) for name, tensor in trained.state_dict().items())


def test_quiet_overtones_survive_bfloat16():
    """The waveform is convolved in float32: rounded to 8 bits, a loud sine would mask them."""
    torch.manual_seed(0)
    encoder = hear_tune.build_encoder(hear_tune.TuneConfig(4)).eval()
    with torch.no_grad():  # a filter that rejects low frequencies
        encoder.contractive["0"].conv.weight.copy_(torch.tensor([1.0, -2.0, 1.0]))
        encoder.contractive["0"].conv.bias.zero_()
    loud = torch.from_numpy(tone(50, 19_683))
    both = loud + torch.from_numpy(1e-3 * tone(9_000, 19_683))
    audio = torch.stack([loud, both])[:, None].float()
    exact = FoldedEncoder(encoder).features(audio, ["contractive.0"])["contractive.0"]
    rounded = FoldedEncoder(encoder, torch.bfloat16).features(audio, ["contractive.0"])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        trained = encoder.features(audio, ["contractive.0"])["contractive.0"]
    for found in (rounded["contractive.0"].float(), trained.float()):
        overtone = (found[1] - found[0]).abs().mean()
        torch.testing.assert_close(overtone, (exact[1] - exact[0]).abs().mean(), rtol=0.05, atol=0)


@pytest.mark.parametrize("backend", ["eager", "folded"])
def test_inference_mode(backend):
    """A model loaded or first used in inference mode is like any other."""
    audio = torch.from_numpy(noise(59_049))[None]
    expected = hear_tune.load_model(backend=backend).embed_windows(audio)
    with torch.inference_mode():
        model = hear_tune.load_model(backend=backend)
        assert torch.equal(model.embed_windows(audio), expected)
    assert torch.equal(model.embed_windows(audio), expected)
    model.encoder(audio[:, None, :19_683]).sum().backward()
    grads = {name: p.grad for name, p in model.encoder.named_parameters()}
    assert all(g is not None for name, g in grads.items() if not name.startswith("projections"))


def test_the_encoder_stays_as_it_is(encoder):
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    model = hear_tune.EmbeddingModel(encoder, backend="folded", precision="bfloat16")
    model.embed_windows(torch.from_numpy(noise(59_049))[None])
    assert model.encoder is encoder
    assert all(torch.equal(encoder.state_dict()[name], tensor) for name, tensor in state.items())
    assert all(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("backend", ["eager", "folded"])
def test_what_is_no_number_is_not_hidden(encoder, backend):
    broken = copy.deepcopy(encoder)
    with torch.no_grad():
        broken.contractive["2"].conv.weight[0] = torch.inf
        broken.contractive["2"].conv.weight[1] = -torch.inf
    model = hear_tune.EmbeddingModel(broken, backend=backend)
    assert model.embed_windows(torch.from_numpy(noise(59_049))[None]).isnan().any()


def test_unknown_choices(encoder):
    with pytest.raises(ValueError, match="backend must be one of auto, eager, folded"):
        hear_tune.EmbeddingModel(encoder, backend="onnx")
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16"):
        hear_tune.EmbeddingModel(encoder, precision="int8")
    with pytest.raises(ValueError, match="bfloat16 is for the folded network"):
        hear_tune.EmbeddingModel(encoder, backend="eager", precision="bfloat16")


def test_the_folded_network_is_the_same_for_any_number_of_threads(model):
    folded = []
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            torch.set_num_threads(threads)
            network = hear_tune.EmbeddingModel(model.encoder, backend="folded")
            folded.append(network.inference.of(model.encoder).state_dict())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(tensor, folded[1][name]) for name, tensor in folded[0].items())
