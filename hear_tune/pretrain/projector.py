"""The projection head between encoder and loss."""

from __future__ import annotations

from torch import nn

PROJECTION_SIZE = 64


def projection_head(embedding_size: int, projection_size: int = PROJECTION_SIZE) -> nn.Sequential:
    """Build Linear - ReLU - Linear, without biases: (batch, embedding) -> (batch, projection).

    As in CLMR (Spijkervet & Burgoyne, ISMIR 2021); discarded after training.
    """
    return nn.Sequential(
        nn.Linear(embedding_size, embedding_size, bias=False),
        nn.ReLU(),
        nn.Linear(embedding_size, projection_size, bias=False),
    )
