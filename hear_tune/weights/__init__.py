"""The weights in the package, with their names and hashes.

MODEL_CARD.md describes their training and what they are good for.
"""

from __future__ import annotations

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
MUSICNN = Pretrained(  # a baseline, not an encoder of `load_model`; its licence lies beside it
    "musicnn-mtt",
    "01a93e1f063ecf7cf010ce42c350addf453496f763f34cd45570b6828bfb7f72",
    "musicnn on the tags of MagnaTagATune",
)
