"""The weights that come with the package, known by their names and hashes.

How they were trained, on what, and what they are good for: MODEL_CARD.md.
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
