"""The upstream's network by itself, which needs no s3prl."""

import pytest
import torch
from conftest import noise

from hear_tune.upstream import UpstreamExpert


@pytest.fixture
def expert(small_model):
    return UpstreamExpert(small_model.encoder, ["tail.3"])


def last_state(expert, *wavs):
    with torch.no_grad():
        return expert(wavs)["last_hidden_state"]


def test_integers_are_scaled(expert):
    integers = (20_000 * torch.from_numpy(noise(9_000))).to(torch.int16)
    expected = last_state(expert, integers / 32_768)
    assert torch.equal(last_state(expert, integers), expected)
    with pytest.raises(ValueError, match="must be floating point, int16 or int32, not uint8"):
        expert([integers.to(torch.uint8)])


def test_samples_before_waveforms_are_refused(expert):
    batch = torch.from_numpy(noise(9_000)).view(2, -1)
    assert expert(batch)["last_hidden_state"].shape[0] == 2
    with pytest.raises(ValueError, match="more waveforms than samples: transpose it"):
        expert(batch.T)


def test_features_leave_the_mode_of_the_encoder_alone(expert):
    expert.encoder.train()
    last_state(expert, torch.from_numpy(noise(9_000)))
    assert all(module.training for module in expert.encoder.modules())
    expert.encoder.eval()
