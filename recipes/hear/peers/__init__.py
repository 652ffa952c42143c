"""Other embeddings as HEAR modules, with weights that come with their packages."""

from __future__ import annotations


def refuse_checkpoint(model_file_path: str) -> None:
    """Raise ValueError if a checkpoint is given."""
    if model_file_path:
        raise ValueError(f"{model_file_path}: give no checkpoint; the weights are in the package")
