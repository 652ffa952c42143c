"""Encoders rearranged for inference: the same outputs, on CPUs several times faster.

Batch normalisation is folded into the convolutions. These become 2-D with channels innermost in
memory, the layout for which oneDNN has fast kernels at few channels. The transposed convolutions,
whose stride equals their kernel, become convolutions of kernel 1 whose outputs are already
interleaved; where maps are long, they are merged with the convolutions that follow.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from ..common.devices import one_thread
from ..common.ranges import one_of
from .config import BACKENDS, FACTOR, PRECISIONS, Backend, Precision
from .encoders import Block, Encoder, ExpansiveBlock, LayeredEncoder
from .geometry import KERNEL
from .pooling import relu_

_COMPOSED_CHANNELS = 44  # beyond, the zeros in composed weights cost more than maps


class FoldedEncoder(LayeredEncoder):
    """A rearranged copy of a network, for inference only.

    Outputs equal those of the network in evaluation mode up to float32 rounding, except that NaN
    does not propagate.

    Parameters
    ----------
    encoder : Encoder
        The network to copy.
    dtype : torch.dtype
        Type of weights and maps.
    """

    def __init__(self, encoder: Encoder, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.layers = encoder.layers
        self._original = (encoder,)  # in a tuple, it is no submodule
        self.network = copy.deepcopy(encoder).float().eval().requires_grad_(False)
        projections, self.network.projections = self.network.projections, nn.ModuleDict()
        for module in self.network.modules():
            if isinstance(module, Block):
                _fold_block(module)
        for module in self.network.modules():
            for name, child in module.named_children():
                if isinstance(child, ExpansiveBlock):
                    setattr(module, name, _rearranged(child))
        first = next(m for m in self.network.modules() if isinstance(m, Block))
        waveform = _FromWaveform(first.conv, dtype)
        self.network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        first.conv = waveform  # type: ignore[assignment]
        del self.projections  # behind the network, whose type audio must have
        self.projections = projections
        self.eval()

    @property
    def identity(self) -> str:
        return self._original[0].identity

    def walk(self, audio: Tensor) -> Iterator[tuple[str, Tensor]]:
        image = audio[:, :, None]  # of height 1
        for name, output in self.network.walk(image):
            yield name, output.squeeze(2)


class _FromWaveform(nn.Module):
    """The first convolution in float32, like that of `Block`: (batch, 1, 1, T) of float32."""

    def __init__(self, conv: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = copy.deepcopy(conv).to(memory_format=torch.channels_last)
        self._dtype = dtype

    def forward(self, audio: Tensor) -> Tensor:
        return self.conv(audio).to(self._dtype)  # type: ignore[no-any-return]


def _rearranged(block: ExpansiveBlock) -> nn.Module:
    """Rearrange a block that is already folded."""
    if block.upsample.out_channels <= _COMPOSED_CHANNELS:
        return _ComposedBlock(block)
    block.upsample = _Upsampling(block.upsample)  # type: ignore[assignment]
    return block


class _Upsampling(nn.Module):
    """A transposed convolution of kernel 3 and stride 3: (batch, in, 1, T) -> (batch, out, 1, 3 T).

    The output channels of three frames are computed as 3 x out channels of one.
    """

    def __init__(self, transposed: nn.ConvTranspose1d) -> None:
        super().__init__()
        assert transposed.bias is not None
        weight = transposed.weight.permute(2, 1, 0).flatten(0, 1)
        self.conv = _conv2d(weight[:, :, None], transposed.bias.repeat(FACTOR))

    def forward(self, x: Tensor) -> Tensor:
        return _interleave(self.conv(x))


class _ComposedBlock(nn.Module):
    """An expansive block that computes neither the upsampled nor the concatenated map.

    Convolution is linear: that of concatenated maps is the sum of those of each. The one on the
    upsampled map and the transposed convolution merge into one convolution of the deep map.
    """

    def __init__(self, block: ExpansiveBlock) -> None:
        super().__init__()
        upsample, conv = block.upsample, block.conv
        assert upsample.bias is not None
        assert conv.bias is not None
        upsampled = conv.weight[:, : upsample.out_channels, 0]
        skipped = conv.weight[:, upsample.out_channels :, 0]
        deep = conv.weight.new_zeros(FACTOR, conv.out_channels, upsample.in_channels, KERNEL)
        for frame in range(FACTOR):
            for tap in range(KERNEL):
                # the upsampled frame under this tap: its deep frame, and its position within
                deep_offset, place = divmod(frame + tap - KERNEL // 2, FACTOR)
                weight = upsampled[:, :, tap] @ upsample.weight[:, :, place].T
                deep[frame, :, :, KERNEL // 2 + deep_offset] += weight
        bias = torch.einsum("oit,i->to", upsampled, upsample.bias)  # per tap
        self.deep = _conv2d(deep.flatten(0, 1))
        self.skip = _conv2d(skipped, conv.bias + bias.sum(dim=0))
        self.ends: Tensor  # at each end one tap covers padding, which has no bias
        self.register_buffer("ends", bias[[0, -1]].T[None, :, None])

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        x: Tensor = self.skip(skip)
        x += _interleave(self.deep(deep))
        x[..., :: x.shape[-1] - 1] -= self.ends  # first and last frame
        return relu_(x)


def _interleave(x: Tensor) -> Tensor:
    """Split frames of 3 C channels into three of C: (batch, 3 C, 1, T) -> (batch, C, 1, 3 T).

    With channels innermost, no data move.
    """
    frames = x.permute(0, 2, 3, 1)
    batch, _, length, channels = frames.shape
    return frames.reshape(batch, 1, FACTOR * length, channels // FACTOR).permute(0, 3, 1, 2)


def _fold_block(block: Block) -> None:
    folded = nn.utils.fusion.fuse_conv_bn_eval(block.conv, block.norm)
    conv = _conv2d(folded.weight, folded.bias, folded.stride[0])
    block.conv, block.norm, block.activation = conv, nn.Identity(), relu_  # type: ignore[assignment]


def _conv2d(weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> nn.Conv2d:
    """Convolve maps of height 1 with (out, in, kernel) weights; padded unless strided."""
    channels, in_channels, kernel = weight.shape
    padding = kernel // 2 if stride == 1 else 0
    conv = nn.Conv2d(
        in_channels, channels, (1, kernel), (1, stride), (0, padding), bias=bias is not None
    )
    conv.weight = nn.Parameter(weight[:, :, None], requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias, requires_grad=False)
    return conv


class InferenceNetwork:
    """Chooses the network to compute with: the encoder itself, or a folded copy kept up to date.

    Parameters
    ----------
    backend : {"auto", "eager", "folded"}
        "auto" is "folded" on a CPU, where it is faster, and the encoder itself on a GPU.
    precision : {"float32", "bfloat16", "float16"}
        Precision of weights and maps. The last two always use the folded network, where they round
        least: with the weights in the package, the embeddings of 110 recordings in bfloat16 lie
        within a cosine distance of 3e-3 of those in float32. "float16" is for GPUs only.

    Raises
    ------
    ValueError
        If backend or precision is unknown, or the two cannot be combined.
    """

    def __init__(self, backend: Backend = "auto", precision: Precision = "float32") -> None:
        one_of(BACKENDS, backend=backend)
        one_of(PRECISIONS, precision=precision)
        if backend == "eager" and precision != "float32":
            raise ValueError(f"{precision} is for the folded network: leave the backend to auto")
        self.backend = backend
        self.precision = precision

    _held: tuple[LayeredEncoder, LayeredEncoder] | None = None  # an encoder and its network
    _encoder: Encoder | None = None
    _copied: list[Tensor]  # its tensors as they were
    _network: LayeredEncoder

    def __getstate__(self) -> dict[str, str]:
        """Copies fold their own network when needed."""
        return {"backend": self.backend, "precision": self.precision}

    def of(self, encoder: LayeredEncoder) -> LayeredEncoder:
        """Return the network for an encoder, folded anew if its weights have changed.

        All weights are compared, because edits of a tensor's ``data`` leave no other trace. For 2.2
        million this takes 1.5 ms on one core, and a batch of 24 windows 260 ms.

        Raises
        ------
        ValueError
            If the precision is not for the encoder's device.
        """
        if self._held is not None and self._held[0] is encoder:
            return self._held[1]
        self.check(any_tensor(encoder).device)
        if not isinstance(encoder, Encoder) or not self._folds(encoder):
            return encoder
        if encoder is not self._encoder or not _are_equal(list(_tensors(encoder)), self._copied):
            # usable outside of inference mode, and the same for any number of threads
            with torch.inference_mode(False), torch.no_grad(), one_thread():
                self._network = self._make(encoder)
                self._copied = [tensor.detach().clone() for tensor in _tensors(encoder)]
            self._encoder = encoder
        return self._network

    def check(self, device: torch.device) -> None:
        """Raise a ValueError if the precision is not for a device."""
        if self.precision == "float16" and device.type == "cpu":
            raise ValueError("float16 is for GPUs: on a CPU, choose bfloat16")

    @contextmanager
    def holding(self, encoder: LayeredEncoder) -> Iterator[None]:
        """Compute with an encoder's weights as they are now.

        They are not compared for each batch, which would wait for the batches that a GPU computes.
        """
        self._held = (encoder, self.of(encoder))
        try:
            yield
        finally:
            self._held = None

    def _folds(self, encoder: Encoder) -> bool:
        if self.backend == "auto":
            return self.precision != "float32" or any_tensor(encoder).device.type == "cpu"
        return self.backend == "folded"

    def _make(self, encoder: Encoder) -> LayeredEncoder:
        if not all(bool(tensor.isfinite().all()) for tensor in _tensors(encoder)):
            return encoder  # NaN does not propagate through the folded one
        sample = any_tensor(encoder)
        dtype = sample.dtype if self.precision == "float32" else getattr(torch, self.precision)
        return FoldedEncoder(encoder, dtype).to(sample.device)


def _are_equal(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(tensors) == len(others) and all(
        (a.device, a.dtype) == (b.device, b.dtype) and torch.equal(a, b)
        for a, b in zip(tensors, others, strict=True)
    )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and restore each part's mode afterwards."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def precision_of(identity: str) -> Precision:
    """Return the precision named in a model's fingerprint."""
    named = identity.split(" ")[-1]
    return next((precision for precision in PRECISIONS if precision == named), "float32")


def any_tensor(module: nn.Module) -> Tensor:
    """Return any tensor, to know the device and type; baselines have only buffers."""
    return next(_tensors(module))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())
