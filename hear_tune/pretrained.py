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
        "1712ea28810bdb8f8580213ce8e8e5c1612762b821f571c8a2976d38f27f1d3f",
        "TUNE+ by CLMR on free game music, soundfonts and speech (133 h)",
    ),
    Pretrained(
        "tune+-free-timbre",
        "5ddaf845d4dc682878ec222e7464300e333803c90fb555f71b8b17980e9b945e",
        "an earlier point of that training (114 h): better on timbre, worse on pitch",
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
