"""Tensors out of torch's pickled files, without running any of the pickle.

A pickle is a program for a small stack machine that may call any function by name. Here such
programs are read by a machine that calls nothing: it follows plain values, dictionaries and the
three calls that make up a state dict, and puts an inert placeholder in place of everything else.
What a file can cost is bounded by its size.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import CheckpointError

MAX_SHARING = 4  # tensors may share data: Lightning names each of an encoder's twice
MAX_PICKLE_BYTES = 32 << 20  # real ones, optimizer state included, stay below 1 MiB

_ZIP = b"PK\3\4"
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
# Nothing of these would be called either. But no checkpoint has use for them, and whoever put them
# there meant harm.
_SUSPECT_MODULES = frozenset(
    {"asyncio", "code", "codeop", "commands", "ctypes", "ftplib", "http", "importlib", "io"}
    | {
        "marshal",
        "multiprocessing",
        "nt",
        "os",
        "pdb",
        "pickle",
        "platform",
        "posix",
        "pty",
        "runpy",
    }
    | {"shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "urllib"}
    | {"webbrowser"}
)
_SUSPECT_BUILTINS = frozenset(
    {"__import__", "apply", "breakpoint", "compile", "delattr", "eval", "exec", "execfile"}
    | {"getattr", "globals", "input", "open", "setattr", "vars"}
)


@dataclass(frozen=True)
class _Global:
    """A name in a module; never looked up."""

    module: str
    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype


@dataclass(frozen=True)
class _TensorPlan:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """What the tensor takes in memory."""
        sizes = (self.offset, *self.size, *self.stride)
        if len(self.size) != len(self.stride) or any(type(n) is not int or n < 0 for n in sizes):
            raise CheckpointError("a tensor has an impossible shape")
        return prod(self.size) * self.storage.dtype.itemsize

    def build(self, data: memoryview) -> Tensor:
        """The tensor, from its storage's bytes."""
        reach = sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        held = len(data) // self.storage.dtype.itemsize
        if 0 in self.size:
            return torch.empty(self.size, dtype=self.storage.dtype)
        if self.offset + reach >= held:
            raise CheckpointError("a tensor reaches outside its data")
        flat = torch.frombuffer(bytearray(data), dtype=self.storage.dtype, count=held)
        return flat.as_strided(self.size, self.stride, self.offset).clone()


class _Opaque:
    """In place of any object that is of no interest."""


_OPAQUE = _Opaque()
_MARK = _Opaque()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a pickled state dict, or of the one in a Lightning checkpoint.

    Parameters
    ----------
    path
        Written by ``torch.save``, in its format since torch 1.6 or the one before.

    Returns
    -------
    dict
        Tensors by name.

    Raises
    ------
    CheckpointError
        If the file is damaged, asks for what no checkpoint needs, or holds no state dict.
    """
    try:
        if _is_zip(path):
            content, read_storage = _open_zip(path)
        else:
            content, read_storage = _open_legacy(path)
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


StorageReader = Callable[[_Storage], memoryview]


def _is_zip(path: Path) -> bool:
    """By its beginning: `zipfile.is_zipfile` goes by the end, and tensors may read as anything."""
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _open_zip(path: Path) -> tuple[Any, StorageReader]:
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
    content = _Machine(io.BytesIO(read(programs[0]))).run()
    return content, lambda storage: memoryview(read(f"{root}data/{storage.key}"))


def _open_legacy(path: Path) -> tuple[Any, StorageReader]:
    """The format before torch 1.6: five pickles, then each storage's length and bytes."""
    data = path.read_bytes()
    file = io.BytesIO(data)
    machine = _Machine(file)
    magic, _, _, content, keys = (machine.run() for _ in range(5))
    if magic != 0x1950A86A20F9469CFC6C:
        raise CheckpointError("a pickle, but not one of torch.save")
    storages: dict[str, memoryview] = {}
    position = file.tell()
    for key in keys:
        if key not in machine.storages:
            raise CheckpointError("it holds data of an unknown kind")
        count = int.from_bytes(data[position : position + 8], "little")
        end = position + 8 + count * machine.storages[key].dtype.itemsize
        if end > len(data):
            raise CheckpointError("cut off within its tensors' data")
        storages[key] = memoryview(data)[position + 8 : end]
        position = end
    return content, lambda storage: storages[storage.key]


