"""A single echo."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .transform import RandomTransform


def delay(audio: Tensor, milliseconds: Tensor, sample_rate: int, factor: float = 0.5) -> Tensor:
    """Mix in one echo: (x + factor * delayed x) / 2.

    Parameters
    ----------
    audio : Tensor
        Shape (batch, samples).
    milliseconds : Tensor
        Shape (batch,): the echo's delay, in ms.
    sample_rate : int
        In Hz.
    factor : float
        Amplitude of the echo before the mix.

    Returns
    -------
    Tensor
        Shape (batch, samples); what is delayed beyond the end is dropped.
    """
    mixed = audio / 2
    samples = audio.shape[-1]
    offsets = (milliseconds.double() * sample_rate / 1000).round().long()
    for target, source, offset in zip(mixed, audio, offsets.tolist(), strict=True):
        target[offset:].add_(source[: max(samples - offset, 0)], alpha=factor / 2)
    return mixed


class Delay(RandomTransform):
    """Mix in one echo after one of the delays, in ms, with equal odds."""

    def __init__(
        self,
        sample_rate: int,
        p: float = 0.3,
        milliseconds: Sequence[float] = (200.0, 250.0, 300.0, 350.0, 400.0, 450.0),
        factor: float = 0.5,
    ) -> None:
        super().__init__(p)
        self.sample_rate = sample_rate
        self.milliseconds = tuple(milliseconds)
        self.factor = factor

    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        choice = torch.randint(len(self.milliseconds), (len(audio),), generator=generator)
        milliseconds = torch.tensor(self.milliseconds)[choice]
        return delay(audio, milliseconds, self.sample_rate, self.factor)
