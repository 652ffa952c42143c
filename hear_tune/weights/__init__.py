"""The weights in the package, with their names and hashes.

MODEL_CARD.md describes their training and what they are good for.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Pretrained:
    """Weights in the package.

    Attributes
    ----------
    name : str
        The file's name without suffix; `hear_tune.load_model` takes those of `PRETRAINED`.
    sha256 : str
        Hash of the file, checked on loading.
    summary : str
        What they were trained on.
    """

    name: str
    sha256: str
    summary: str

    @property
    def path(self) -> Path:
        """The safetensors file."""
        return _FOLDER / f"{self.name}.safetensors"


_ROWS = (
    Pretrained(
        "tune+-acoustic",
        "78507a78d83fcd8501c3b10e3ffa8860737a4ce649fb40e414a13709b7f627d9",
        "TUNE+ by CLMR and acoustic features on free game music, soundfonts and speech (133 h)",
    ),
)
PRETRAINED: dict[str, Pretrained] = {row.name: row for row in _ROWS}
DEFAULT_PRETRAINED = _ROWS[0].name
FORMER_NAMES = ("tune+-free", "tune+-free-timbre")  # of weights that the default replaces
MUSICNN = Pretrained(  # a baseline, not an encoder of `load_model`; its licence lies beside it
    "musicnn-mtt",
    "01a93e1f063ecf7cf010ce42c350addf453496f763f34cd45570b6828bfb7f72",
    "musicnn on the tags of MagnaTagATune",
)


def find_pretrained(name: object) -> Pretrained | None:
    """Return the weights of that name, or None; warn if it is a former name."""
    if name in FORMER_NAMES:
        warnings.warn(
            f"{name} has been replaced by {DEFAULT_PRETRAINED}, which is loaded instead; the "
            "former name will go with the next release",
            FutureWarning,
            stacklevel=3,
        )
        name = DEFAULT_PRETRAINED
    return PRETRAINED.get(name) if isinstance(name, str) else None
