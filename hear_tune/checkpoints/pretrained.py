"""Load encoders by name from the weights in the package, or from any checkpoint."""

from __future__ import annotations

import os

from ..networks.variants import VARIANTS
from ..weights import PRETRAINED, find_pretrained
from .hub import Encoder, load_checkpoint


def load_encoder(name_or_path: str | os.PathLike[str], sha256: str | None = None) -> Encoder:
    """Load an encoder from the package by name, or from any checkpoint by path.

    Parameters
    ----------
    name_or_path : str or path-like
        A name in `PRETRAINED`, or a path as for `load_checkpoint`. A `Path`, or text with a folder
        (``./tune+-acoustic``), is always a path. A former name warns, and loads what replaced it.
    sha256 : str, optional
        Expected hash of the file; known for weights in the package.

    Raises
    ------
    FileNotFoundError, CheckpointError
        As for `load_checkpoint`.
    """
    row = find_pretrained(name_or_path)
    if row is not None:
        return load_checkpoint(row.path, sha256 or row.sha256)
    try:
        return load_checkpoint(name_or_path, sha256)
    except FileNotFoundError as error:
        hint = f"; random weights: variant={name_or_path!r}" if name_or_path in VARIANTS else ""
        raise FileNotFoundError(
            f"{error}; or the name of weights in the package: {', '.join(PRETRAINED)}{hint}"
        ) from error
