"""Read tensors from torch's pickled files without running any of the pickle.

A pickle is a program for a small stack machine that may call any function by name. The unpickler
here calls none: it recognises the three calls that make up a state dict and puts an inert
placeholder in place of every other object. It extends the standard library's Python implementation,
because the one in C allocates whatever a file claims and hashes any key. The size of a file bounds
the cost of reading it.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import CheckpointError

MAX_SHARING = 4  # tensors may share data: Lightning names each of an encoder's twice
MAX_PICKLE_BYTES = 32 << 20  # real ones, optimizer state included, stay below 1 MiB

_ZIP = b"PK\3\4"
_MAX_DIMENSIONS, _MAX_NUMBER = 64, 1 << 48  # of a tensor; beyond, products take long
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Nothing in these would be called either, but no checkpoint needs them: the file means harm.
# fmt: off
_SUSPECT_MODULES = {
    "asyncio", "code", "codeop", "commands", "ctypes", "ftplib", "http", "importlib", "io",
    "marshal", "multiprocessing", "nt", "os", "pdb", "pickle", "platform", "posix", "pty", "runpy",
    "shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "urllib",
    "webbrowser",
}
_SUSPECT_BUILTINS = {
    "__import__", "apply", "breakpoint", "compile", "delattr", "eval", "exec", "execfile",
    "getattr", "globals", "input", "open", "setattr", "vars",
}
# fmt: on
_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a pickled state dict, or the one in a Lightning checkpoint.

    Parameters
    ----------
    path : Path
        File written by ``torch.save``, in its format since torch 1.6 or the one before.

    Returns
    -------
    dict of str to Tensor
        Tensors by name.

    Raises
    ------
    CheckpointError
        If the file is damaged, asks for what no checkpoint needs, or holds no state dict.
    """
    try:
        with path.open("rb") as file:  # `zipfile.is_zipfile` looks at the end, which may be weights
            zipped = file.read(len(_ZIP)) == _ZIP
        content, read_storage = (_open_zip if zipped else _open_legacy)(path)
        state = content.get("state_dict", content) if isinstance(content, dict) else {}
        plans = {
            name: plan
            for name, plan in (state.items() if isinstance(state, dict) else ())
            if isinstance(name, str) and isinstance(plan, _TensorPlan)
        }
        if sum(plan.bytes for plan in plans.values()) > MAX_SHARING * path.stat().st_size:
            raise CheckpointError("its tensors claim far more data than the file holds")
        tensors = {name: plan.build(read_storage(plan.storage)) for name, plan in plans.items()}
    except CheckpointError:
        raise
    except Exception as error:  # damaged files fail in every way that parsers know
        raise CheckpointError(
            f"a damaged or cut-off pickle ({type(error).__name__}: {error})"
        ) from error
    if not tensors:
        raise CheckpointError("a pickle without a state dict of tensors")
    return tensors


# --- The two formats of torch.save ---


class _Storage(NamedTuple):
    key: str
    dtype: torch.dtype


_StorageReader = Callable[[_Storage], memoryview]


def _open_zip(path: Path) -> tuple[Any, _StorageReader]:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    programs = [name for name in entries if name.endswith("data.pkl")]
    if any(name.endswith("constants.pkl") or "/code/" in name for name in entries):
        raise CheckpointError("refused: a TorchScript program, which is code and not weights")
    if len(programs) != 1:
        raise CheckpointError("a zip file, but not one of torch.save: expected one data.pkl in it")
    root = programs[0].removesuffix("data.pkl")

    def read(name: str) -> bytes:
        entry = entries[name]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"{name} is compressed, which torch.save never does")
        with zipfile.ZipFile(path) as archive:
            return archive.read(entry)

    if entries.get(f"{root}byteorder") and read(f"{root}byteorder") != b"little":
        raise CheckpointError("written on a big-endian machine; save it again on another")
    if entries[programs[0]].file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(f"its pickle is larger than {MAX_PICKLE_BYTES:,} bytes")
    content = _Unpickler(io.BytesIO(read(programs[0]))).load()
    return content, lambda storage: memoryview(read(f"{root}data/{storage.key}"))


def _open_legacy(path: Path) -> tuple[Any, _StorageReader]:
    """Read the format before torch 1.6: five pickles, then each storage's length and bytes."""
    data = path.read_bytes()
    file = io.BytesIO(data)
    programs = [_Unpickler(file) for _ in range(5)]
    magic, _, _, content, keys = (program.load() for program in programs)
    if magic != _LEGACY_MAGIC:
        raise CheckpointError("a pickle, but not one of torch.save")
    known = programs[3].storages
    storages: dict[str, memoryview] = {}
    position = file.tell()
    for key in keys:
        if not isinstance(key, str) or key not in known:
            raise CheckpointError("it holds data of an unknown kind")
        count = int.from_bytes(data[position : position + 8], "little")
        end = position + 8 + count * known[key].dtype.itemsize
        if end > len(data):
            raise CheckpointError("cut off within its tensors' data")
        storages[key] = memoryview(data)[position + 8 : end]
        position = end
    return content, lambda storage: storages[storage.key]


