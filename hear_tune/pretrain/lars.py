"""LARS: layer-wise adaptive rate scaling (You, Gitman & Ginsburg, 2017), for large batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Stochastic gradient descent with momentum and a learning rate per tensor.

    The step of a tensor along ``g + weight_decay * w`` is scaled by
    ``trust * ||w|| / ||g + weight_decay * w||``, as in the code of SimCLR and CLMR; the paper
    divides by ``||g|| + weight_decay * ||w||``, which is never less. If a norm is zero, nothing is
    scaled. Biases and parameters of normalisation layers, which have one axis, take plain steps
    without decay, as in SimCLR. The learning rate applies after the momentum, as in torch's SGD.

    Parameters
    ----------
    params : iterable
        Parameters, or groups of them.
    lr : float
        Learning rate; CLMR uses ``0.3 * batch / 256``.
    momentum, weight_decay : float
        As in SGD.
    trust : float
        Trust coefficient.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust: float = 1e-3,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; return the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_tensor(parameter, group)
        return loss

    def _step_tensor(self, parameter: Tensor, group: dict[str, float]) -> None:
        update = parameter.grad
        assert update is not None
        if parameter.ndim > 1:
            update = update + group["weight_decay"] * parameter
            weight_norm, update_norm = parameter.norm(), update.norm()
            if weight_norm > 0 and update_norm > 0:
                update = update * (group["trust"] * weight_norm / update_norm)
        state = self.state[parameter]
        momentum = state.get("momentum", torch.zeros_like(parameter))
        state["momentum"] = momentum.mul_(group["momentum"]).add_(update)
        parameter.add_(state["momentum"], alpha=-group["lr"])
