import pytest
import torch

from hear_tune.pretrain.average import moving_average


def follow(decay, values):
    """Average of a single weight over these values."""
    model = torch.nn.Linear(1, 1, bias=False)
    average = moving_average(model, decay)
    for value in values:
        torch.nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    return average.module.weight.item()


def test_random_initial_weights_soon_fade():
    assert follow(0.999, [1_000.0] + 100 * [1.0]) == pytest.approx(1.0, abs=1e-3)


def test_late_steps_are_averaged_as_the_decay_says():
    before = follow(0.9, 200 * [0.0])
    assert before == 0
    assert follow(0.9, [*(200 * [0.0]), 1.0]) == pytest.approx(0.1)
    assert follow(0.9, [*(200 * [0.0]), 1.0, 1.0]) == pytest.approx(0.19)


def test_batch_statistics_are_averaged_and_counts_copied():
    model = torch.nn.BatchNorm1d(2)
    average = moving_average(model, 0.5)
    for _ in range(3):
        model(torch.randn(8, 2) + 4)
        average.update_parameters(model)
    assert int(average.module.num_batches_tracked) == 3
    assert not torch.equal(average.module.running_mean, model.running_mean)
    assert not any(parameter.requires_grad for parameter in average.parameters())


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_decays_out_of_range_are_refused(decay):
    with pytest.raises(ValueError, match=r"within \(0, 1\)"):
        moving_average(torch.nn.Linear(1, 1), decay)
