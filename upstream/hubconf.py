"""The upstreams by name, for s3prl's hub and for ``torch.hub``.

Imports are absolute because ``torch.hub`` runs this file outside any package.

Every entry takes

ckpt
    Name of weights in the package, or path or URL of a checkpoint: hear-tune's safetensors, the
    TUNE authors' ``.ckpt`` or CLMR's ``.pt``. By default, `tune` and its kin use the package's
    TUNE+, and `clmr` random weights from a fixed seed, with a warning.
refresh
    Whether to download a URL again.
model_config
    YAML file with the options below, for run_downstream (``-g``), which has no other way.
layers
    Names of layers, comma-separated or a list, or "all"; ``hear-tune variants NAME`` lists them.
sample_rate
    Sample rate of waveforms in Hz: 16,000, or 22,050, the encoders' own.
variant
    Encoder to build with random weights instead.
sha256
    Expected hash of the checkpoint.

Entries raise a ValueError or OSError if the checkpoint or an option cannot be used, and a TypeError
if an option is unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hear_tune import EmbeddingModel, load_model
from hear_tune.embedding.model import LayerChoice
from hear_tune.upstream.expert import S3PRL_RATE_HZ, UpstreamExpert

__all__ = ["clmr", "tune", "tune_concat", "tune_layers"]

dependencies = ["hear_tune", "torch", "yaml"]  # read by torch.hub


def tune(ckpt: str | None = None, **options: Any) -> UpstreamExpert:
    """Concatenate the default layers of `hear_tune.load_model` in one hidden state.

    The weights in the package have one frame per window of 893 ms, interpolated: for utterances,
    not for events.
    """
    model, rate = _load(ckpt, **options)
    return UpstreamExpert(model.encoder, model.layers, sample_rate=rate)


def tune_concat(ckpt: str | None = None, **options: Any) -> UpstreamExpert:
    """Concatenate three time scales, those of HEAR timestamps, in one hidden state."""
    model, rate = _load(ckpt, **options)
    return UpstreamExpert(model.encoder, model.timestamp_layers, sample_rate=rate)


def tune_layers(ckpt: str | None = None, **options: Any) -> UpstreamExpert:
    """Return every layer as a hidden state, zero-padded to one width for a weighted sum."""
    model, rate = _load(ckpt, **{"layers": "all"} | options)
    return UpstreamExpert(model.encoder, model.layers, concatenate=False, sample_rate=rate)


def clmr(ckpt: str | None = None, **options: Any) -> UpstreamExpert:
    """Return the last layer of CLMR's encoder, SampleCNN, as one hidden state."""
    variant = {} if ckpt else {"variant": "clmr"}
    return tune(ckpt, **variant | options)


def _load(
    ckpt: str | None, refresh: bool = False, model_config: str | None = None, **options: Any
) -> tuple[EmbeddingModel, int]:
    if model_config is not None:
        options |= _read_options(model_config)
    return _model("" if ckpt is None else _local(ckpt, refresh), **options)


def _model(
    path: str,
    layers: LayerChoice = None,
    sample_rate: int = S3PRL_RATE_HZ,
    variant: str | None = None,
    sha256: str | None = None,
) -> tuple[EmbeddingModel, int]:
    model = load_model(path, layers=layers, timestamp_layers=layers, variant=variant, sha256=sha256)
    return model, sample_rate


def _read_options(path: str) -> dict[str, Any]:
    options = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    if not isinstance(options, dict):
        raise ValueError(f"{path}: must map names of options to values")
    return options


def _local(ckpt: str, refresh: bool) -> str:
    if "://" not in ckpt:
        return ckpt
    from s3prl.util.download import urls_to_filepaths

    path: str = urls_to_filepaths(ckpt, refresh=refresh)
    return path
