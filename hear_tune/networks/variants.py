"""The published variants, one row each.

Scores are those of a linear probe on MagnaTagATune after 1,000 epochs of CLMR, in percent (Vélez
Vásquez & Burgoyne, ISMIR 2022). The last rows are representation sizes without published scores.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from .config import ConfigError, EncoderConfig, SampleCNNConfig, TuneConfig

DEFAULT_VARIANT = "tune+"
CUSTOM = "custom"


@dataclass(frozen=True)
class Variant:
    """A published encoder.

    Attributes
    ----------
    name : str
        Name in the table.
    config : TuneConfig or SampleCNNConfig
        Configuration.
    mtt_auc, mtt_ap : float, optional
        Published macro ROC-AUC and average precision on MagnaTagATune, in percent.
    """

    name: str
    config: EncoderConfig
    mtt_auc: float | None = None
    mtt_ap: float | None = None


def _plus(embedding_size: int = 512, flat_from: int | None = None, filters: int = 11) -> TuneConfig:
    return TuneConfig(filters, 4, 4, 9, True, embedding_size, flat_from)


_ROWS = (
    Variant("tune-vanilla", TuneConfig(34), 87.7, 33.0),
    Variant("tune-contractive+1", TuneConfig(18, contractive=5, expansive=5), 88.3, 33.9),
    Variant("tune-contractive+2", TuneConfig(9, contractive=6, expansive=6), 88.6, 34.6),
    Variant("tune-contractive+3", TuneConfig(4, contractive=7, expansive=7), 88.0, 33.5),
    Variant("tune-expansive-1", TuneConfig(34, expansive=3, tail=3), 87.6, 33.0),
    Variant("tune-expansive-2", TuneConfig(35, expansive=2, tail=2), 87.7, 33.1),
    Variant("tune-expansive-3", TuneConfig(38, expansive=1, tail=1), 87.6, 33.0),
    Variant("tune-tail+1", TuneConfig(28, tail=5), 88.2, 34.4),
    Variant("tune-tail+2", TuneConfig(19, tail=6), 88.7, 35.2),
    Variant("tune-tail+3", TuneConfig(15, tail=7), 89.1, 36.5),
    Variant("tune-tail+4", TuneConfig(13, tail=8), 89.2, 36.6),
    Variant("tune-tail+5", TuneConfig(11, tail=9), 89.2, 36.5),
    Variant("tune-clmr-tail", TuneConfig(10, tail=SampleCNNConfig()), 89.4, 36.7),
    Variant("tune+", _plus(), 89.2, 36.6),
    Variant("tune-vanilla-small", TuneConfig(11), 86.8, 31.9),
    Variant("tune+-large", _plus(flat_from=4, filters=34), 89.4, 37.1),
    Variant("tune+-smaller-rep", _plus(256, flat_from=4), 89.2, 36.1),
    Variant("clmr", SampleCNNConfig(), 88.3, 34.4),
    Variant("tune+-rep-32", _plus(32, flat_from=2)),
    Variant("tune+-rep-64", _plus(64, flat_from=3)),
    Variant("tune+-rep-128", _plus(128, flat_from=4)),
    Variant("tune+-rep-1024", _plus(1024, flat_from=7)),
)
VARIANTS: dict[str, Variant] = {row.name: row for row in _ROWS}


def get_variant(name: str) -> Variant:
    """Return the variant of that name.

    Raises
    ------
    ConfigError
        If the name is unknown; the message suggests similar ones.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    near = difflib.get_close_matches(name, VARIANTS, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"one of {', '.join(VARIANTS)}"
    raise ConfigError(f"unknown variant {name!r}: {hint}")


def variant_name(config: EncoderConfig) -> str:
    """Return the name of the variant with this configuration, or "custom"."""
    return next((row.name for row in _ROWS if row.config == config), CUSTOM)
