"""Checkpoints of others: read their pickles without running them, find their variant.

The TUNE authors share Lightning checkpoints, CLMR a plain state dict. Both are pickles, which can
name any function to be called on loading. Here no function of the file's choice is ever called:
tensors are rebuilt by our own code, and every other object becomes an inert placeholder.
"""

from __future__ import annotations

import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .config import ConfigError, EncoderConfig, SampleCNNConfig, TuneConfig
from .network import build_encoder

Shapes = Mapping[str, tuple[int, ...]]


class ForeignCheckpointError(ValueError):
    """A pickle is not a checkpoint of a known encoder, or names something dangerous."""


# --- Reading a pickle without running it ---

# Standard-library classes that appear in hyper-parameters; they too become placeholders.
_PATHS = {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"}
_HARMLESS = {
    "argparse": {"Namespace"},
    "builtins": {"bool", "bytes", "bytearray", "complex", "float", "frozenset", "int", "list"}
    | {"dict", "object", "range", "set", "slice", "str", "tuple"},
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "copyreg": {"_reconstructor"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "enum": {"Enum", "IntEnum"},
    "fractions": {"Fraction"},
    "functools": {"partial"},
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "types": {"SimpleNamespace"},
    "uuid": {"UUID"},
}
# Old names of standard-library modules and C twins of new ones, which reach the same functions.
_STANDARD_MODULES = sys.stdlib_module_names | {"__builtin__", "__main__", "copy_reg", "commands"}


class _Placeholder(dict[Any, Any]):
    """Takes whatever a pickle does to an object, and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass

    def __hash__(self) -> int:  # type: ignore[override]  # may be a dictionary's key
        return id(self)


def _rebuild_tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    """Stand-in for torch's own function, which would grow the storage to any size asked for."""
    untyped, dtype = storage._untyped_storage, storage.dtype
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    held = untyped.nbytes() // dtype.itemsize
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= held):
        raise ForeignCheckpointError("a tensor reaches outside its data: the file is damaged")
    return torch.empty(0, dtype=dtype).set_(untyped, offset, size, stride)


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


_REBUILDERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _REBUILDERS:
            return _REBUILDERS[module, name]
        if module == "torch" and name.endswith("Storage"):
            storage = getattr(torch, name, None)
            if isinstance(storage, type):
                return storage
        top = module.split(".")[0]
        if top.lstrip("_") in {m.lstrip("_") for m in _STANDARD_MODULES} and name not in (
            _HARMLESS.get(module, ())
        ):
            raise ForeignCheckpointError(
                f"refused: it asks for {module}.{name}, which no checkpoint needs and which may "
                "run code; do not trust this file"
            )
        return _Placeholder


class _SafePickle:
    """The part of the `pickle` module that torch.load uses, made safe."""

    __name__ = "hear_tune_safe_pickle"
    Unpickler = _SafeUnpickler

    @staticmethod
    def load(file: BinaryIO, **options: Any) -> Any:
        return _SafeUnpickler(file, **options).load()


def read_pickled_tensors(path: Path) -> dict[str, Tensor]:
    """Encoder tensors of a Lightning checkpoint or a pickled state dict, under their own names.

    Raises
    ------
    ForeignCheckpointError
        If the file is damaged, names something dangerous, or holds no tensors.
    """
    try:
        content = torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=_SafePickle()
        )
    except ForeignCheckpointError:
        raise
    except Exception as error:  # torch and pickle raise nearly everything on damaged files
        raise ForeignCheckpointError(
            f"a damaged, cut-off or foreign pickle ({type(error).__name__}: {error})"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {
        name: tensor
        for name, tensor in (state.items() if isinstance(state, dict) else ())
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
    if not tensors:
        raise ForeignCheckpointError("a pickle without a state dict of tensors")
    return tensors


# --- From their names to ours ---

_PREFIXES = ("encoder.", "model.encoder.")  # Lightning keeps every encoder tensor twice
_HEADS = ("fc.", "model.fc.")  # linear heads are no part of the encoder
_OPERATIONS = {"0": "conv", "1": "norm"}


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
    """The encoder's tensors under hear-tune's names, without heads and projectors.

    Tensors that carry hear-tune's names already keep them.

    Raises
    ------
    ForeignCheckpointError
        If no tensor is one of an encoder's.
    """
    for prefix in (*_PREFIXES, ""):
        inner = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        renamed = {_rename(n): t for n, t in inner.items() if not n.startswith(_HEADS)}
        if any(name.startswith(("contractive.", "blocks.")) for name in renamed):
            return renamed
    sample = ", ".join(list(tensors)[:3])
    raise ForeignCheckpointError(
        f"its tensors ({sample}, ...) are not those of a Tailed U-Net or of CLMR's encoder"
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


# --- The configuration, from the tensors alone ---


def tensor_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an encoder, without allocating any."""
    with torch.device("meta"):
        state = build_encoder(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def infer_config(shapes: Shapes) -> EncoderConfig:
    """The configuration whose encoder has exactly these tensors.

    Parameters
    ----------
    shapes
        Shape of every tensor, by hear-tune's names.

    Raises
    ------
    ForeignCheckpointError
        If there is none.
    """
    try:
        for config in _candidates(shapes):
            if tensor_shapes(config) == dict(shapes):
                return config
    except (ConfigError, KeyError, IndexError) as error:
        raise ForeignCheckpointError(f"its tensors describe no known encoder ({error})") from error
    raise ForeignCheckpointError("its tensors describe no known encoder")


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
    """Output channels of the blocks of one path, by increasing number."""
    blocks = {
        int(match[1]): shape[0]
        for name, shape in shapes.items()
        if (match := re.fullmatch(path + r"\.(\d+)\.conv\.weight", name))
    }
    return tuple(blocks[number] for number in sorted(blocks))
