"""An average of the weights over a run, smoother than where the last step left them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_WARM_UP_STEPS = 10  # the average remembers at most about a tenth of the run


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and batch statistics, of no gradient.

    Early in a run it forgets faster, so that random first weights are soon out of it: step n leaves
    the share min(decay, (1 + n) / (10 + n)) of the old.

    Parameters
    ----------
    model
        Whose weights are followed by ``update_parameters``.
    decay
        Share of the old that a late step leaves.

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
            else:  # numbers of batches
                average.copy_(new)

    averaged = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    return averaged.requires_grad_(False)
