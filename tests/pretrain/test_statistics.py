"""Statistics of a layer that is being trained: standardised, whatever its level, and resumable."""

import pytest
import torch

from hear_tune.networks.projection import STATISTICS
from hear_tune.pretrain.statistics import LayerStatistics

CHANNELS = 4


def layer(seed, level=1.0):
    """Outputs of a ReLU, (64, CHANNELS, 27), whose second channel is dead."""
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.rand(64, CHANNELS, 1, generator=generator)
    feature = level * loudness * torch.rand(64, CHANNELS, 27, generator=generator)
    feature[:, 1] = 0
    return feature


@pytest.mark.parametrize("level", [1e-2, 1, 1e3])
def test_statistics_are_standardised_at_any_level(level):
    pooled = LayerStatistics(CHANNELS)
    for seed in range(20):
        rows = pooled(layer(seed, level))
    assert rows.shape == (64, pooled.size)
    alive = torch.arange(pooled.size) % CHANNELS != 1
    assert rows[:, alive].mean(dim=0).abs().max() < 0.4
    assert 0.7 < rows[:, alive].std(dim=0).mean() < 1.3
    assert not rows[:, ~alive].any()


def test_they_are_of_means_deviations_and_maxima():
    """Of one channel each, two windows with other means, other spreads, other peaks."""
    feature = torch.ones(2, 3, 9)
    feature[1, 0] = 2.0
    feature[:, 1, ::2] += torch.tensor([0.1, 0.5])[:, None]
    feature[:, 1] -= feature[:, 1].mean(dim=1, keepdim=True) - 1
    feature[1, 2, 4] = 3.0
    rows = LayerStatistics(3)(feature)
    change = (rows[1] - rows[0]).unflatten(0, (STATISTICS, 3))
    means, deviations, maxima = change
    assert means[0] > 1
    assert means[1].abs() < 1e-3
    assert deviations[1] > 1
    assert deviations[0].abs() < 1e-3
    assert maxima[2] > 1


def test_evaluation_moves_nothing():
    pooled = LayerStatistics(CHANNELS)
    pooled(layer(0))
    before = {name: tensor.clone() for name, tensor in pooled.state_dict().items()}
    first = pooled.eval()(layer(1))
    torch.testing.assert_close(pooled(layer(1)), first, rtol=0, atol=0)
    assert all(torch.equal(before[name], new) for name, new in pooled.state_dict().items())


def test_one_window_and_silence_have_gradients():
    for feature in (layer(0)[:1], torch.zeros(8, CHANNELS, 27)):
        pooled = LayerStatistics(CHANNELS)
        feature = feature.requires_grad_()
        pooled(feature).square().sum().backward()
        assert torch.isfinite(feature.grad).all()
