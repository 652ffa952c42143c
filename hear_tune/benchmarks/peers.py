"""Networks of other packages to compare with, if they are installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Peer:
    """A network of another package, with random weights, as these do not affect the time.

    Attributes
    ----------
    package : str
        The module that must be installed.
    sample_rate : int
        Of its audio, in Hz.
    build : callable
        Returns a function that embeds audio: (batch, samples) to (batch, size).
    """

    package: str
    sample_rate: int
    build: Callable[[], Callable[[Tensor], Tensor]]


def _hubert() -> Callable[[Tensor], Tensor]:
    import torchaudio

    network = torchaudio.models.hubert_base().eval()

    @torch.no_grad()
    def embed(audio: Tensor) -> Tensor:
        layers, _ = network.extract_features(audio)
        mean: Tensor = layers[-1].mean(dim=1)
        return mean

    return embed


PEERS = {"HuBERT base, MERT's network": Peer("torchaudio", 16_000, _hubert)}
