"""Log-mel spectra and MFCC statistics as encoders without weights."""

from __future__ import annotations

from collections.abc import Iterator

import librosa
import numpy as np
import scipy.fft
import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.samples import Samples
from ..networks.config import SAMPLE_RATE_HZ, TIMESTAMP_STRIDE, WINDOW_SAMPLES
from ..networks.encoders import LayeredEncoder
from ..networks.geometry import Layer, TimeGrid

FFT_SAMPLES = 2048
MEL_BANDS = 128
COEFFICIENTS = 20
_RANGE_DB = 80.0  # below the peak of a full-scale sine


class LogMel(LayeredEncoder):
    """Mel spectrum in decibels: 128 bands, frames of 2,048 samples every 729."""

    window: Tensor
    mel: Tensor

    def __init__(self) -> None:
        super().__init__()
        window = torch.hann_window(FFT_SAMPLES)
        mel = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=FFT_SAMPLES, n_mels=MEL_BANDS)
        self.register_buffer("window", 2 * window / window.sum())  # a full-scale sine has peak 1
        self.register_buffer("mel", torch.from_numpy(mel / mel.max(axis=1, keepdims=True)))
        # frames are centred on a timestamp's 729 samples
        self._before = (FFT_SAMPLES - TIMESTAMP_STRIDE) // 2
        self._after = FFT_SAMPLES - TIMESTAMP_STRIDE - self._before
        self.grid = TimeGrid(TIMESTAMP_STRIDE, -self._before, TIMESTAMP_STRIDE - 1 + self._after)
        self.layers = (Layer("log_mel", 1, MEL_BANDS, self.grid, 0),)

    @property
    def identity(self) -> str:
        return f"log-mel {MEL_BANDS} bands, {FFT_SAMPLES} samples, {_RANGE_DB:g} dB"

    def fill(self, samples: Samples, size: int) -> Samples:
        """Repeat a clip shorter than a window, so that the statistics exclude silence."""
        return np.resize(samples, size)

    def walk(self, audio: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield "log_mel", self.spectrum(audio)

    def spectrum(self, audio: Tensor) -> Tensor:
        """Compute decibels (batch, 128, samples / 729) from audio (batch, 1, samples)."""
        padded = F.pad(audio[:, 0], (self._before, self._after))
        frames = padded.unfold(-1, FFT_SAMPLES, TIMESTAMP_STRIDE) * self.window
        power = torch.fft.rfft(frames.float()).abs().square()
        decibels = 10 * torch.log10((power @ self.mel.T).clamp(min=10 ** (-_RANGE_DB / 10)))
        return decibels.mT


class MfccStatistics(LogMel):
    """Mean and standard deviation of 20 MFCCs over each window of 2.68 s.

    Timestamps can take the coefficients themselves, the layer ``mfcc``.
    """

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        basis = scipy.fft.dct(torch.eye(MEL_BANDS).numpy(), axis=0, norm="ortho")[:COEFFICIENTS]
        self.register_buffer("basis", torch.from_numpy(basis))
        reach = TimeGrid(WINDOW_SAMPLES, self.grid.first, WINDOW_SAMPLES - 1 + self._after)
        self.layers = (
            Layer("mfcc", 1, COEFFICIENTS, self.grid, 0),
            Layer("statistics", COEFFICIENTS, 2 * COEFFICIENTS, reach, 0),
        )

    @property
    def identity(self) -> str:
        return f"mean and deviation of {COEFFICIENTS} MFCCs of {super().identity}"

    def walk(self, audio: Tensor) -> Iterator[tuple[str, Tensor]]:
        coefficients = self.basis @ self.spectrum(audio)
        yield "mfcc", coefficients
        frames = WINDOW_SAMPLES // TIMESTAMP_STRIDE
        windows = coefficients.reshape(len(audio), COEFFICIENTS, -1, frames)
        moments = windows.mean(dim=-1), windows.std(dim=-1, correction=0)
        yield "statistics", torch.cat(moments, dim=1)
