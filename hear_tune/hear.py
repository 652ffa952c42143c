"""The HEAR interface: https://hearbenchmark.com/hear-api.html.

`hear_tune` itself is the HEAR module: these three functions are found there.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from .audio.reading import UNUSABLE, are_usable
from .checkpoints.pretrained import load_encoder
from .common.devices import one_thread
from .common.samples import Samples
from .embedding.batching import ClipEmbeddings, embed_clips
from .embedding.framing import Per
from .embedding.model import EmbeddingModel, LayerChoice
from .networks.config import Backend, Precision
from .networks.encoders import Encoder, build_encoder
from .networks.variants import get_variant
from .weights import DEFAULT_PRETRAINED

UNTRAINED_SEED = 0


class UntrainedWarning(UserWarning):
    """Embeddings come from random weights."""


def load_model(
    model_file_path: str | os.PathLike[str] = "",
    *,
    variant: str | None = None,
    sha256: str | None = None,
    layers: LayerChoice = None,
    timestamp_layers: LayerChoice = None,
    hop_ms: float | None = None,
    backend: Backend = "auto",
    precision: Precision = "float32",
    whitened: bool = True,
) -> EmbeddingModel:
    """Load a model that embeds audio at 22,050 Hz.

    Parameters
    ----------
    model_file_path : str or path-like
        Name of weights in the package (`hear_tune.PRETRAINED`), by default those of TUNE+; or a
        checkpoint: hear-tune's safetensors (or a folder of ``save_pretrained``), the TUNE authors'
        Lightning ``.ckpt``, or CLMR's ``.pt``.
    variant : str, optional
        Published encoder to build with random weights from a fixed seed instead, with a warning.
    sha256 : str, optional
        Expected hash of the checkpoint, checked before it is read.
    layers : str or sequence of str, optional
        Layers of scene embeddings: one name, several (comma-separated or a list; concatenated), or
        "all". ``hear-tune variants NAME`` lists the names. By default those that the checkpoint
        names (`Encoder.embedding_layers`), else the last, the paper's embedding.
    timestamp_layers : str or sequence of str, optional
        Layers of timestamp embeddings, likewise; by default those that the checkpoint names, else
        three time scales (see `get_timestamp_embeddings`).
    hop_ms : float, optional
        Time between the starts of a scene's windows in milliseconds; by default windows are
        adjacent.
    backend : {"auto", "eager", "folded"}
        "eager" computes the network as written; "folded" rearranges it for CPUs, where it is
        several times faster; "auto" chooses the faster one. Embeddings agree up to float32
        rounding.
    precision : {"float32", "bfloat16", "float16"}
        "bfloat16" is faster still on CPUs that support it. With the weights in the
        package, embeddings then lie within a cosine distance of 3e-3 of those in float32.
        "float16" is for GPUs only.
    whitened : bool
        Embed with the checkpoint's whitened layers, if it has them and no layers are named. False
        takes the layers that they are made of.

    Returns
    -------
    EmbeddingModel
        In evaluation mode, with `sample_rate`, `scene_embedding_size` and
        `timestamp_embedding_size`.

    Raises
    ------
    FileNotFoundError, CheckpointError
        If the checkpoint is missing or unusable.
    ValueError
        If an option is invalid, or both a variant and a checkpoint are given.
    """
    given = bool(os.fspath(model_file_path))
    if sha256 is not None and not given:
        raise ValueError("sha256 is a checkpoint's hash, and no checkpoint was given")
    if variant is None:
        encoder = load_encoder(model_file_path if given else DEFAULT_PRETRAINED, sha256)
    elif not given:
        encoder = untrained_encoder(variant)
        _warn_untrained(variant)
    else:
        raise ValueError("give a checkpoint or a variant: a checkpoint says what it is")
    return EmbeddingModel(
        encoder.eval(), layers, timestamp_layers, hop_ms, backend, precision, whitened
    )


def get_scene_embeddings(audio: Tensor | Sequence[Tensor], model: EmbeddingModel) -> Tensor:
    """Compute one embedding per clip.

    Clips are cut into windows as long as the training crops (in the paper 59,049 samples, 2.68 s),
    and the embeddings of the windows are averaged; of a whitening, the statistics that it projects.
    The last window is aligned with the end of the clip and weighted by the audio that it adds;
    whole windows give the paper's plain mean. A clip shorter than a window is padded with silence.

    Parameters
    ----------
    audio : Tensor or sequence of Tensor
        (n_sounds, n_samples) in -1..1 at 22,050 Hz, with at least as many samples as sounds; or a
        list of (n_samples,) of any lengths.
    model : EmbeddingModel
        From `load_model`.

    Returns
    -------
    Tensor
        (n_sounds, scene_embedding_size) float32 on the model's device. The embedding of a clip does
        not depend on the others.

    Raises
    ------
    ValueError
        If the audio is empty or of another shape.
    """
    scenes = [part.vectors for _, part in _embed(audio, model, "track")]
    return torch.from_numpy(np.concatenate(scenes)).to(model.device)


def get_timestamp_embeddings(audio: Tensor, model: EmbeddingModel) -> tuple[Tensor, Tensor]:
    """Compute one embedding per 729 samples (33.06 ms).

    The layers come at the network's several time scales: finer ones are averaged over each
    timestamp's samples, coarser ones interpolated between the centres of their frames. By default
    the weights in the package embed ``tail.4`` (3.7 ms) and ``tail.5`` (11 ms), whitened. Other
    weights of "tune+" have ``contractive.4`` (3.7 ms, local timbre and pitch), ``tail.6`` (33 ms)
    and ``tail.9`` (893 ms, the embedding), unless they name others. The result is that of one pass
    over the whole clip, however long: it is computed in segments that overlap by the layers'
    receptive fields. The clip's end is mirrored where the coarsest frame reaches beyond it.

    Parameters
    ----------
    audio : Tensor
        (n_sounds, n_samples) in -1..1 at 22,050 Hz, with at least as many samples as sounds.
    model : EmbeddingModel
        From `load_model`.

    Returns
    -------
    embeddings : Tensor
        (n_sounds, n_timestamps, timestamp_embedding_size) float32, on the model's device.
    timestamps : Tensor
        (n_sounds, n_timestamps) float32, the centres in milliseconds, all within the clip.

    Raises
    ------
    ValueError
        If the audio is empty or of another shape.
    """
    if not isinstance(audio, Tensor):
        raise ValueError("audio must be a tensor (n_sounds, n_samples): timestamps form a matrix")
    parts: dict[int, list[ClipEmbeddings]] = {}
    for index, part in _embed(audio, model, "timestamp"):
        parts.setdefault(index, []).append(part)
    embeddings = np.stack([np.concatenate([p.vectors for p in clip]) for clip in parts.values()])
    centres_ms = [
        np.concatenate([500 * (p.start + p.end) for p in clip]) for clip in parts.values()
    ]
    timestamps = torch.from_numpy(np.stack(centres_ms)).float()
    return torch.from_numpy(embeddings).to(model.device), timestamps.to(model.device)


def _embed(
    audio: Tensor | Sequence[Tensor], model: EmbeddingModel, per: Per
) -> Iterable[tuple[int, ClipEmbeddings]]:
    if (isinstance(audio, Tensor) and audio.ndim != 2) or len(audio) == 0:
        shape = tuple(audio.shape) if isinstance(audio, Tensor) else "an empty list"
        raise ValueError(f"audio must be (n_sounds, n_samples), at least one of each, not {shape}")
    clips = [_samples(clip) for clip in audio]
    if isinstance(audio, Tensor) and audio.shape[0] > audio.shape[1]:
        raise ValueError(
            f"audio of shape {tuple(audio.shape)} has more sounds than samples: transpose it to "
            "(n_sounds, n_samples)"
        )
    return embed_clips(model, ((i, [clip]) for i, clip in enumerate(clips)), per)


def _samples(clip: Tensor) -> Samples:
    if not isinstance(clip, Tensor):
        raise ValueError(f"a clip must be a tensor, not {type(clip).__name__}: see embed_array")
    if clip.ndim != 1 or len(clip) == 0:
        raise ValueError(f"a clip must be (n_samples,), at least one, not {tuple(clip.shape)}")
    if not clip.is_floating_point():
        raise ValueError(f"audio must be floating point in -1..1, not {clip.dtype}")
    samples: Samples = clip.detach().float().cpu().numpy()
    if not are_usable(samples):
        raise ValueError(f"audio has {UNUSABLE}")
    return samples


def untrained_encoder(variant: str) -> Encoder:
    """Build a published encoder with random weights from a fixed seed, in training mode."""
    encoder_config = get_variant(variant).config
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(UNTRAINED_SEED)
        return build_encoder(encoder_config)


@cache
def _warn_untrained(variant: str) -> None:
    warnings.warn(
        f"{variant} has random weights and its embeddings are a baseline, not a trained model's",
        UntrainedWarning,
        stacklevel=3,
    )
