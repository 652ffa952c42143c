"""Save and load checkpoints: one safetensors file that rebuilds its encoder.

The metadata holds the configuration, the variant's name, the sample rate, the training record and
the version of hear-tune. Checkpoints of the TUNE authors and of CLMR are read as well
(`hear_tune.checkpoints.foreign`). Loading never runs code from a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..common.devices import one_thread
from ..common.files import sha256_of, write_whole
from ..common.text import first_n
from ..networks.config import (
    SAMPLE_RATE_HZ,
    TIMESTAMP_STRIDE,
    ConfigError,
    EncoderConfig,
    config_from_dict,
    config_to_dict,
)
from ..networks.encoders import (
    CROP_SAMPLES,
    EMBEDDING_LAYERS,
    TIMESTAMP_LAYERS,
    Encoder,
    build_encoder,
)
from ..networks.geometry import encoder_layers
from ..networks.projection import STATISTICS, Projection
from ..networks.variants import variant_name
from . import CheckpointError
from .foreign import infer_config, rename_tensors
from .unpickling import read_state_dict

HUB_FILE_NAME = "model.safetensors"  # the name that huggingface_hub's tools look for
METADATA_KEY = "hear_tune"
EXPECTED = (
    "expected a hear-tune checkpoint (.safetensors), a Lightning checkpoint of the TUNE authors "
    "(.ckpt) or CLMR's released weights (.pt)"
)
_LISTED_PROBLEMS = 3
_LONGEST_HEADER_BYTES = 100_000_000  # the limit of safetensors
_LONGEST_CROP_SAMPLES = 60 * SAMPLE_RATE_HZ  # more is no crop, and much memory per window


def save_checkpoint(encoder: Encoder, path: str | os.PathLike[str]) -> str:
    """Write an encoder to one file, replacing an existing file atomically.

    Parameters
    ----------
    encoder : Encoder
        Saved with its configuration and `training_record`.
    path : path-like
        File to write, by convention ``*.safetensors``.

    Returns
    -------
    str
        SHA-256 of the written file.

    Raises
    ------
    CheckpointError
        If a weight is NaN or infinite.
    """
    metadata = {
        "config": config_to_dict(encoder.config),
        "variant": variant_name(encoder.config),
        "sample_rate": SAMPLE_RATE_HZ,
        "training": encoder.training_record,
        "projections": {
            name: _description(encoder.projection(name)) for name in encoder.projections
        },
        "hear_tune_version": version("hear-tune"),
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in encoder.state_dict().items()}
    try:
        _check_finite(tensors)
        _check_scales(encoder)
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: not written: {error}") from error
    # one key only: safetensors writes several in random order
    write_whole(path, save(tensors, {METADATA_KEY: json.dumps(metadata)}))
    return sha256_of(path)


def load_checkpoint(path: str | os.PathLike[str], sha256: str | None = None) -> Encoder:
    """Load an encoder from a checkpoint of hear-tune, of the TUNE authors or of CLMR.

    No code from the file is ever run.

    Parameters
    ----------
    path : path-like
        A file, or a folder written by ``save_pretrained``.
    sha256 : str, optional
        Expected hash of the file, checked before anything is read.

    Returns
    -------
    Encoder
        In evaluation mode, float32.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    CheckpointError
        If the file is not a usable checkpoint; the message says what it is instead.
    """
    path = Path(path)
    if path.is_dir():
        path = path / HUB_FILE_NAME
    # the caller may train the weights later, or fork
    with torch.inference_mode(False), one_thread():
        return _load(path, sha256)


def _load(path: Path, sha256: str | None) -> Encoder:
    _check_sha256(path, sha256)
    try:
        config, tensors, metadata = _read(path)
        training = metadata["training"]
        with torch.device("meta"):  # no random weights only to overwrite them
            encoder = build_encoder(config)
            _check_crop(config, training)
            window = training.get(CROP_SAMPLES, encoder.window_samples)
            for projection in _projections(encoder, metadata.get("projections", {}), window):
                encoder.add_projection(projection)
        _check_layers(encoder, training)
        tensors = {name: _as_float32(tensor) for name, tensor in tensors.items()}
        _check_fit(encoder, tensors)
        _check_finite(tensors)
        encoder.load_state_dict(tensors, assign=True)
        _check_scales(encoder)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    encoder.training_record = training
    return encoder.eval()


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file whose hash is known.

    Parameters
    ----------
    path : Path
        The file.
    sha256 : str
        Expected hash, checked first.

    Returns
    -------
    dict of str to Tensor
        Tensors by name.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    CheckpointError
        If the hash is another.
    """
    _check_sha256(path, sha256)
    return _read_safetensors(path)[1]


