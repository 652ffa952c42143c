"""Embeddings of audio that arrives in chunks, as from a microphone or a broadcast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..audio.reading import MonoStream
from ..networks.config import SAMPLE_RATE_HZ
from .batching import ClipEmbeddings, concatenate, embed_stretches, embed_windows
from .framing import Cutter, Stretch, Window, cut
from .model import EmbeddingModel

StreamPer = Literal["timestamp", "window"]
STREAM_PER_CHOICES: tuple[StreamPer, ...] = get_args(StreamPer)


class Embedder:
    """Embeds a clip that arrives in chunks, in constant memory.

    The rows of all calls together are those of `hear_tune.embed_array` for the whole clip.

    Parameters
    ----------
    model
        From `hear_tune.load_model`.
    sample_rate
        Of the chunks, in Hz.
    per
        "timestamp", or "window".
    step_ms
        Timestamps are computed in steps of at least so much audio, whole frames of the encoder's
        coarsest layer (893 ms for "tune+"). Each step computes its context anew: longer ones cost
        less (see `cost`), and their timestamps come later.

    Attributes
    ----------
    latency_ms
        How far behind the audio the rows are at most: once audio up to t ms was pushed, all rows
        that end before ``t - latency_ms`` are out.
    cost
        Audio computed per audio pushed; 1 where nothing is computed twice.

    Raises
    ------
    AudioError
        If the rate is out of reach.
    ValueError
        If `per` is another, or the step is negative.

    Examples
    --------
    >>> import hear_tune, numpy
    >>> embedder = hear_tune.Embedder(hear_tune.load_model(), sample_rate=44_100)
    >>> for chunk in numpy.zeros((300, 4_410), numpy.float32):
    ...     rows = embedder.push(chunk)
    >>> rest = embedder.finish()
    """

    def __init__(
        self,
        model: EmbeddingModel,
        sample_rate: int = SAMPLE_RATE_HZ,
        per: StreamPer = "timestamp",
        step_ms: float = 0.0,
    ) -> None:
        if per not in STREAM_PER_CHOICES:
            raise ValueError(f"per must be one of {', '.join(STREAM_PER_CHOICES)}, not {per!r}")
        if not 0 <= step_ms < float("inf"):
            raise ValueError(f"step_ms must be 0 or more, not {step_ms}")
        self._model = model
        self._stream = MonoStream(sample_rate)
        self._finished = False
        self._cutter: Cutter[Any]
        self._embed: Callable[..., Iterator[tuple[None, ClipEmbeddings]]]
        if per == "timestamp":
            cutter = model.stretch_cutter(max(1, round(step_ms * SAMPLE_RATE_HZ / 1000)))
            behind = cutter.size + cutter.after
            self._cutter, self._embed = cutter, embed_stretches
            self._size = model.timestamp_embedding_size
            self.cost = (cutter.before + behind) / cutter.size
        else:
            behind = 0
            self._cutter, self._embed = model.window_cutter(), embed_windows
            self._size = model.scene_embedding_size
            self.cost = model.window_samples / model.hop_samples
        self.latency_ms = 1000 * (behind / SAMPLE_RATE_HZ + self._stream.delay_seconds)

    def push(self, chunk: npt.ArrayLike) -> ClipEmbeddings:
        """Take the next chunk.

        Parameters
        ----------
        chunk
            (samples,) or (samples, channels): floating point in -1..1, int16 or int32; of any
            length. The first of several channels has no fewer samples than channels, so that it
            cannot be taken for (channels, samples).

        Returns
        -------
        ClipEmbeddings
            The rows that it completes, in order; often none.

        Raises
        ------
        AudioError
            If the chunk has another shape or type, or NaN or infinite samples. It is then left out.
        RuntimeError
            If the clip was finished.
        """
        self._check_open()
        return self._rows(self._cutter.push(self._stream.push(chunk)))

    def finish(self) -> ClipEmbeddings:
        """End the clip.

        Returns
        -------
        ClipEmbeddings
            The rows that are left.

        Raises
        ------
        RuntimeError
            If the clip was finished before.
        """
        self._check_open()
        self._finished = True
        return self._rows(cut([self._stream.finish()], self._cutter))

    def _rows(self, pieces: Iterable[Stretch | Window]) -> ClipEmbeddings:
        parts = [rows for _, rows in self._embed(self._model, ((None, piece) for piece in pieces))]
        nothing = ClipEmbeddings(np.empty((0, self._size), np.float32), np.empty(0), np.empty(0))
        return concatenate([nothing, *parts])

    def _check_open(self) -> None:
        if self._finished:
            raise RuntimeError("this clip was finished: a new one needs a new Embedder")
