"""Exporting models to other runtimes: ONNX, and torch.export's ``.pt2``.

The file computes what `hear_tune.get_scene_embeddings` does, framing included: any number of clips
of any length at 22,050 Hz in, embeddings out.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.fx.experimental._config
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.errors import HearTuneError
from ..common.files import write_whole
from ..common.ranges import one_of
from ..networks.config import SAMPLE_RATE_HZ
from ..networks.encoders import Encoder
from .folder import embed_array, identity_of
from .model import EmbeddingModel
from .pooling import Pooling

ExportPer = Literal["track", "window"]
EXPORT_PER_CHOICES: tuple[ExportPer, ...] = get_args(ExportPer)

INPUT, OUTPUT = "audio", "embedding"
_METADATA = "hear_tune.json"  # record in a .pt2
_OPSET = 18
_TOLERANCE = 1e-4  # relative to the largest value


class ExportError(HearTuneError, ArithmeticError):
    """An exported file does not compute what its model does."""


class FramedEncoder(nn.Module):
    """Audio (clips, samples) to embeddings, by operations that can be exported.

    Parameters
    ----------
    model : EmbeddingModel
        Source of the encoder, layers and windows.
    per : {"track", "window"}
        Embeddings are (clips, size) or (clips, windows, size).
    """

    def __init__(self, model: EmbeddingModel, per: ExportPer = "track") -> None:
        super().__init__()
        self.encoder = copy.deepcopy(model.encoder).float().cpu().requires_grad_(False)
        self.pooling = Pooling(self.encoder, model.layers)
        self.window = model.window_samples
        self.hop = model.hop_samples
        self.per = per
        self.eval()

    def forward(self, audio: Tensor) -> Tensor:
        clips, samples = audio.shape
        beyond = _max(samples - self.window, 0)  # samples after the first window
        padded = F.pad(audio, (0, _max(self.window - samples, 0)))
        count = 1 + (beyond + self.hop - 1) // self.hop
        regular = self.hop * torch.arange(count)
        starts = regular.clamp(max=beyond)
        windows = padded[:, starts[:, None] + torch.arange(self.window)]
        features = self.encoder.features(windows.reshape(-1, 1, self.window), self.pooling.needed)
        pooled = self.pooling.pool(features)
        if self.per == "window":
            vectors = self.pooling.project(pooled)
            return vectors.reshape(clips, count, vectors.shape[1])
        pooled = pooled.reshape(clips, count, self.pooling.size)
        weights = (starts - regular + self.hop).float()  # the last one by the audio it adds
        return self.pooling.project((pooled * (weights / weights.sum())[:, None]).sum(dim=1))


def _max(a: int, b: int) -> int:
    """Return the larger of two sizes, which may be symbols of a graph."""
    sym_max: Any = torch.sym_max  # its type varies between releases of torch
    larger: int = sym_max(a, b)
    return larger


def export_model(
    model: EmbeddingModel, path: str | os.PathLike[str], per: ExportPer = "track"
) -> float:
    """Export a model to ``.onnx`` or ``.pt2``, and check that the file computes the same.

    Parameters
    ----------
    model : EmbeddingModel
        From `hear_tune.load_model`; the file takes over its layers and hop.
    path : path-like
        Ends in ``.onnx`` (ONNX; input "audio", output "embedding") or ``.pt2`` (torch.export).
    per : {"track", "window"}
        Embeddings are (clips, size) or (clips, windows, size).

    Returns
    -------
    float
        Largest difference from the model, relative to the largest value, over clips shorter than a
        window, as long, and longer.

    Raises
    ------
    ValueError
        If the suffix, `per` or kind of model cannot be exported, or a package is missing.
    ExportError
        If the file would compute something else; it is not written.
    OSError
        If it cannot be written.
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise ValueError(f"{path}: the name must end in {' or '.join(_FORMATS)}")
    one_of(EXPORT_PER_CHOICES, per=per)
    if not isinstance(model.encoder, Encoder):
        raise ValueError("only networks of this package can be exported, not baselines")
    make, read = _FORMATS[path.suffix]
    content = make(FramedEncoder(model, per), identity_of(model, per))
    difference = _difference(read(content), model, per)
    if not difference < _TOLERANCE:
        others = " or ".join(suffix for suffix in _FORMATS if suffix != path.suffix)
        raise ExportError(
            f"{path}: differs from its model by {difference:.1e}; not written: try {others}"
        )
    write_whole(path, content)
    return difference


# --- For each format, a function that makes a file's content and one that reads it ---

_Run = Callable[[Tensor], Tensor]


def _program(network: FramedEncoder) -> torch.export.ExportedProgram:
    if not hasattr(torch.fx.experimental._config, "backed_size_oblivious"):
        raise ValueError(
            f"torch {torch.__version__} is too old to export from: install a newer one"
        )
    example = torch.zeros(2, 3 * network.window)
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    # otherwise the graph only takes more than one clip and more than one window
    oblivious = torch.fx.experimental._config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with torch.no_grad(), oblivious:
        return torch.export.export(network, (example,), dynamic_shapes=(sizes,))


def _make_program(network: FramedEncoder, record: dict[str, Any]) -> bytes:
    file = BytesIO()
    torch.export.save(_program(network), file, extra_files={_METADATA: json.dumps(record)})
    return file.getvalue()


def _read_program(content: bytes) -> _Run:
    run: _Run = torch.export.load(BytesIO(content)).module()
    return run


def _make_onnx(network: FramedEncoder, record: dict[str, Any]) -> bytes:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise ValueError(f'ONNX needs {package}: pip install "hear-tune[onnx]"')
    import onnx

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            _program(network),
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert exported is not None
    graph = exported.model_proto
    onnx.helper.set_model_props(graph, {"hear_tune": json.dumps(record)})
    content: bytes = graph.SerializeToString()
    return content


def _read_onnx(content: bytes) -> _Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda audio: torch.from_numpy(session.run([OUTPUT], {INPUT: audio.numpy()})[0])


_FORMATS = {".onnx": (_make_onnx, _read_onnx), ".pt2": (_make_program, _read_program)}


def _difference(run: _Run, model: EmbeddingModel, per: ExportPer) -> float:
    """Return the largest difference from the model, relative to the largest value."""
    window, hop = model.window_samples, model.hop_samples
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for clips, samples in (
        (1, window // 3),
        (2, window),
        (3, window + hop // 2),
        (1, 3 * window + 1),
    ):
        audio = 0.2 * torch.randn(clips, samples, generator=generator)
        expected = torch.stack([_embed(clip, model, per) for clip in audio])
        found = run(audio)
        if found.shape != expected.shape:
            return float("inf")
        worst = max(worst, float((found - expected).abs().max() / expected.abs().max()))
    return worst


def _embed(clip: Tensor, model: EmbeddingModel, per: ExportPer) -> Tensor:
    vectors = embed_array(clip.numpy(), SAMPLE_RATE_HZ, model, per).vectors
    return torch.from_numpy(vectors[0] if per == "track" else vectors)
