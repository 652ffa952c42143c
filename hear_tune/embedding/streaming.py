"""Embeddings of audio that arrives in chunks, as from a microphone or a broadcast."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..audio.reading import MonoStream
from ..common.ranges import at_least, one_of
from ..networks.config import SAMPLE_RATE_HZ
from .batching import ClipEmbeddings, concatenate, embed_pieces
from .framing import Cutter, Segment, Window, cut
from .model import EmbeddingModel

StreamPer = Literal["timestamp", "window"]
STREAM_PER_CHOICES: tuple[StreamPer, ...] = get_args(StreamPer)


class Embedder:
    """Embeds a clip that arrives in chunks, in constant memory.

    The rows of all calls together are those of `hear_tune.embed_array` for the whole clip.

    Parameters
    ----------
    model : EmbeddingModel
        From `hear_tune.load_model`.
    sample_rate : int
        Of the chunks, in Hz.
    per : {"timestamp", "window"}
        What each row covers.
    step_ms : float
        Least audio per step in which timestamps are computed, rounded up to whole frames of the
        encoder's coarsest layer (893 ms for "tune+"). Each step computes its context anew, so
        longer steps cost less (see `cost`) but delay their timestamps.

    Attributes
    ----------
    latency_ms : float
        Greatest delay of the rows: once audio up to t ms was pushed, all rows that end before
        ``t - latency_ms`` have been returned.
    cost : float
        Audio computed per audio pushed; 1 if nothing is computed twice.

    Raises
    ------
    AudioError
        If the rate is out of range.
    ValueError
        If `per` is unknown or the step negative.

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
        one_of(STREAM_PER_CHOICES, per=per)
        at_least(0, step_ms=step_ms)
        self._model = model
        self._stream = MonoStream(sample_rate)
        self._finished = False
        self._cutter: Cutter[Any]
        self._per = per
        if per == "timestamp":
            cutter = model.segment_cutter(max(1, round(step_ms * SAMPLE_RATE_HZ / 1000)))
            behind = cutter.size + cutter.after
            self._cutter = cutter
            self._size = model.timestamp_embedding_size
            self.cost = (cutter.before + behind) / cutter.size
        else:
            behind = 0
            self._cutter = model.window_cutter()
            self._size = model.scene_embedding_size
            self.cost = model.window_samples / model.hop_samples
        self.latency_ms = 1000 * (behind / SAMPLE_RATE_HZ + self._stream.delay_seconds)

    def push(self, chunk: npt.ArrayLike) -> ClipEmbeddings:
        """Embed the next chunk.

        Parameters
        ----------
        chunk : array-like (samples,) or (samples, channels)
            Floating point in -1..1, int16 or int32, of any length; the first chunk of several
            channels must have at least as many samples as channels.

        Returns
        -------
        ClipEmbeddings
            The rows that the chunk completes, in order; often none.

        Raises
        ------
        AudioError
            If the chunk has another shape or type, or NaN or infinite samples; it is then ignored.
        RuntimeError
            If the clip was finished.
        """
        self._check_open()
        return self._rows(self._cutter.push(self._stream.push(chunk)))

    def finish(self) -> ClipEmbeddings:
        """End the clip and return its remaining rows.

        Raises
        ------
        RuntimeError
            If the clip was finished before.
        """
        self._check_open()
        self._finished = True
        return self._rows(cut([self._stream.finish()], self._cutter))

    def _rows(self, pieces: Iterable[Segment | Window]) -> ClipEmbeddings:
        parts = embed_pieces(self._model, pieces, self._per)
        nothing = ClipEmbeddings(np.empty((0, self._size), np.float32), np.empty(0), np.empty(0))
        return concatenate([nothing, *parts])

    def _check_open(self) -> None:
        if self._finished:
            raise RuntimeError("this clip was finished: a new one needs a new Embedder")
