"""Configurations of the encoders: everything a network is built from.

Audio is mono at `SAMPLE_RATE_HZ`. Every change of time scale is by `FACTOR`, so level i has one
frame per ``FACTOR**i`` samples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ..common.errors import HearTuneError

SAMPLE_RATE_HZ = 22_050
FACTOR = 3
WINDOW_SAMPLES = FACTOR**10  # 59,049 samples, 2.678 s: the published models' training crops
TIMESTAMP_STRIDE = FACTOR**6  # 729 samples, 33.06 ms
MAX_LEVEL = 12  # one frame per 24.1 s
MAX_CHANNELS = 1 << 16
TAIL_DOUBLINGS = 5  # the published tails stop widening at 32 times the base filters

Backend = Literal["auto", "eager", "folded"]
Precision = Literal["float32", "bfloat16", "float16"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BACKEND_HELP = (
    "eager: the plain network; folded: rearranged for CPUs; "
    "auto: folded on CPUs and in reduced precision"
)
PRECISION_HELP = (
    "bfloat16 is faster on CPUs that support it, but rounds; float16, for GPUs only, rounds less "
    "(default: float32)"
)


class ConfigError(HearTuneError, ValueError):
    """A configuration describes no network that can be built."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@dataclass(frozen=True)
class SampleCNNConfig:
    """CLMR's encoder, SampleCNN (Spijkervet & Burgoyne, ISMIR 2021), the baseline of TUNE.

    Parameters
    ----------
    channels : tuple of int
        Output channels of each block. The first block strides by 3, the last keeps its time scale,
        every other one pools by 3.

    Raises
    ------
    ConfigError
        If the network cannot be built.
    """

    channels: tuple[int, ...] = (128, 128, 128, 256, 256, 256, 256, 256, 256, 512, 512)

    def __post_init__(self) -> None:
        _require(
            len(self.channels) >= 2 and all(_is_count(c, 1) for c in self.channels),
            f"channels must be at least two positive integers, not {self.channels}",
        )
        _require(
            len(self.channels) - 1 <= MAX_LEVEL,
            f"{len(self.channels)} blocks are too deep: at most {MAX_LEVEL + 1}",
        )
        _require(
            max(self.channels) <= MAX_CHANNELS,
            f"{max(self.channels):,} channels are too wide: at most {MAX_CHANNELS:,}",
        )

    @property
    def embedding_size(self) -> int:
        """Channels of the last block."""
        return self.channels[-1]


