"""TensorFlow checkpoints (format V2) without TensorFlow: arrays by name, and no code.

A checkpoint is two files. ``PREFIX.index`` is a table in LevelDB's format: the empty key holds a
header, every other key is the name of an array whose type, shape and place are a protocol buffer
(TensorFlow's ``tensor_bundle.proto``). ``PREFIX.data-00000-of-00001`` holds the arrays' bytes. The
computation graph, ``PREFIX.meta``, is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.errors import HearTuneError

Array = npt.NDArray[Any]

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")  # the last bytes of a table
_FOOTER_BYTES = 48
_PLAIN = 0  # compression of a block; TensorFlow writes its index without
_VARINT_BYTES = 10  # at most, for 64 bits
_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
}
# Numbers of fields in BundleHeaderProto, BundleEntryProto, TensorShapeProto and its Dim:
_SHARDS, _BIG_ENDIAN = 1, 2
_DTYPE, _SHAPE, _OFFSET, _SIZE, _SLICES = 1, 2, 4, 5, 7
_DIM = 2
_DIM_SIZE = 1


class TfCheckpointError(HearTuneError, ValueError):
    """The files are not a usable TensorFlow checkpoint."""


def read_tf_checkpoint(prefix: str) -> dict[str, Array]:
    """All arrays of a checkpoint.

    The checksums within are not verified: who needs to trust the files knows their SHA-256.

    Parameters
    ----------
    prefix
        What TensorFlow's ``Saver.restore`` takes: the files' common beginning.

    Returns
    -------
    dict
        Arrays by name.

    Raises
    ------
    OSError
        If a file cannot be read.
    TfCheckpointError
        If the files are damaged, or of a kind that is not supported: several shards, arrays in
        slices, big-endian, types other than 32 and 64-bit numbers.
    """
    index, data = Path(f"{prefix}.index"), Path(f"{prefix}.data-00000-of-00001")
    try:
        entries = _read_table(index.read_bytes())
        _check_header(entries.pop("", b""))
    except TfCheckpointError as error:
        raise TfCheckpointError(f"{index}: {error}") from error
    content = data.read_bytes()
    arrays = {}
    for name, entry in entries.items():
        try:
            arrays[name] = _read_array(entry, content)
        except TfCheckpointError as error:
            raise TfCheckpointError(f"{data}: {name}: {error}") from error
    return arrays


class _Reader:
    """Takes values off some bytes, one after the other."""

    def __init__(self, content: bytes, place: int = 0) -> None:
        self._content = content
        self._place = place

    def __bool__(self) -> bool:
        return self._place < len(self._content)

    def take(self, count: int) -> bytes:
        end = self._place + count
        if count < 0 or end > len(self._content):
            raise TfCheckpointError("damaged: a part of it reaches outside")
        taken = self._content[self._place : end]
        self._place = end
        return taken

    def varint(self) -> int:
        value = 0
        for group in range(_VARINT_BYTES):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << (7 * group)
            if byte < 0x80:
                return value
        raise TfCheckpointError("damaged: a number without end")


def _read_table(table: bytes) -> dict[str, bytes]:
    """Values by key of a LevelDB table."""
    if len(table) < _FOOTER_BYTES or not table.endswith(_MAGIC):
        raise TfCheckpointError("not the index of a TensorFlow checkpoint, or cut off")
    footer = _Reader(table[-_FOOTER_BYTES:])
    _read_block(table, footer)  # a block of statistics, empty
    return {
        key.decode("utf-8", "backslashreplace"): value
        for _, place in _read_block(table, footer)
        for key, value in _read_block(table, _Reader(place))
    }


def _read_block(table: bytes, place: _Reader) -> list[tuple[bytes, bytes]]:
    """Keys and values of the block whose offset and size come next in `place`."""
    offset, size = place.varint(), place.varint()
    around = _Reader(table, offset)
    block = around.take(size)
    (compression,) = around.take(1)
    if compression != _PLAIN:
        raise TfCheckpointError(f"compressed (type {compression}), which is not supported")
    restarts = int.from_bytes(block[-4:], "little")  # places to search from, 4 bytes each
    entries = _Reader(_Reader(block).take(len(block) - 4 - 4 * restarts))
    key, found = b"", []
    while entries:
        shared, rest, value_size = entries.varint(), entries.varint(), entries.varint()
        key = key[:shared] + entries.take(rest)
        found.append((key, entries.take(value_size)))
    return found


_Fields = Sequence[tuple[int, int | bytes]]


def _fields(message: bytes) -> _Fields:
    """Numbers and values of a protocol buffer's fields."""
    return list(_walk_fields(_Reader(message)))


def _walk_fields(message: _Reader) -> Iterator[tuple[int, int | bytes]]:
    while message:
        number, kind = divmod(message.varint(), 8)
        if kind == 0:
            yield number, message.varint()
        elif kind == 2:
            yield number, message.take(message.varint())
        elif kind == 5:
            yield number, int.from_bytes(message.take(4), "little")
        else:
            raise TfCheckpointError(f"damaged: a field of kind {kind}")


def _number(fields: _Fields, wanted: int) -> int:
    """The value of a field, 0 if it is absent."""
    return next((v for n, v in fields if n == wanted and isinstance(v, int)), 0)


def _messages(fields: _Fields, wanted: int) -> list[_Fields]:
    return [_fields(v) for n, v in fields if n == wanted and isinstance(v, bytes)]


def _check_header(message: bytes) -> None:
    header = _fields(message)
    if _number(header, _SHARDS) != 1 or _number(header, _BIG_ENDIAN):
        raise TfCheckpointError("not a little-endian checkpoint in one shard")


def _read_array(message: bytes, content: bytes) -> Array:
    entry = _fields(message)
    dtype = _DTYPES.get(_number(entry, _DTYPE))
    if dtype is None or _messages(entry, _SLICES):
        raise TfCheckpointError(f"type {_number(entry, _DTYPE)} or slices are not supported")
    dims = [dim for shape in _messages(entry, _SHAPE) for dim in _messages(shape, _DIM)]
    shape = [_number(dim, _DIM_SIZE) for dim in dims]
    offset, size = _number(entry, _OFFSET), _number(entry, _SIZE)
    if offset + size > len(content):
        raise TfCheckpointError(f"damaged, or cut off after {len(content):,} bytes")
    if math.prod(shape) * dtype.itemsize != size or max(shape, default=0) > size:
        raise TfCheckpointError(f"damaged: {size} bytes for the shape {shape}")
    array: Array = np.frombuffer(content, dtype, math.prod(shape), offset).reshape(shape)
    return array.copy()
