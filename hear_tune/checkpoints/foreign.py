"""Recognise the tensors of other programs' checkpoints, and infer their configuration.

The TUNE authors share Lightning checkpoints, CLMR a plain state dict. Both are pickles (see
`hear_tune.checkpoints.unpickling`) of tensors under the names of their own code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..common.text import first_n
from ..networks.config import ConfigError, EncoderConfig, SampleCNNConfig, TuneConfig
from ..networks.encoders import build_encoder
from . import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


# --- Names ---

_PREFIXES = ("encoder.", "model.encoder.")  # Lightning keeps every encoder tensor twice
_HEADS = ("fc.", "model.fc.")  # linear heads are not part of the encoder
_OPERATIONS = {"0": "conv", "1": "norm"}
_COUNTER = "num_batches_tracked"


def _numbered_block(number: int) -> str:
    return f"contractive.{number - 1}" if number <= 5 else f"expansive.{9 - number}"


_RENAMINGS: tuple[tuple[str, Callable[[int], str]], ...] = (
    (r"conv(\d+)\.layers", _numbered_block),
    (r"deeperDown(\d+)\.layers", lambda n: f"contractive.{n + 4}"),
    (r"deeperUp(\d+)\.layers", lambda n: f"expansive.{n + 3}"),
    (r"convDown(\d+)\.layers", lambda n: f"tail.{n}"),
    (r"model_down\.sequential\.(\d+)", lambda n: f"tail.{n}"),
    (r"sequential\.(\d+)", lambda n: f"blocks.{n}"),
)
_UPSAMPLERS: tuple[tuple[str, Callable[[int], str]], ...] = (
    (r"transposedConv(\d+)", lambda n: f"expansive.{9 - n}"),
    (r"transposedDeeper(\d+)", lambda n: f"expansive.{n + 3}"),
)


def rename_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an encoder's tensors as in hear-tune, and drop heads and projectors.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Tensors by the names of their authors' code, or by hear-tune's.

    Returns
    -------
    dict of str to Tensor
        The encoder's tensors by hear-tune's names.

    Raises
    ------
    CheckpointError
        If no tensor belongs to an encoder.
    """
    for prefix in (*_PREFIXES, ""):
        inner = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        renamed = {_rename(n): t for n, t in inner.items() if not n.startswith(_HEADS)}
        for name in [n for n in renamed if n.endswith(".norm.running_var")]:  # absent in old torch
            renamed.setdefault(name.replace("running_var", _COUNTER), torch.tensor(0))
        if any(name.startswith(("contractive.", "blocks.")) for name in renamed):
            return renamed
    raise CheckpointError(
        f"its tensors ({first_n(list(tensors), 3)}) are not those of a Tailed U-Net or of CLMR's "
        "encoder"
    )


def _rename(name: str) -> str:
    for pattern, path in _RENAMINGS:
        if match := re.fullmatch(pattern + r"\.([01])\.(\w+)", name):
            number, operation, tensor = match.groups()
            return f"{path(int(number))}.{_OPERATIONS[operation]}.{tensor}"
    for pattern, path in _UPSAMPLERS:
        if match := re.fullmatch(pattern + r"\.(\w+)", name):
            return f"{path(int(match[1]))}.upsample.{match[2]}"
    return name


# --- Configuration ---


def tensor_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of an encoder by name, without allocating any."""
    with torch.device("meta"):
        state = build_encoder(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def infer_config(shapes: Shapes) -> EncoderConfig:
    """Find the configuration whose encoder has exactly these tensors.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shape of every tensor by hear-tune's names.

    Raises
    ------
    CheckpointError
        If there is no such configuration.
    """
    try:
        for config in _candidates(shapes):
            if tensor_shapes(config) == dict(shapes):
                return config
    except (ConfigError, KeyError, IndexError) as error:
        raise CheckpointError(f"its tensors describe no known encoder ({error})") from error
    raise CheckpointError("its tensors describe no known encoder")


def _candidates(shapes: Shapes) -> list[EncoderConfig]:
    if "blocks.0.conv.weight" in shapes:
        return [SampleCNNConfig(_widths(shapes, "blocks"))]
    contractive = len(_widths(shapes, "contractive")) - 1
    filters = shapes["contractive.0.conv.weight"][0]
    expansive = len(_widths(shapes, "expansive"))
    tail_widths = _widths(shapes, "tail")
    if "tail.0.conv.weight" in shapes:
        tail = SampleCNNConfig(tail_widths)
        return [TuneConfig(filters, contractive, expansive, tail, False, tail_widths[-1])]
    first = contractive - expansive + 1
    flat_levels = (None, *range(first, first + len(tail_widths)))
    return [
        TuneConfig(filters, contractive, expansive, len(tail_widths), extra, tail_widths[-1], flat)
        for extra in (False, True)
        for flat in flat_levels
    ]


def _widths(shapes: Shapes, path: str) -> tuple[int, ...]:
    """Return the output channels of a path's blocks in order."""
    blocks = {
        int(match[1]): shape[0]
        for name, shape in shapes.items()
        if (match := re.fullmatch(path + r"\.(\d+)\.conv\.weight", name))
    }
    return tuple(blocks[number] for number in sorted(blocks))
