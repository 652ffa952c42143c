"""The upstreams by name, for s3prl's hub and for ``torch.hub``.

Imports are absolute: ``torch.hub`` runs this file outside of any package.

Every entry takes

ckpt
    The name of weights in the package, or a checkpoint's path or URL: hear-tune's safetensors, the
    TUNE authors' ``.ckpt`` or CLMR's ``.pt``. Without one `tune` and its kin take the package's
    TUNE+, and `clmr` has random weights from a fixed seed, and warns.
refresh
    Fetch a URL again, even if there is a copy of it.
model_config
    YAML file with the options below: run_downstream (``-g``) has no other way to give them.
layers
    Names of the layers to give, comma-separated or a list, or "all"; ``hear-tune variants NAME``
    lists them.
sample_rate
    Of the waveforms: 16,000 Hz, or 22,050 for audio at the encoders' own rate.
variant
    Instead of weights: an encoder to build with random ones.
sha256
    Known hash of the checkpoint.

and raises ValueError or OSError if the checkpoint or an option cannot be used, TypeError if an
option is unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hear_tune import EmbeddingModel, load_model
from hear_tune.upstream.expert import S3PRL_RATE_HZ, UpstreamExpert

__all__ = ["clmr", "tune", "tune_concat", "tune_layers"]

dependencies = ["hear_tune", "torch", "yaml"]  # read by torch.hub


def tune(ckpt: str | None = None, **options: Any) -> UpstreamExpert:
    """The layers that embed (`hear_tune.load_model`), side by side: one hidden state."""
    model, rate = _load(ckpt, **options)
    return UpstreamExpert(model.encoder, model.layers, sample_rate=rate)


def tune_concat(ckpt: str | None = None, **options: Any) -> UpstreamExpert:
    """Three time scales side by side, as in HEAR timestamps: one hidden state."""
    model, rate = _load(ckpt, **options)
    return UpstreamExpert(model.encoder, model.timestamp_layers, sample_rate=rate)


def tune_layers(ckpt: str | None = None, **options: Any) -> UpstreamExpert:
    """All layers, padded with zeros to one width for a weighted sum: a hidden state each."""
    model, rate = _load(ckpt, **{"layers": "all"} | options)
    return UpstreamExpert(model.encoder, model.layers, concatenate=False, sample_rate=rate)


def clmr(ckpt: str | None = None, **options: Any) -> UpstreamExpert:
    """The last layer of CLMR's encoder, SampleCNN: one hidden state."""
    variant = {} if ckpt else {"variant": "clmr"}
    return tune(ckpt, **variant | options)


def _load(
    ckpt: str | None, refresh: bool = False, model_config: str | None = None, **options: Any
) -> tuple[EmbeddingModel, int]:
    if model_config is not None:
        options |= _read_options(model_config)
    rate = options.pop("sample_rate", S3PRL_RATE_HZ)
    layers = options.pop("layers", None)
    path = "" if ckpt is None else _local(ckpt, refresh)
    return load_model(path, layers=layers, timestamp_layers=layers, **options), rate


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