@dataclass(frozen=True)
class TuneConfig:
    """A Tailed U-Net (Vélez Vásquez & Burgoyne, ISMIR 2022).

    Lengths count changes of time scale by 3: with ``contractive=4`` the bottleneck is level 4,
    ``expansive=4`` climbs back to level 0, and ``tail=9`` descends from there to level 9.

    Parameters
    ----------
    filters : int
        Channels of level 0; the contractive path doubles them at every level.
    contractive : int
        Length of the contractive path.
    expansive : int
        Length of the expansive path; 0 joins the tail directly to the bottleneck.
    tail : int or SampleCNNConfig
        Length of the tail, or a SampleCNN in its place (the paper's "CLMR-tail"; the U-Net then
        ends in a single channel).
    extra_connections : bool
        TUNE+: each tail level also receives the expansive output of the same level, and the deepest
        one that of the bottleneck.
    embedding_size : int
        Channels of the last tail level.
    tail_flat_from : int, optional
        Tail level from which all levels have `embedding_size` channels; no earlier level has more.
        By default only the last level does, and the others double up to level 5.

    Raises
    ------
    ConfigError
        If the network cannot be built.
    """

    filters: int
    contractive: int = 4
    expansive: int = 4
    tail: int | SampleCNNConfig = 4
    extra_connections: bool = False
    embedding_size: int = 512
    tail_flat_from: int | None = None

    def __post_init__(self) -> None:
        for name in ("filters", "contractive", "embedding_size"):
            value = getattr(self, name)
            _require(_is_count(value, 1), f"{name} must be a positive integer, not {value!r}")
        _require(
            _is_count(self.expansive, 0) and self.expansive <= self.contractive,
            f"expansive must be between 0 and the contractive length {self.contractive}, "
            f"not {self.expansive!r}",
        )
        if isinstance(self.tail, SampleCNNConfig):
            self._check_sample_cnn_tail(self.tail)
        else:
            self._check_tail()
        _require(
            max(self.contractive, self.deepest_level) <= MAX_LEVEL,
            f"level {max(self.contractive, self.deepest_level)} is too deep: "
            f"at most {MAX_LEVEL} (one frame per {FACTOR**MAX_LEVEL / SAMPLE_RATE_HZ:.1f} s)",
        )
        widest = max(self.channels(self.contractive), self.embedding_size)
        _require(
            widest <= MAX_CHANNELS, f"{widest:,} channels are too wide: at most {MAX_CHANNELS:,}"
        )

    def _check_sample_cnn_tail(self, tail: SampleCNNConfig) -> None:
        _require(
            not self.extra_connections and self.tail_flat_from is None,
            "extra_connections and tail_flat_from describe TUNE's own tail, not a SampleCNN",
        )
        _require(
            self.embedding_size == tail.embedding_size,
            f"embedding_size is {self.embedding_size}, but the SampleCNN tail ends in "
            f"{tail.embedding_size} channels",
        )

    def _check_tail(self) -> None:
        _require(_is_count(self.tail, 1), f"tail must be a positive integer, not {self.tail!r}")
        if self.tail_flat_from is not None:
            _require(
                _is_count(self.tail_flat_from, 1) and self.tail_flat_from in self.tail_levels,
                f"tail_flat_from must be one of the tail's levels {self.tail_levels.start} to "
                f"{self.tail_levels.stop - 1}, not {self.tail_flat_from!r}",
            )

    @property
    def top_level(self) -> int:
        """Level at which the expansive path ends and the tail starts."""
        return self.contractive - self.expansive

    @property
    def tail_levels(self) -> range:
        """Levels of TUNE's own tail (empty with a SampleCNN tail)."""
        length = 0 if isinstance(self.tail, SampleCNNConfig) else self.tail
        return range(self.top_level + 1, self.top_level + 1 + length)

    @property
    def deepest_level(self) -> int:
        """Level of the end of the tail."""
        if isinstance(self.tail, SampleCNNConfig):
            return self.top_level + len(self.tail.channels) - 1
        return self.tail_levels[-1]

    def channels(self, level: int) -> int:
        """Channels of a contractive or expansive level."""
        return self.filters << level

    def tail_channels(self, level: int) -> int:
        """Channels of a level of TUNE's own tail."""
        flat_from = self.tail_flat_from
        if level >= (self.deepest_level if flat_from is None else flat_from):
            return self.embedding_size
        if flat_from is None:
            return self.channels(min(level, TAIL_DOUBLINGS))
        return min(self.channels(level), self.embedding_size)


EncoderConfig = TuneConfig | SampleCNNConfig

_ARCHITECTURES: dict[str, type[TuneConfig] | type[SampleCNNConfig]] = {
    "tune": TuneConfig,
    "samplecnn": SampleCNNConfig,
}


def config_to_dict(config: EncoderConfig) -> dict[str, Any]:
    """Turn a configuration into a JSON-ready dict; `config_from_dict` is the inverse."""
    architecture = next(name for name, cls in _ARCHITECTURES.items() if type(config) is cls)
    return {"architecture": architecture, **asdict(config)}


def config_from_dict(fields: dict[str, Any]) -> EncoderConfig:
    """Build a configuration from the dict of `config_to_dict`.

    Raises
    ------
    ConfigError
        If the architecture or a field is unknown, or the network cannot be built.
    """
    fields = dict(fields)
    architecture = fields.pop("architecture", None)
    _require(
        isinstance(architecture, str) and architecture in _ARCHITECTURES,
        f"unknown architecture {architecture!r}, expected one of {sorted(_ARCHITECTURES)}",
    )
    if isinstance(fields.get("channels"), list):
        fields["channels"] = tuple(fields["channels"])
    if isinstance(fields.get("tail"), dict):
        tail = fields["tail"]
        fields["tail"] = config_from_dict({"architecture": "samplecnn", **tail})
    try:
        return _ARCHITECTURES[architecture](**fields)
    except TypeError as error:
        raise ConfigError(f"not a {architecture} configuration: {error}") from error
