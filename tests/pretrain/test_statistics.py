"""Statistics of a layer that is being trained: standardised at any level, and following it."""

import pytest
import torch

from hear_tune.networks.projection import STATISTICS
from hear_tune.pretrain.statistics import LayerStatistics, Moments

CHANNELS = 4
ALIVE = [0, 2, 3]


def layer(seed, level=1.0):
    """Outputs of a ReLU, (64, CHANNELS, 27), whose second channel is dead."""
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.rand(64, CHANNELS, 1, generator=generator)
    feature = level * loudness * torch.rand(64, CHANNELS, 27, generator=generator)
    feature[:, 1] = 0
    return feature


def after(pooled, seeds, level=1.0):
    """Statistics of the last of some batches, (64, statistics, CHANNELS)."""
    for seed in seeds:
        rows = pooled(layer(seed, level))
    return rows.unflatten(1, (len(STATISTICS), CHANNELS))


def assert_standardised(rows):
    assert rows[..., ALIVE].mean(dim=0).abs().max() < 0.35
    deviations = rows[..., ALIVE].std(dim=0)
    assert deviations.min() > 0.75
    assert deviations.max() < 1.25


@pytest.mark.parametrize("level", [1e-2, 1, 1e3])
def test_statistics_are_standardised_at_any_level(level):
    rows = after(LayerStatistics(CHANNELS), range(20), level)
    assert_standardised(rows)
    assert not rows[..., 1].any()


def test_they_follow_a_layer_that_changes():
    pooled = LayerStatistics(CHANNELS)
    after(pooled, range(300))
    rows = after(pooled, [300], level=5)
    assert rows[..., ALIVE].mean() > 0.7
    assert_standardised(after(pooled, range(301, 900), level=5))


def test_they_are_means_deviations_and_maxima():
    """Two windows: channel 0 differs in its mean alone, 1 in its deviation, 2 in its maximum."""
    feature = torch.ones(2, 3, 9)
    feature[:, 0] *= torch.tensor([[1.0], [2.0]])
    feature[:, 1, ::2] += torch.tensor([[0.1], [0.5]])
    feature[:, 1] -= feature[:, 1].mean(dim=1, keepdim=True) - 1
    feature[1, 2, 4] = 3.0
    rows = LayerStatistics(3)(feature)
    means, deviations, maxima = (rows[1] - rows[0]).unflatten(0, (len(STATISTICS), 3))
    assert means[0] > 1
    assert means[1].abs() < 1e-2
    assert deviations[1] > 1
    assert deviations[0].abs() < 1e-2
    assert maxima[2] > 1


def test_a_channel_that_is_rarely_active_stays_in_bounds():
    pooled = LayerStatistics(1)
    for number in range(640):
        feature = torch.zeros(16, 1, 27)
        feature[0] = number % 40 == 0
        rows = pooled(feature)
        assert rows.abs().max() < 60


def test_evaluation_moves_nothing():
    pooled = LayerStatistics(CHANNELS)
    pooled(layer(0))
    before = {name: tensor.clone() for name, tensor in pooled.state_dict().items()}
    first = pooled.eval()(layer(1))
    torch.testing.assert_close(pooled(layer(1)), first, rtol=0, atol=0)
    assert all(torch.equal(before[name], new) for name, new in pooled.state_dict().items())


@pytest.mark.parametrize("steady", [False, True])
def test_gradients_are_those_of_the_statistics(steady):
    """Finite also where a deviation is 0."""
    pooled = LayerStatistics(CHANNELS)
    after(pooled, range(5))
    feature = torch.full((1, CHANNELS, 27), 0.5) if steady else layer(9)[:1]
    feature.requires_grad_()
    pooled(feature).square().sum().backward()
    assert torch.isfinite(feature.grad).all()
    assert all(feature.grad[0, channel].any() for channel in ALIVE)
    assert feature.grad.abs().max() < 1e3


def test_moments_are_those_of_all_rows():
    torch.manual_seed(0)
    rows = 3 * torch.randn(8, 50, 2) + 5
    moments = Moments(2)
    for batch in rows:
        moments.add(batch)
    torch.testing.assert_close(moments.mean, rows.mean(dim=(0, 1)))
    expected = rows.flatten(0, 1).std(dim=0, correction=0)
    torch.testing.assert_close(moments.deviation, expected, rtol=1e-4, atol=1e-4)
