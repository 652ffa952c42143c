"""Encoders by name: weights of the package, or any checkpoint."""

from __future__ import annotations

import os

from ..networks.encoders import Encoder
from ..weights import PRETRAINED
from .files import load_checkpoint


def load_encoder(name_or_path: str | os.PathLike[str], sha256: str | None = None) -> Encoder:
    """An encoder of the package by its name, or of any checkpoint by its path.

    Parameters
    ----------
    name_or_path
        A name in `PRETRAINED`; else as of `load_checkpoint`. A `Path`, or text that is no bare name
        (``./tune+-free``), is never taken for a name.
    sha256
        Known hash of the file; that of weights in the package is known without it.

    Raises
    ------
    FileNotFoundError, CheckpointError
        As of `load_checkpoint`.
    """
    row = PRETRAINED.get(name_or_path) if isinstance(name_or_path, str) else None
    if row is not None:
        return load_checkpoint(row.path, sha256 or row.sha256)
    try:
        return load_checkpoint(name_or_path, sha256)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; or the name of weights in the package: {', '.join(PRETRAINED)}"
        ) from error
