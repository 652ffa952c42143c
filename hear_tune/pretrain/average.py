"""A moving average of the weights, smoother than those after the last step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_WARM_UP_STEPS = 10  # early on, the average covers about a tenth of the steps so far


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of weights and batch statistics, without gradients.

    Step n keeps the share min(decay, (1 + n) / (10 + n)) of the old average, so that the random
    initial weights soon fade.

    Parameters
    ----------
    model : nn.Module
        The model; ``update_parameters`` adds its current weights.
    decay : float
        Share of the old average that late steps keep.

    Raises
    ------
    ValueError
        If the decay is not within (0, 1).
    """
    if not 0 < decay < 1:
        raise ValueError(f"the decay of an average must be within (0, 1), not {decay}")

    @torch.no_grad()
    def update(averages: Sequence[Tensor], newest: Sequence[Tensor], steps: Tensor | int) -> None:
        kept = min(decay, (1 + int(steps)) / (_WARM_UP_STEPS + int(steps)))
        for average, new in zip(averages, newest, strict=True):
            if average.is_floating_point():
                average.lerp_(new, 1 - kept)
            else:  # counts of batches
                average.copy_(new)

    averaged = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    return averaged.requires_grad_(False)