# --- What pickles may make ---


class _TensorPlan(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size in memory."""
        sizes = (self.offset, *self.size, *self.stride)
        possible = all(type(n) is int and 0 <= n < _MAX_NUMBER for n in sizes)
        if not possible or not len(self.size) == len(self.stride) <= _MAX_DIMENSIONS:
            raise CheckpointError("a tensor has an impossible shape")
        return prod(self.size) * self.storage.dtype.itemsize

    def build(self, data: memoryview) -> Tensor:
        """Build the tensor from its storage's bytes."""
        reach = sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        held = len(data) // self.storage.dtype.itemsize
        if 0 in self.size:
            return torch.empty(self.size, dtype=self.storage.dtype)
        if self.offset + reach >= held:
            raise CheckpointError("a tensor reaches outside its data")
        flat = torch.frombuffer(bytearray(data), dtype=self.storage.dtype, count=held)
        return flat.as_strided(self.size, self.stride, self.offset).clone()


class _Placeholder:
    """Stands for any other object, and swallows what a pickle puts into it."""

    def append(self, value: object) -> None:
        pass

    add = extend = append

    def __setitem__(self, key: object, value: object) -> None:
        pass


class _PlainDict(dict[Any, Any]):
    """Drops items whose keys are not plain: hashing nested tuples can take forever."""

    def __setitem__(self, key: object, value: object) -> None:
        if isinstance(key, str | int | float | bytes):
            super().__setitem__(key, value)


_PLACEHOLDER = _Placeholder()


_PythonUnpickler: Any = pickle._Unpickler  # its stack and opcodes are not in the type stubs


class _Unpickler(_PythonUnpickler):  # type: ignore[misc]
    """Looks up no name and calls no function: a name stays (module, name).

    Attributes
    ----------
    storages : dict of str to _Storage
        Storages that the pickle has named, by key.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="latin-1")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> tuple[str, str]:
        builtin = module in ("builtins", "__builtin__") and name.split(".")[0] in _SUSPECT_BUILTINS
        if builtin or module.split(".")[0].lstrip("_") in _SUSPECT_MODULES:
            raise CheckpointError(
                f"refused: it asks for {module}.{name}, which no checkpoint needs and which could "
                "run code; do not trust this file"
            )
        return module, name

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("storage", ("torch" | "torch.storage", str(name)), str(key), *_) if (
                name in _DTYPES
            ):
                self.storages[key] = _Storage(key, _DTYPES[name])
                return self.storages[key]
        return _PLACEHOLDER

    def get_extension(self, code: int) -> None:
        self.append(_PLACEHOLDER)

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.append(_rebuild(function, arguments))

    def _drop_marked(self) -> None:
        self.pop_mark()
        self.append(_PLACEHOLDER)

    def _drop_instance(self) -> None:
        self.find_class(*(self.readline()[:-1].decode() for _ in range(2)))
        self._drop_marked()

    def _make_dict(self) -> None:
        items, made = self.pop_mark(), _PlainDict()
        for key, value in zip(items[::2], items[1::2], strict=True):
            made[key] = value
        self.append(made)

    def _new_with_keywords(self) -> None:
        self.stack[-3:] = [_PLACEHOLDER]

    dispatch = _PythonUnpickler.dispatch | {
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _call,
        pickle.NEWOBJ_EX[0]: _new_with_keywords,
        pickle.OBJ[0]: _drop_marked,
        pickle.INST[0]: _drop_instance,
        pickle.FROZENSET[0]: _drop_marked,
        pickle.EMPTY_SET[0]: lambda self: self.append(_PLACEHOLDER),
        pickle.EMPTY_DICT[0]: lambda self: self.append(_PlainDict()),
        pickle.DICT[0]: _make_dict,
        pickle.BUILD[0]: lambda self: self.stack.pop(),
        pickle.BYTEARRAY8[0]: _PythonUnpickler.load_binbytes8,  # its own allocates before it reads
    }


def _rebuild(function: Any, arguments: Any) -> Any:
    match function, arguments:
        case ("collections", "OrderedDict"), ():
            return _PlainDict()
        case ("torch._utils", "_rebuild_tensor_v2"), (
            _Storage() as storage,
            int(offset),
            tuple(size),
            tuple(stride),
            *_,
        ):
            return _TensorPlan(storage, offset, size, stride)
        case ("torch._utils", "_rebuild_parameter"), (_TensorPlan() as plan, *_):
            return plan
    return _PLACEHOLDER
