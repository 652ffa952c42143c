"""The Tailed U-Net and CLMR's SampleCNN, built from their configurations.

Encoders take audio of shape (batch, 1, samples), `samples` a multiple of the
coarsest stride on the way to the layers that are asked for.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

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
from .variants import variant_name

CROP_SAMPLES = "crop_samples"  # entry of a training record: the length of its crops
EMBEDDING_LAYERS = "embedding_layers"  # entry: those that embed best, if not the last alone


class Block(nn.Module):
    """Convolution, batch normalisation, ReLU: (batch, in_channels, T) -> (batch, channels, T).

    With ``stride=3`` the convolution is unpadded and gives T / 3 frames.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        padding = 1 if stride == 1 else 0
        self.conv = nn.Conv1d(in_channels, channels, KERNEL, stride, padding)
        self.norm = nn.BatchNorm1d(channels)
        self.activation: Callable[[Tensor], Tensor] = F.relu_
        nn.init.kaiming_uniform_(self.conv.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class PooledBlock(Block):
    """A block followed by max pooling: (batch, in_channels, T) -> (batch, channels, T / 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return max_pool(super().forward(x))


class ExpansiveBlock(Block):
    """Upsamples a deeper map, joins the skip connection, convolves.

    (batch, deep_channels, T / 3) and (batch, skip_channels, T) -> (batch, channels, T).
    """

    def __init__(self, deep_channels: int, skip_channels: int, channels: int) -> None:
        super().__init__(2 * skip_channels, channels)
        self.upsample = nn.ConvTranspose1d(deep_channels, skip_channels, FACTOR, stride=FACTOR)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(torch.cat([self.upsample(deep), skip], dim=1))


def sample_cnn_blocks(layers: Collection[Layer]) -> nn.ModuleDict:
    """SampleCNN's stack: a strided block, pooled blocks, and a last plain one."""
    blocks: list[Block] = []
    for index, layer in enumerate(layers):
        pools = 0 < index < len(layers) - 1
        kind = PooledBlock if pools else Block
        blocks.append(kind(layer.in_channels, layer.channels, stride=1 if index else FACTOR))
    return nn.ModuleDict({str(index): block for index, block in enumerate(blocks)})


class LayeredEncoder(nn.Module, ABC):
    """Anything that turns audio into layers of features: the networks here, and baselines.

    Attributes
    ----------
    layers
        In the order in which they are computed.
    """

    layers: tuple[Layer, ...]

    @property
    @abstractmethod
    def identity(self) -> str:
        """Which encoder this is, down to its weights."""

    @abstractmethod
    def walk(self, audio: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each layer's name and output (batch, channels, frames), in order."""

    @property
    def default_layer(self) -> str:
        """Name of the layer that is the published embedding: the last."""
        return self.layers[-1].name

    @property
    def embedding_layers(self) -> list[str]:
        """Names of the layers that embed when none is named."""
        return [self.default_layer]

    @property
    def stride(self) -> int:
        """Coarsest stride, in samples: a multiple of it suits every layer."""
        return max(layer.stride for layer in self.layers)

    def stride_towards(self, names: Collection[str]) -> int:
        """Coarsest stride on the way to these layers: inputs must be a multiple of it."""
        last = max(position for position, layer in enumerate(self.layers) if layer.name in names)
        return max(layer.stride for layer in self.layers[: last + 1])

    @property
    def window_samples(self) -> int:
        """Length of the windows into which clips are cut: the paper's."""
        return max(WINDOW_SAMPLES, self.stride)

    def fill(self, samples: Samples, size: int) -> Samples:
        """A window of a clip that is shorter: silence follows it.

        How long a sound lasts stays to be heard: probes of notes and words do better so than on
        repetitions of the clip.
        """
        return pad_end(samples, size)

    def timestamp_unit(self, names: Collection[str]) -> int:
        """Samples of which inputs are a multiple that suits these layers and timestamps."""
        return max(self.stride_towards(names), TIMESTAMP_STRIDE)

    def features(self, audio: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Outputs of the named layers, each (batch, channels, samples / stride).

        Raises
        ------
        ValueError
            If a layer is unknown, or the audio's shape does not fit the network.
        """
        self._check(audio, names)
        found: dict[str, Tensor] = {}
        for name, output in self.walk(audio):
            if name in names:
                found[name] = output
            if len(found) == len(set(names)):
                break
        return {name: found[name] for name in names}

    def layer(self, name: str) -> Layer:
        """The layer of that name.

        Raises
        ------
        ValueError
            If there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = ", ".join(layer.name for layer in self.layers)
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


class HubFiles(Protocol):
    """Reads and writes encoders for `huggingface_hub`: what a network itself knows nothing of."""

    def write(self, encoder: Encoder, folder: Path) -> None:
        """Write an encoder into a folder."""

    def read(self, model_id: str, **options: Any) -> Encoder:
        """Read an encoder from a folder or a repository on the hub."""


class Encoder(LayeredEncoder, ModelHubMixin, library_name="hear-tune", tags=["audio", "music"]):
    """What all networks share: a configuration, the embedding, and the Hugging Face hub.

    Attributes
    ----------
    config
        What the network was built from.
    training_record
        How its weights came about: any JSON-ready record; empty for random weights.
    hub_files
        Set by ``hear_tune.checkpoints.hub``.
    """

    hub_files: ClassVar[HubFiles]

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = encoder_layers(config)
        self.training_record: dict[str, Any] = {}
        self._hub_mixin_config = config_to_dict(config)  # what save_pretrained writes beside

    @property
    def identity(self) -> str:
        """The variant, and a SHA-256 of configuration and weights."""
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
        """Length of the windows into which clips are cut: that of training, else the paper's."""
        return int(self.training_record.get(CROP_SAMPLES, super().window_samples))

    @property
    def embedding_layers(self) -> list[str]:
        """Names of the layers that embed when none is named: its weights' choice, else the last."""
        return list(self.training_record.get(EMBEDDING_LAYERS, super().embedding_layers))

    def forward(self, audio: Tensor) -> Tensor:
        """Embedding: the last layer's output averaged over time.

        Parameters
        ----------
        audio
            (batch, 1, samples).

        Returns
        -------
        Tensor
            (batch, embedding_size).
        """
        last = self.default_layer
        return self.features(audio, [last])[last].mean(dim=-1)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.hub_files.write(self, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Encoder:
        return cls.hub_files.read(model_id, **options)


class SampleCNN(Encoder):
    """CLMR's encoder (Spijkervet & Burgoyne, ISMIR 2021)."""

    def __init__(self, config: SampleCNNConfig) -> None:
        super().__init__(config)
        self.blocks = sample_cnn_blocks(self.layers)

    def walk(self, audio: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = audio
        for index, block in self.blocks.items():
            x = block(x)
            yield f"blocks.{index}", x


class TailedUNet(Encoder):
    """The Tailed U-Net (Vélez Vásquez & Burgoyne, ISMIR 2022), in every variant."""

    config: TuneConfig

    def __init__(self, config: TuneConfig) -> None:
        super().__init__(config)
        path: dict[str, list[Layer]] = {"contractive": [], "expansive": [], "tail": []}
        for layer in self.layers:
            path[layer.name.split(".")[0]].append(layer)
        self.contractive = nn.ModuleDict(
            {
                _level(layer): Block(layer.in_channels, layer.channels)
                for layer in path["contractive"]
            }
        )
        self.expansive = nn.ModuleDict(
            {
                str(level): ExpansiveBlock(
                    config.channels(level + 1), config.channels(level), layer.channels
                )
                for layer in path["expansive"]
                for level in [int(_level(layer))]
            }
        )
        if isinstance(config.tail, SampleCNNConfig):
            self.tail = sample_cnn_blocks(path["tail"])
        else:
            self.tail = nn.ModuleDict(
                {_level(layer): Block(layer.in_channels, layer.channels) for layer in path["tail"]}
            )

    def walk(self, audio: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = audio
        levels: dict[str, Tensor] = {}  # newest output of each level, for the connections
        for level, block in self.contractive.items():
            x = block(x if level == "0" else max_pool(x))
            levels[level] = x
            yield f"contractive.{level}", x
        for level, block in self.expansive.items():
            x = block(x, levels[level])
            levels[level] = x
            yield f"expansive.{level}", x
        for level, block in self.tail.items():
            x = block(x if self._has_sample_cnn_tail else self._tail_input(x, levels.get(level)))
            yield f"tail.{level}", x

    @property
    def _has_sample_cnn_tail(self) -> bool:
        return isinstance(self.config.tail, SampleCNNConfig)

    def _tail_input(self, x: Tensor, extra: Tensor | None) -> Tensor:
        pooled = max_pool(x)
        if extra is None or not self.config.extra_connections:
            return pooled
        return torch.cat([pooled, extra], dim=1)


def _level(layer: Layer) -> str:
    return layer.name.split(".")[1]


def build_encoder(config: EncoderConfig) -> Encoder:
    """An encoder with fresh random weights, in training mode."""
    if isinstance(config, SampleCNNConfig):
        return SampleCNN(config)
    return TailedUNet(config)
