"""Encoders on the Hugging Face hub: ``save_pretrained`` and ``from_pretrained`` of `Encoder`.

Networks know nothing of files, so both methods are set here. Import encoders, and functions that
load them, from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from ..networks.encoders import Encoder, build_encoder
from .files import HUB_FILE_NAME, load_checkpoint, save_checkpoint

__all__ = ["Encoder", "build_encoder", "load_checkpoint", "save_checkpoint"]

_DOWNLOAD_OPTIONS = ("revision", "cache_dir", "force_download", "local_files_only", "token")


def _save(encoder: Encoder, save_directory: Path) -> None:
    save_checkpoint(encoder, save_directory / HUB_FILE_NAME)


def _load(_: type[Encoder], /, *, model_id: str, **options: Any) -> Encoder:
    if Path(model_id).is_dir():
        return load_checkpoint(model_id)
    download = {key: options[key] for key in _DOWNLOAD_OPTIONS if key in options}
    return load_checkpoint(hf_hub_download(model_id, HUB_FILE_NAME, **download))


def _reduce(encoder: Encoder) -> tuple[Any, ...]:
    """Pickle an encoder such that unpickling it imports this module."""
    return _restore, (type(encoder),), encoder.__dict__


def _restore(kind: type[Encoder]) -> Encoder:
    return kind.__new__(kind)


Encoder.__reduce__ = _reduce  # type: ignore[method-assign, assignment]
Encoder._save_pretrained = _save  # type: ignore[assignment]
Encoder._from_pretrained = classmethod(_load)  # type: ignore[assignment]
