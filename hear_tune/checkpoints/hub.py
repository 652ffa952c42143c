"""Encoders on the Hugging Face hub: ``save_pretrained`` and ``from_pretrained`` of `Encoder`.

Networks know nothing of files. Import encoders, and functions that load them, from here, so that
both methods work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from ..networks.encoders import Encoder, build_encoder
from .files import HUB_FILE_NAME, load_checkpoint, save_checkpoint

__all__ = ["Encoder", "build_encoder", "load_checkpoint", "save_checkpoint"]

_DOWNLOAD_OPTIONS = ("revision", "cache_dir", "force_download", "local_files_only", "token")


class _Checkpoints:
    """Store encoders on the hub as the package's own checkpoints."""

    def write(self, encoder: Encoder, folder: Path) -> None:
        save_checkpoint(encoder, folder / HUB_FILE_NAME)

    def read(self, model_id: str, **options: Any) -> Encoder:
        if Path(model_id).is_dir():
            return load_checkpoint(model_id)
        download = {key: options[key] for key in _DOWNLOAD_OPTIONS if key in options}
        return load_checkpoint(hf_hub_download(model_id, HUB_FILE_NAME, **download))


Encoder.hub_files = _Checkpoints()
