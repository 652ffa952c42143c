"""Baselines for comparison: features without learning, and musicnn.

This module is a HEAR module, as `hear_tune` is:
``python -m heareval.embeddings.runner hear_tune.baselines --model-options '{"name": "mfcc"}'``.
"""

from __future__ import annotations

import os

from ..embedding.model import EmbeddingModel, LayerChoice
from ..hear import get_scene_embeddings, get_timestamp_embeddings
from ..networks.encoders import LayeredEncoder
from .musicnn import Musicnn
from .spectral import LogMel, MfccStatistics

BASELINES: dict[str, type[LayeredEncoder]] = {
    "log-mel": LogMel,
    "mfcc": MfccStatistics,
    "musicnn": Musicnn,
}

__all__ = [
    "BASELINES",
    "LogMel",
    "MfccStatistics",
    "Musicnn",
    "get_scene_embeddings",
    "get_timestamp_embeddings",
    "load_model",
]


def load_model(
    model_file_path: str | os.PathLike[str] = "",
    *,
    name: str,
    layers: LayerChoice = None,
    timestamp_layers: LayerChoice = None,
    hop_ms: float | None = None,
) -> EmbeddingModel:
    """Load a baseline.

    Parameters
    ----------
    model_file_path : str or path-like
        Must be empty: baselines need no checkpoint.
    name : str
        One of `BASELINES`.
    layers, timestamp_layers : str or sequence of str, optional
    hop_ms : float, optional
        As for `hear_tune.load_model`.

    Returns
    -------
    EmbeddingModel
        In evaluation mode.

    Raises
    ------
    ValueError
        If the baseline is unknown, a checkpoint is given, or an option is invalid.
    """
    if os.fspath(model_file_path):
        raise ValueError(f"baselines take no checkpoint: {os.fspath(model_file_path)}")
    if name not in BASELINES:
        raise ValueError(f"no baseline {name!r}: one of {', '.join(sorted(BASELINES))}")
    return EmbeddingModel(BASELINES[name]().eval(), layers, timestamp_layers, hop_ms)
