"""CREPE (Kim et al., "CREPE: a convolutional representation for pitch estimation", 2018).

The embedding is the output of the fifth block of torchcrepe's network, as in HEAR's own baseline,
but every 50 ms.
"""

from __future__ import annotations

import torch
import torchcrepe
from torch import Tensor, nn

from . import refuse_checkpoint

HOP_SAMPLES = 800  # at CREPE's 16 kHz
BATCH_FRAMES = 256


class Crepe(nn.Module):
    """The embedding layer.

    Parameters
    ----------
    capacity : {"full", "tiny"}
        Size of the network.
    """

    sample_rate = torchcrepe.SAMPLE_RATE

    def __init__(self, capacity: str = "full") -> None:
        super().__init__()
        torchcrepe.load.model("cpu", capacity)
        self.network = torchcrepe.infer.model
        self.scene_embedding_size = self.network.in_features
        self.timestamp_embedding_size = self.network.in_features

    def forward(self, audio: Tensor) -> Tensor:
        """Embed audio (samples,) as (1 + samples // 800, size)."""
        batches = torchcrepe.preprocess(
            audio[None].cpu(), self.sample_rate, HOP_SAMPLES, BATCH_FRAMES, audio.device
        )
        return torch.cat([self.network.embed(frames).flatten(1) for frames in batches])


def load_model(model_file_path: str = "", capacity: str = "full") -> Crepe:
    """Load the weights in torchcrepe; there are no others."""
    refuse_checkpoint(model_file_path)
    return Crepe(capacity).eval()


@torch.no_grad()
def get_timestamp_embeddings(audio: Tensor, model: Crepe) -> tuple[Tensor, Tensor]:
    """Embed audio (n_sounds, n_samples); return embeddings, and their centres in ms."""
    embeddings = torch.stack([model(clip) for clip in audio])
    centres = 1000 * HOP_SAMPLES / model.sample_rate * torch.arange(embeddings.shape[1])
    return embeddings, centres.expand(len(audio), -1)


def get_scene_embeddings(audio: Tensor, model: Crepe) -> Tensor:
    """Average the embeddings of audio (n_sounds, n_samples) over time."""
    return get_timestamp_embeddings(audio, model)[0].mean(dim=1)
