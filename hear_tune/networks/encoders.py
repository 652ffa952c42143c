"""The Tailed U-Net and CLMR's SampleCNN, built from their configurations.

Encoders take audio of shape (batch, 1, samples), where `samples` is a multiple of the coarsest
stride on the way to the requested layers.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.samples import Samples, pad_end
from .config import (
    FACTOR,
    TIMESTAMP_STRIDE,
    WINDOW_SAMPLES,
    EncoderConfig,
    SampleCNNConfig,
    TuneConfig,
    config_to_dict,
)
from .geometry import KERNEL, Layer, encoder_layers
from .pooling import max_pool
from .projection import Projection
from .variants import variant_name

# Entries of a training record:
CROP_SAMPLES = "crop_samples"  # length of the training crops
EMBEDDING_LAYERS = "embedding_layers"  # layers that embed best, if not just the last
TIMESTAMP_LAYERS = "timestamp_layers"  # the same for timestamps


class Block(nn.Module):
    """Convolution, batch normalisation, ReLU: (batch, in_channels, T) -> (batch, channels, T).

    With ``stride=3`` the convolution is unpadded and gives T / 3 frames. A waveform (one channel)
    is convolved in float32 also within autocast: bfloat16 would bury quiet overtones in noise.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        padding = 1 if stride == 1 else 0
        self.conv = nn.Conv1d(in_channels, channels, KERNEL, stride, padding)
        self.norm = nn.BatchNorm1d(channels)
        self.activation: Callable[[Tensor], Tensor] = F.relu_
        nn.init.kaiming_uniform_(self.conv.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1 and torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                x = self.conv(x.to(self.conv.weight.dtype))
        else:
            x = self.conv(x)
        return self.activation(self.norm(x))


class ExpansiveBlock(Block):
    """Upsample a deeper map, concatenate the skip connection, convolve.

    (batch, deep_channels, T / 3) and (batch, skip_channels, T) -> (batch, channels, T).
    """

    def __init__(self, deep_channels: int, skip_channels: int, channels: int) -> None:
        super().__init__(2 * skip_channels, channels)
        self.upsample = nn.ConvTranspose1d(deep_channels, skip_channels, FACTOR, stride=FACTOR)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(torch.cat([self.upsample(deep), skip], dim=1))


class LayeredEncoder(nn.Module, ABC):
    """Base of everything that turns audio into layers of features: networks and baselines.

    Attributes
    ----------
    layers : tuple of Layer
        The layers in the order of computation.
    projections : ModuleDict
        Fitted projections of these layers, found by name like any layer.
    """

    layers: tuple[Layer, ...]

    def __init__(self) -> None:
        super().__init__()
        self.projections = nn.ModuleDict()

    @property
    @abstractmethod
    def identity(self) -> str:
        """Fingerprint of the encoder and its weights."""

    @abstractmethod
    def walk(self, audio: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and output (batch, channels, frames) of each layer, in order."""

    @property
    def default_layer(self) -> str:
        """Name of the layer of the published embedding: the last."""
        return self.layers[-1].name

    @property
    def embedding_layers(self) -> list[str]:
        """Names of the layers that embed by default."""
        return [self.default_layer]

    @property
    def timestamp_layers(self) -> list[str] | None:
        """Names of the layers of timestamps when none is named; None for three time scales."""
        return None

    @property
    def stride(self) -> int:
        """Coarsest stride in samples."""
        return max(layer.stride for layer in self.layers)

    def stride_towards(self, names: Collection[str]) -> int:
        """Coarsest stride in samples up to these layers; inputs must be a multiple of it."""
        sources = self._sources(names)
        last = max(position for position, layer in enumerate(self.layers) if layer.name in sources)
        own = (self.layer(name).stride for name in names)
        return max(*own, *(layer.stride for layer in self.layers[: last + 1]))

    @property
    def window_samples(self) -> int:
        """Window length for cutting clips: the paper's."""
        return max(WINDOW_SAMPLES, self.stride)

    def fill(self, samples: Samples, size: int) -> Samples:
        """Pad a clip shorter than a window with silence.

        Silence preserves the sound's duration: notes and words are classified better than with the
        clip repeated.
        """
        return pad_end(samples, size)

    def timestamp_unit(self, names: Collection[str]) -> int:
        """Unit in samples: inputs that are multiples of it suit these layers and timestamps."""
        return max(self.stride_towards(names), TIMESTAMP_STRIDE)

    def features(self, audio: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Compute the outputs of the named layers.

        Parameters
        ----------
        audio : Tensor
            (batch, 1, samples).
        names : collection of str
            Names of layers.

        Returns
        -------
        dict of str to Tensor
            Output of each layer, (batch, channels, samples / stride).

        Raises
        ------
        ValueError
            If a layer is unknown, or the audio's shape does not fit the network.
        """
        self._check(audio, names)
        wanted = self._sources(names)
        found: dict[str, Tensor] = {}
        for name, output in self.walk(audio):
            if name in wanted:
                found[name] = output
            if len(found) == len(wanted):
                break
        for name in set(names) - set(found):
            found[name] = self.projection(name)(found, audio.shape[-1])
        return {name: found[name] for name in names}

    def add_projection(self, projection: Projection) -> None:
        """Add a projection to the layers that are found by name."""
        self.projections[projection.layer.name] = projection

    def projection(self, name: str) -> Projection:
        """Return the projection of that name."""
        projection = self.projections[name]
        assert isinstance(projection, Projection)
        return projection

    def has_statistics(self, name: str) -> bool:
        """Whether a layer is a projection of statistics."""
        return name in self.projections and self.projection(name).scale is not None

    def unprojected(self, names: Sequence[str]) -> list[str]:
        """Return names of layers, with each projection replaced by its sources."""
        return [
            source
            for name in names
            for source in (self.projection(name).sources if name in self.projections else [name])
        ]

    def _sources(self, names: Collection[str]) -> set[str]:
        """Return the layers that must be computed for the named ones."""
        projected = [name for name in names if name in self.projections]
        sources = (source for name in projected for source in self.projection(name).sources)
        return {*names, *sources} - set(projected)

    def layer(self, name: str) -> Layer:
        """Return the layer of that name; raise a ValueError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        if name in self.projections:
            return self.projection(name).layer
        known = ", ".join([*(layer.name for layer in self.layers), *self.projections])
        raise ValueError(f"unknown layer {name!r}: this encoder has {known}")

    def _check(self, audio: Tensor, names: Collection[str]) -> None:
        for name in names:
            self.layer(name)
        if audio.ndim != 3 or audio.shape[1] != 1:
            raise ValueError(f"audio must be (batch, 1, samples), not {tuple(audio.shape)}")
        stride = self.stride_towards(names)
        if audio.shape[-1] == 0 or audio.shape[-1] % stride:
            raise ValueError(
                f"{audio.shape[-1]} samples: must be a positive multiple of {stride}, "
                f"the coarsest stride on the way to {', '.join(names)}"
            )


class Encoder(LayeredEncoder, ModelHubMixin, library_name="hear-tune", tags=["audio", "music"]):
    """Base of the networks: configuration, embedding, and the Hugging Face hub.

    Attributes
    ----------
    config : TuneConfig or SampleCNNConfig
        What the network was built from.
    training_record : dict
        JSON-ready record of the training; empty for random weights.
    pool : callable
        Max pooling by 3, (batch, channels, 3 T) -> (batch, channels, T).
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = encoder_layers(config)
        self.training_record: dict[str, Any] = {}
        self.pool: Callable[[Tensor], Tensor] = max_pool
        self._hub_mixin_config = config_to_dict(config)  # the config.json of save_pretrained

    def _blocks(self, path: str, strided: bool = False) -> nn.ModuleDict:
        """Build the plain blocks of a path; in a SampleCNN the first one is strided."""
        blocks = {}
        for layer in self.layers:
            prefix, level = layer.name.split(".")
            if prefix == path:
                stride = FACTOR if strided and level == "0" else 1
                blocks[level] = Block(layer.in_channels, layer.channels, stride)
        return nn.ModuleDict(blocks)

    def _walk_sample_cnn(
        self, path: str, blocks: nn.ModuleDict, x: Tensor
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the blocks' outputs; all but the first and the last are pooled."""
        for index, block in enumerate(blocks.values()):
            x = block(x)
            if 0 < index < len(blocks) - 1:
                x = self.pool(x)
            yield f"{path}.{index}", x

    @property
    def identity(self) -> str:
        """Fingerprint: the variant's name and a SHA-256 of configuration and weights."""
        digest = hashlib.sha256(json.dumps(config_to_dict(self.config)).encode())
        for name, tensor in sorted(self.state_dict().items()):
            data = tensor.cpu().flatten().view(torch.uint8)  # numpy has no bfloat16
            digest.update(name.encode() + data.numpy().tobytes())
        return f"{variant_name(self.config)} sha256:{digest.hexdigest()}"

    @property
    def embedding_size(self) -> int:
        return self.config.embedding_size

    @property
    def window_samples(self) -> int:
        """Window length for cutting clips: that of the training crops, else the paper's."""
        return int(self.training_record.get(CROP_SAMPLES, super().window_samples))

    @property
    def embedding_layers(self) -> list[str]:
        """Names of the layers that embed by default: the training record's, else the last."""
        return list(self.training_record.get(EMBEDDING_LAYERS, super().embedding_layers))

    @property
    def timestamp_layers(self) -> list[str] | None:
        """Names of the layers of timestamps when none is named: its weights' choice, if any."""
        return self.training_record.get(TIMESTAMP_LAYERS)

    def forward(self, audio: Tensor) -> Tensor:
        """Average the last layer's output over time.

        Parameters
        ----------
        audio : Tensor
            (batch, 1, samples).

        Returns
        -------
        Tensor
            (batch, embedding_size).
        """
        last = self.default_layer
        return self.features(audio, [last])[last].mean(dim=-1)


class SampleCNN(Encoder):
    """CLMR's encoder (Spijkervet & Burgoyne, ISMIR 2021)."""

    def __init__(self, config: SampleCNNConfig) -> None:
        super().__init__(config)
        self.blocks = self._blocks("blocks", strided=True)

    def walk(self, audio: Tensor) -> Iterator[tuple[str, Tensor]]:
        return self._walk_sample_cnn("blocks", self.blocks, audio)


class TailedUNet(Encoder):
    """The Tailed U-Net (Vélez Vásquez & Burgoyne, ISMIR 2022), in every variant."""

    config: TuneConfig

    def __init__(self, config: TuneConfig) -> None:
        super().__init__(config)
        self.contractive = self._blocks("contractive")
        self.expansive = nn.ModuleDict(
            {
                str(level): ExpansiveBlock(
                    config.channels(level + 1),
                    config.channels(level),
                    self.layer(f"expansive.{level}").channels,
                )
                for level in reversed(range(config.top_level, config.contractive))
            }
        )
        self.tail = self._blocks("tail", strided=isinstance(config.tail, SampleCNNConfig))

    def walk(self, audio: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = audio
        levels: dict[str, Tensor] = {}  # latest output of each level, for the connections
        for level, block in self.contractive.items():
            x = block(x if level == "0" else self.pool(x))
            levels[level] = x
            yield f"contractive.{level}", x
        for level, block in self.expansive.items():
            x = block(x, levels[level])
            levels[level] = x
            yield f"expansive.{level}", x
        if isinstance(self.config.tail, SampleCNNConfig):
            yield from self._walk_sample_cnn("tail", self.tail, x)
            return
        for level, block in self.tail.items():
            x = self.pool(x)
            if self.config.extra_connections and level in levels:
                x = torch.cat([x, levels[level]], dim=1)
            x = block(x)
            yield f"tail.{level}", x


def build_encoder(config: EncoderConfig) -> Encoder:
    """Build an encoder with fresh random weights, in training mode."""
    return SampleCNN(config) if isinstance(config, SampleCNNConfig) else TailedUNet(config)
