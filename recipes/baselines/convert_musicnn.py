"""Convert musicnn's MagnaTagATune weights from its TensorFlow checkpoint to safetensors.

    pip install --no-deps musicnn==0.1.0
    python recipes/baselines/convert_musicnn.py hear_tune/weights/musicnn-mtt.safetensors

Neither TensorFlow nor any code of musicnn is run. The checkpoint is two files: an index, which is a
LevelDB table of protocol buffers (TensorFlow's ``tensor_bundle.proto``), and the arrays' bytes.
Both are known by their SHA-256, so that the reader knows only what is in these two.
"""

import argparse
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hear_tune.baselines.musicnn import MusicnnNetwork
from hear_tune.common.files import sha256_of

SHA256 = {
    ".index": "da2d7bb670b2b31e9bc441bb1bd75eca31b5b061f963cc1f9630c1aff3238f57",
    ".data-00000-of-00001": "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",
}
FOOTER_BYTES = 48
SHAPE, OFFSET = 2, 4  # fields of BundleEntryProto
DIM = 2  # of TensorShapeProto
SIZE = 1  # of its Dim

# TensorFlow's names of a layer's tensors by PyTorch's
WEIGHTS = {"weight": "kernel", "bias": "bias"}
NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
KINDS = (
    (nn.Conv2d, "conv2d", WEIGHTS),
    (nn.BatchNorm1d | nn.BatchNorm2d, "batch_normalization", NORM),
    (nn.Linear, "dense", WEIGHTS),
)


def main() -> None:
    """Write the weights to the file named on the command line."""
    parser = argparse.ArgumentParser(description="Convert musicnn's weights to safetensors.")
    parser.add_argument("output", metavar="OUT.safetensors")
    save_file(convert(read_checkpoint()), parser.parse_args().output)


def convert(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Rename and transpose a checkpoint's arrays for `MusicnnNetwork`.

    TensorFlow numbers the layers of each kind in the order of their creation (``dense``,
    ``dense_1``) and puts the input and output channels of a kernel last.
    """
    modules = dict(MusicnnNetwork().named_modules())
    tensors = {}
    for kind, stem, names in KINDS:
        paths = [path for path, module in modules.items() if isinstance(module, kind)]
        for number, path in enumerate(paths):
            layer = f"{stem}_{number}" if number else stem
            for ours, theirs in names.items():
                tensor = torch.from_numpy(arrays[f"{layer}/{theirs}"])
                axes = range(tensor.ndim)
                tensors[f"{path}.{ours}"] = tensor.permute(*axes[:-3:-1], *axes[:-2]).contiguous()
    return tensors


def read_checkpoint() -> dict[str, np.ndarray]:
    """Read the float32 arrays of the checkpoint in the installed package, by name."""
    folder = Path(str(distribution("musicnn").locate_file("musicnn/MTT_musicnn")))
    index, data = (_read_known(folder / suffix, sha256) for suffix, sha256 in SHA256.items())
    arrays = {}
    footer = _Reader(index[-FOOTER_BYTES:])
    _block(index, footer)  # statistics
    for _, place in _block(index, footer):
        for key, value in _block(index, _Reader(place)):
            if key:  # the empty key holds a header
                entry = _fields(value)
                sizes = [
                    _fields(dim).get(SIZE, [0])[0] for dim in _fields(entry[SHAPE][0]).get(DIM, [])
                ]
                offset = entry.get(OFFSET, [0])[0]
                array = np.frombuffer(data, "<f4", int(np.prod(sizes)), offset)
                arrays[key.decode()] = array.reshape(sizes).copy()
    return arrays


def _read_known(path: Path, sha256: str) -> bytes:
    if sha256_of(path) != sha256:
        raise SystemExit(f"{path}: not the file of musicnn 0.1.0")
    return path.read_bytes()


class _Reader:
    """Reads values from bytes one after the other."""

    def __init__(self, content: bytes, place: int = 0) -> None:
        self.content, self.place = content, place

    def __bool__(self) -> bool:
        return self.place < len(self.content)

    def take(self, count: int) -> bytes:
        self.place += count
        return self.content[self.place - count : self.place]

    def varint(self) -> int:
        value, shift = 0, 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7


def _block(table: bytes, place: _Reader) -> list[tuple[bytes, bytes]]:
    """Keys and values of the uncompressed block whose offset and size come next."""
    offset, size = place.varint(), place.varint()
    block = table[offset : offset + size]
    restarts = int.from_bytes(block[-4:], "little")  # 4 bytes each, for binary search
    entries, key, found = _Reader(block[: -4 - 4 * restarts]), b"", []
    while entries:
        shared, rest, length = entries.varint(), entries.varint(), entries.varint()
        key = key[:shared] + entries.take(rest)
        found.append((key, entries.take(length)))
    return found


def _fields(message: bytes) -> dict[int, list[Any]]:
    """Values of a protocol buffer by field number."""
    fields: dict[int, list[Any]] = {}
    reader = _Reader(message)
    while reader:
        number, kind = divmod(reader.varint(), 8)
        readers = {
            0: reader.varint,
            2: lambda: reader.take(reader.varint()),
            5: lambda: reader.take(4),
        }
        fields.setdefault(number, []).append(readers[kind]())
    return fields


if __name__ == "__main__":
    main()
