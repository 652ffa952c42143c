"""Polarity, noise and gain."""

import torch
from torch import Tensor

from .transform import RandomTransform, Range, uniform


def invert_polarity(audio: Tensor) -> Tensor:
    """Flip the sign of the waveform.

    Parameters
    ----------
    audio : Tensor
        Shape (batch, samples).

    Returns
    -------
    Tensor
        Shape (batch, samples).
    """
    return -audio


class PolarityInversion(RandomTransform):
    """Flip the sign of the waveform."""

    def __init__(self, p: float = 0.8) -> None:
        super().__init__(p)

    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        return invert_polarity(audio)


def add_noise(audio: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Add noise in proportion to each sample's standard deviation.

    Parameters
    ----------
    audio, noise : Tensor
        Shape (batch, samples); the noise has unit variance.
    level : Tensor
        Shape (batch,): standard deviation of the added noise over that of the audio.

    Returns
    -------
    Tensor
        Shape (batch, samples).
    """
    std = audio.std(dim=-1, correction=0, keepdim=True)
    return audio + noise.to(audio) * std * level.to(audio)[:, None]


class Noise(RandomTransform):
    """Add white Gaussian noise of `level` times each sample's standard deviation."""

    def __init__(self, p: float = 0.01, level: Range = (0.0001, 0.01)) -> None:
        super().__init__(p)
        self.level = level

    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        level = uniform(len(audio), self.level, generator)
        return add_noise(audio, torch.randn(audio.shape, generator=generator), level)


def gain(audio: Tensor, decibels: Tensor) -> Tensor:
    """Scale each sample by a level in decibels.

    Parameters
    ----------
    audio : Tensor
        Shape (batch, samples).
    decibels : Tensor
        Shape (batch,), in dB.

    Returns
    -------
    Tensor
        Shape (batch, samples).
    """
    return audio * (10 ** (decibels / 20)).to(audio)[:, None]


class Gain(RandomTransform):
    """Scale by a level in dB."""

    def __init__(self, p: float = 0.3, decibels: Range = (-20.0, -1.0)) -> None:
        super().__init__(p)
        self.decibels = decibels

    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        return gain(audio, uniform(len(audio), self.decibels, generator))