class _Machine:
    """Follows the pickle programs of a file, one after the other."""

    def __init__(self, file: io.BytesIO) -> None:
        self._file = file
        self._stack: list[Any]
        self._memo: dict[int, Any]
        self.storages: dict[str, _Storage] = {}

    def run(self) -> Any:
        """The value that the next program in the file describes."""
        self._stack, self._memo = [], {}
        for opcode, argument, _ in pickletools.genops(self._file):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode, argument)
        raise CheckpointError("cut off")

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        stack = self._stack
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                stack.append(_MARK)
            case "POP" | "POP_MARK":
                self._pop_to_mark() if opcode.name == "POP_MARK" else stack.pop()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "LIST":
                stack.append(self._pop_to_mark())
            case "DICT":
                stack.append({})
                self._set_items(self._pop_to_mark(above=1))
            case "APPEND":
                self._append([stack.pop()])
            case "APPENDS":
                self._append(self._pop_to_mark())
            case "SETITEM":
                self._set_items([stack.pop(-2), stack.pop()])
            case "SETITEMS":
                self._set_items(self._pop_to_mark())
            case "GLOBAL":
                stack.append(_global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_global(module, name))
            case "INST":
                self._pop_to_mark()
                _global(*argument.split(" ", 1))
                stack.append(_OPAQUE)
            case "BINPERSID":
                storage = _storage(stack.pop())
                if isinstance(storage, _Storage):
                    self.storages[storage.key] = storage
                stack.append(storage)
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "BUILD":
                stack.pop()
            case _:
                self._follow_shape(opcode, argument)

    def _follow_shape(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Any other operation: literals are pushed, what objects it makes are placeholders."""
        if not opcode.stack_before and opcode.arg is not None:
            self._stack.append(argument)
            return
        if pickletools.markobject in opcode.stack_before:
            self._pop_to_mark()
        for kind in opcode.stack_before:
            if kind not in (pickletools.markobject, pickletools.stackslice):
                self._stack.pop()
        self._stack.extend(_OPAQUE for _ in opcode.stack_after)

    def _pop_to_mark(self, above: int = 0) -> list[Any]:
        """Take the values above the newest mark, and the mark; the top `above` ones stay."""
        end = len(self._stack) - above
        start = next(i for i in reversed(range(end)) if self._stack[i] is _MARK)
        values = self._stack[start + 1 : end]
        del self._stack[start:end]
        return values

    def _append(self, values: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(values)

    def _set_items(self, values: list[Any]) -> None:
        """Only plain keys: hashing others could cost more than the file is large."""
        target = self._stack[-1]
        if isinstance(target, dict):
            for key, value in zip(values[::2], values[1::2], strict=True):
                if isinstance(key, str | int | float | bytes):
                    target[key] = value


def _global(module: Any, name: Any) -> _Global:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise CheckpointError("it names something that has no name")
    builtin = module in ("builtins", "__builtin__") and name.split(".")[0] in _SUSPECT_BUILTINS
    if builtin or module.split(".")[0].lstrip("_") in _SUSPECT_MODULES:
        raise CheckpointError(
            f"refused: it asks for {module}.{name}, which no checkpoint needs and which could run "
            "code; do not trust this file"
        )
    return _Global(module, name)


def _storage(identifier: Any) -> Any:
    match identifier:
        case ("storage", _Global("torch" | "torch.storage", name), str(key), *_) if name in _DTYPES:
            return _Storage(key, _DTYPES[name])
    return _OPAQUE


def _call(function: Any, arguments: Any) -> Any:
    match function, arguments:
        case _Global("collections", "OrderedDict"), ():
            return {}
        case _Global("torch._utils", "_rebuild_tensor_v2"), (
            _Storage() as storage,
            int(offset),
            tuple(size),
            tuple(stride),
            *_,
        ):
            return _TensorPlan(storage, offset, size, stride)
        case _Global("torch._utils", "_rebuild_parameter"), (_TensorPlan() as plan, *_):
            return plan
    return _OPAQUE
