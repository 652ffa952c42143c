"""Resemblyzer, a speaker encoder (Wan et al., "Generalized end-to-end loss", 2018).

A clip is embedded as the package embeds an utterance, but whole: its voice detector would cut music
out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from resemblyzer import VoiceEncoder, hparams
from resemblyzer.audio import normalize_volume
from torch import Tensor, nn

from . import refuse_checkpoint

TIMESTAMPS_PER_SECOND = 20
WINDOW_SAMPLES = hparams.partials_n_frames * hparams.mel_window_step * hparams.sampling_rate // 1000


class SpeakerEncoder(nn.Module):
    """The encoder with the weights in its package."""

    sample_rate = hparams.sampling_rate
    scene_embedding_size = timestamp_embedding_size = hparams.model_embedding_size

    def __init__(self) -> None:
        super().__init__()
        self.encoder = VoiceEncoder("cpu", verbose=False)


def load_model(model_file_path: str = "") -> SpeakerEncoder:
    """Load the weights in resemblyzer; there are no others."""
    refuse_checkpoint(model_file_path)
    return SpeakerEncoder().eval()


def get_scene_embeddings(audio: Tensor, model: SpeakerEncoder) -> Tensor:
    """Embed audio (n_sounds, n_samples) as utterances."""
    scenes = [_encoder(model).embed_utterance(_leveled(clip)) for clip in audio]
    return torch.from_numpy(np.stack(scenes)).to(audio)


def get_timestamp_embeddings(audio: Tensor, model: SpeakerEncoder) -> tuple[Tensor, Tensor]:
    """Embed windows of 1.6 s around each timestamp; return embeddings and centres in ms."""
    clips = []
    for clip in audio:
        padded = np.pad(_leveled(clip), WINDOW_SAMPLES // 2)
        _, windows, places = _encoder(model).embed_utterance(
            padded, return_partials=True, rate=TIMESTAMPS_PER_SECOND
        )
        clips.append(windows)
    centres = torch.tensor([1000 * place.start / model.sample_rate for place in places])
    within = centres < 1000 * audio.shape[1] / model.sample_rate
    embeddings = torch.from_numpy(np.stack(clips)).to(audio)
    return embeddings[:, within], centres[within].to(audio).expand(len(audio), -1)


def _encoder(model: SpeakerEncoder) -> VoiceEncoder:
    """Tell the encoder its device, which it keeps beside its weights."""
    model.encoder.device = next(model.encoder.parameters()).device
    return model.encoder


def _leveled(clip: Tensor) -> npt.NDArray[np.float32]:
    samples: npt.NDArray[np.float32] = clip.cpu().numpy()
    if not samples.any():
        return samples
    louder = normalize_volume(samples, hparams.audio_norm_target_dBFS, increase_only=True)
    return np.asarray(louder, np.float32)
