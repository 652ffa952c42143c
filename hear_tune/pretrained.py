"""The weights that come with the package, known by their names and hashes.

How they were trained, on what, and what they are good for: MODEL_CARD.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .checkpoints import load_checkpoint
from .network import Encoder

_FOLDER = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class Pretrained:
    """Weights in the package.

    Attributes
    ----------
    name
        By which `hear_tune.load_model` knows them.
    sha256
        Of their file, checked on loading.
    summary
        What they were trained on.
    """

    name: str
    sha256: str
    summary: str

    @property
    def path(self) -> Path:
        """Their file, float16 safetensors."""
        return _FOLDER / f"{self.name}.safetensors"


_ROWS = (
    Pretrained(
        "tune+-free",
        "87de630bdefbf9639cb77543998b6552013156cd886e0bb6a357c017edc7b0ee",
        "TUNE+ by CLMR on free game music, soundfonts and speech (114 h); not finished",
    ),
    Pretrained(
        "tune+-free-pitch",
        "2a6779f5f90794269243fce0df1830645b4946d6bd7b76716610cc6c153a5908",
        "the same, trained on with unisons compared by folder: better on pitch, worse on timbre",
    ),
)
PRETRAINED: dict[str, Pretrained] = {row.name: row for row in _ROWS}
DEFAULT_PRETRAINED = _ROWS[0].name
WEIGHTS_HELP = (
    f"weights of the package ({', '.join(PRETRAINED)}), or a checkpoint: .safetensors, .ckpt, .pt "
    f"(default: {DEFAULT_PRETRAINED})"
)


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