def _check_sha256(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; {EXPECTED}")
    if expected is not None and (found := sha256_of(path)) != expected.lower():
        raise CheckpointError(
            f"{path}: its sha256 is {found}, not {expected}: the file is damaged or another one; "
            "fetch it again"
        )


def _read(path: Path) -> tuple[EncoderConfig, dict[str, Tensor], dict[str, Any]]:
    kind = _identify(path)
    if kind == "safetensors":
        header, tensors = _read_safetensors(path)
        if METADATA_KEY in header:
            metadata = _parse_metadata(header[METADATA_KEY])
            return config_from_dict(metadata["config"]), tensors, metadata
    elif kind == "pickle":
        tensors = read_state_dict(path)
    else:
        raise CheckpointError(f"{kind}; {EXPECTED}")
    tensors = rename_tensors(tensors)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return infer_config(shapes), tensors, {"training": {"converted_from": path.name}}


def _identify(path: Path) -> str:
    """Identify a file by its first bytes: "safetensors", "pickle" or a phrase for an error."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    # tested first: a safetensors header's length may look like any other magic number
    header_bytes = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header_bytes <= _LONGEST_HEADER_BYTES:
        if 8 + header_bytes <= size:
            return "safetensors"
        return f"a safetensors file cut off after {size:,} bytes"
    if not head:
        return "the file is empty"
    if head.startswith(b"version https://git-lfs"):
        return "this is a git-lfs pointer, not the weights: run `git lfs pull`"
    if head.lstrip().startswith(b"<"):
        return "this is a web page, not weights: the download failed"
    if head.startswith((b"PK", b"\x80")):
        return "pickle"
    return f"not a checkpoint: it starts with {head[:8]!r}"


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"a damaged or cut-off safetensors file ({error})") from error


def _parse_metadata(text: str) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = json.loads(text)
        config, training = metadata["config"], metadata["training"]
        rate = metadata["sample_rate"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError("its metadata are damaged") from error
    if not isinstance(config, dict) or not isinstance(training, dict):
        raise CheckpointError("its metadata are damaged")
    if rate != SAMPLE_RATE_HZ:
        raise CheckpointError(f"made for audio at {rate} Hz; this version knows {SAMPLE_RATE_HZ}")
    return metadata


def _check_crop(config: EncoderConfig, training: dict[str, Any]) -> None:
    """Check the training crops' length: it becomes the window length of embeddings."""
    stride = max(layer.stride for layer in encoder_layers(config))
    crop = training.get(CROP_SAMPLES, stride)
    if type(crop) is not int or not 0 < crop <= _LONGEST_CROP_SAMPLES or crop % stride:
        raise CheckpointError(
            f"its metadata are damaged: crops of {crop!r} samples, no multiple of {stride}"
        )


def _description(projection: Projection) -> dict[str, Any]:
    layer = projection.layer
    return {
        "layers": projection.sources,
        "size": layer.channels,
        "stride": layer.stride,
        "statistics": [] if projection.scale is None else list(STATISTICS),
    }


def _projections(encoder: Encoder, described: object, window: int) -> Iterator[Projection]:
    """Build the projections that a checkpoint's metadata describe, without their weights."""
    layers = {layer.name: layer for layer in encoder.layers}
    strides = {layer.stride for layer in encoder.layers} | {TIMESTAMP_STRIDE, window}
    if not isinstance(described, dict):
        raise CheckpointError("its metadata are damaged: projections")
    for name, facts in described.items():
        try:
            sources = [layers[source] for source in facts["layers"]]
            size, stride = facts["size"], facts["stride"]
            statistics = facts.get("statistics", [])  # not in files of earlier versions
            valid = name.isidentifier() and sources and type(size) is int and size > 0
            if not valid or type(stride) is not int or stride not in strides:
                raise ValueError
            if stride > TIMESTAMP_STRIDE and stride % TIMESTAMP_STRIDE:
                raise ValueError
            if not isinstance(statistics, list):
                raise TypeError
            projection = Projection(name, sources, size, stride, bool(statistics))
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"its metadata are damaged: projection {name!r}") from error
        _check_statistics(name, statistics)
        yield projection


def _check_statistics(name: str, found: list[object]) -> None:
    if found and found != list(STATISTICS):
        raise CheckpointError(
            f"its projection {name!r} is of other statistics than {', '.join(STATISTICS)}: whiten "
            "the weights that it was fitted to again, by hear-tune convert --whiten"
        )


def _check_layers(encoder: Encoder, training: dict[str, Any]) -> None:
    """The layers that embed when none is named must be there, each once."""
    for entry in (EMBEDDING_LAYERS, TIMESTAMP_LAYERS):
        names = training.get(entry, [encoder.default_layer])
        try:
            several = isinstance(names, list) and len([encoder.layer(name) for name in names])
        except (ValueError, TypeError):
            several = False
        if not several or len(names) != len(set(names)):
            raise CheckpointError(f"its metadata are damaged: {entry.replace('_', ' ')} {names!r}")


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _check_fit(encoder: Encoder, tensors: dict[str, Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problems = [f"it lacks {name}" for name in expected if name not in found]
    problems += [f"unknown tensor {name}" for name in found if name not in expected]
    problems += [
        f"{name} is {found[name]}, not {shape}"
        for name, shape in expected.items()
        if found.get(name, shape) != shape
    ]
    problems += [
        f"{name} is {tensor.dtype}"
        for name, tensor in tensors.items()
        if tensor.dtype not in (torch.float32, torch.int64)
    ]
    if problems:
        listed = first_n(problems, _LISTED_PROBLEMS, "; ")
        variant = variant_name(encoder.config)
        raise CheckpointError(f"its tensors do not fit a {variant} encoder: {listed}")


def _check_scales(encoder: Encoder) -> None:
    """Statistics are divided by their scales."""
    scales = {name: encoder.projection(name).scale for name in encoder.projections}
    broken = [
        f"projections.{name}.scale"
        for name, scale in scales.items()
        if scale is not None and (scale <= 0).any()
    ]
    if broken:
        raise CheckpointError(f"scales that are not above 0 in {', '.join(broken)}")


def _check_finite(tensors: dict[str, Tensor]) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        kind = str(tensors[broken[0]].dtype).removeprefix("torch.")
        raise CheckpointError(
            f"NaN or infinite weights, or weights beyond {kind}, in "
            f"{first_n(broken, _LISTED_PROBLEMS)}"
        )
