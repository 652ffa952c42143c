"""Acoustic features by signal processing, as targets for an encoder to predict.

All are batched functions of audio at 22,050 Hz, computed in float32 on the audio's device. Bands
are normalised: white noise has the same power in each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.config import SAMPLE_RATE_HZ, TIMESTAMP_STRIDE

LOWEST_PITCH, HIGHEST_PITCH = 21, 108  # MIDI: the keys of a piano
PITCHES = HIGHEST_PITCH - LOWEST_PITCH + 1
LOWEST_FRAME_PITCH = 40  # below it, a frame's spectrum does not resolve semitones
FRAME_PITCHES = HIGHEST_PITCH - LOWEST_FRAME_PITCH + 1
MEL_BANDS, LOWEST_MEL_HZ = 64, 30.0
MEL_FRAME_SAMPLES = 2048
SEMITONE_FRAME_SAMPLES = 4096
COEFFICIENTS = 20
# Power of silence: 117 dB below a full-scale sine's (1/2), 10 dB above the noise of 16 bits.
# A higher floor costs timbre, because weak overtones distinguish instruments best.
FLOOR = 1e-12
_A4_PITCH, _A4_HZ = 69, 440.0
_HIGHEST_BAND_PITCH = 123  # the last below the Nyquist frequency
_SEMITONE_WIDTH = 0.35  # standard deviation of a band, in semitones

# Harmonic sum: semitones above the fundamental of partials 1 to 8, each weaker by the decay.
_PARTIALS = (0, 12, 19, 24, 28, 31, 34, 36)
_PARTIAL_DECAY = 0.84
_SMALLEST_SPREAD = 1e-8  # of pitch scores, so that silence has no pitch
_SALIENCE_SHARPNESS = 3.0  # of the softmax over pitches, per standard deviation


class Acoustics:
    """Acoustic features of windows of audio, each computed once, on first use.

    Parameters
    ----------
    audio : Tensor
        Shape (batch, samples) at 22,050 Hz; samples a multiple of 729.

    Raises
    ------
    ValueError
        If the audio has another shape.
    """

    def __init__(self, audio: Tensor) -> None:
        if audio.ndim != 2 or audio.shape[1] == 0 or audio.shape[1] % TIMESTAMP_STRIDE:
            raise ValueError(
                f"audio must be (batch, samples), with a multiple of {TIMESTAMP_STRIDE} samples, "
                f"not {tuple(audio.shape)}"
            )
        self._audio = audio.float()

    @cached_property
    def level(self) -> Tensor:
        """Logarithm of the mean power, (batch, 1)."""
        return _log(self._audio.square().mean(dim=-1, keepdim=True))

    @cached_property
    def semitones(self) -> Tensor:
        """Log power of each semitone from A0 to C8, minus their mean, (batch, 88)."""
        levels = _log(self._semitone_power[:, :PITCHES])
        return levels - levels.mean(dim=-1, keepdim=True)

    @cached_property
    def salience(self) -> Tensor:
        """Salience of each pitch from A0 to C8, (batch, 88): positive, summing to 1.

        A harmonic sum of semitone magnitudes; uniform for a silent window.
        """
        return _salience(self._semitone_power, PITCHES)

    @cached_property
    def mel_means(self) -> Tensor:
        """Log-mel spectrum averaged over time, minus the mean over bands, (batch, 64)."""
        means = self._log_mel.mean(dim=-1)
        return means - means.mean(dim=-1, keepdim=True)

    @cached_property
    def mel_deviations(self) -> Tensor:
        """Standard deviation of each log-mel band over time, (batch, 64)."""
        return self._log_mel.std(dim=-1, correction=0)

    @cached_property
    def mfcc_deviations(self) -> Tensor:
        """Standard deviation over time of cepstral coefficients 1 to 20, (batch, 20)."""
        return (_cosines(self._audio.device) @ self._log_mel).std(dim=-1, correction=0)

    @cached_property
    def frame_mels(self) -> Tensor:
        """Log-mel spectrum of each timestamp, minus the mean over bands, (batch, 64, frames)."""
        return self._log_mel - self._log_mel.mean(dim=1, keepdim=True)

    @cached_property
    def frame_semitones(self) -> Tensor:
        """Log power of semitones E2 to C8 per timestamp, minus their mean, (batch, 69, frames)."""
        levels = _log(self._frame_semitone_power[:, :FRAME_PITCHES])
        return levels - levels.mean(dim=1, keepdim=True)

    @cached_property
    def frame_salience(self) -> Tensor:
        """Salience of each pitch from E2 to C8 per timestamp, (batch, 69, frames)."""
        return _salience(self._frame_semitone_power.mT, FRAME_PITCHES).mT

    @cached_property
    def _frame_semitone_power(self) -> Tensor:
        """Power of semitones from E2 up to the Nyquist frequency, (batch, 84, frames)."""
        power = _frame_power(self._audio, SEMITONE_FRAME_SAMPLES, 2 * SEMITONE_FRAME_SAMPLES)
        bands = _semitone_bands(2 * SEMITONE_FRAME_SAMPLES, self._audio.device)
        return bands[LOWEST_FRAME_PITCH - LOWEST_PITCH :] @ power

    @cached_property
    def _semitone_power(self) -> Tensor:
        """Power of each semitone in the whole window, up to the Nyquist frequency, (batch, 103)."""
        samples = self._audio.shape[1]
        spectrum = torch.fft.rfft(self._audio * _taper(samples, self._audio.device))
        return _power(spectrum) @ _semitone_bands(samples, self._audio.device).T

    @cached_property
    def _log_mel(self) -> Tensor:
        power = _frame_power(self._audio, MEL_FRAME_SAMPLES, MEL_FRAME_SAMPLES)
        return _log(_mel_bands(self._audio.device) @ power)


@dataclass(frozen=True)
class Target:
    """A feature to predict.

    Attributes
    ----------
    size : int
        Number of values per window or timestamp.
    compute : callable
        Returns the feature, (batch, size) of windows or (batch, size, frames) of timestamps.
    is_distribution : bool
        Whether the values are positive and sum to 1.
    per_timestamp : bool
        Whether it is a feature of timestamps, not of windows.
    """

    size: int
    compute: Callable[[Acoustics], Tensor]
    is_distribution: bool = False
    per_timestamp: bool = False

    def of(self, sound: Acoustics) -> Tensor:
        """Compute the feature, (batch, size, frames), with one frame for features of windows."""
        feature = self.compute(sound)
        return feature if self.per_timestamp else feature[:, :, None]


TARGETS: dict[str, Target] = {
    "semitones": Target(PITCHES, lambda sound: sound.semitones),
    "salience": Target(PITCHES, lambda sound: sound.salience, is_distribution=True),
    "mel_means": Target(MEL_BANDS, lambda sound: sound.mel_means),
    "mel_deviations": Target(MEL_BANDS, lambda sound: sound.mel_deviations),
    "mfcc_deviations": Target(COEFFICIENTS, lambda sound: sound.mfcc_deviations),
    "level": Target(1, lambda sound: sound.level),
    "frame_semitones": Target(
        FRAME_PITCHES, lambda sound: sound.frame_semitones, per_timestamp=True
    ),
    "frame_salience": Target(
        FRAME_PITCHES,
        lambda sound: sound.frame_salience,
        is_distribution=True,
        per_timestamp=True,
    ),
    "frame_mels": Target(MEL_BANDS, lambda sound: sound.frame_mels, per_timestamp=True),
}


def _salience(semitone_power: Tensor, pitches: int) -> Tensor:
    """Weigh the lowest pitches by the harmonic sum of their partials, (..., pitches)."""
    magnitudes = semitone_power.sqrt()
    scores = torch.zeros_like(magnitudes[..., :pitches])
    for number, semitones in enumerate(_PARTIALS):
        partials = magnitudes[..., semitones : semitones + pitches]
        scores[..., : partials.shape[-1]] += _PARTIAL_DECAY**number * partials
    spread = scores.std(dim=-1, keepdim=True).clamp(min=_SMALLEST_SPREAD)
    scores = (scores - scores.mean(dim=-1, keepdim=True)) / spread
    return torch.softmax(_SALIENCE_SHARPNESS * scores, dim=-1)


def _log(power: Tensor) -> Tensor:
    return (power + FLOOR).log()


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def _frame_power(audio: Tensor, frame_samples: int, fft_samples: int) -> Tensor:
    """Compute power spectra of frames centred on each timestamp, (batch, bins, frames)."""
    before = (frame_samples - TIMESTAMP_STRIDE) // 2
    padded = F.pad(audio, (before, frame_samples - TIMESTAMP_STRIDE - before))
    frames = padded.unfold(-1, frame_samples, TIMESTAMP_STRIDE)
    return _power(torch.fft.rfft(frames * _taper(frame_samples, audio.device), fft_samples)).mT


@lru_cache(maxsize=8)
def _taper(samples: int, device: torch.device) -> Tensor:
    """Hann window, scaled so that a full-scale sine has a peak power of 1/2."""
    window = torch.hann_window(samples, device=device)
    return window * (math.sqrt(2) / window.sum())


@lru_cache(maxsize=8)
def _semitone_bands(fft_samples: int, device: torch.device) -> Tensor:
    """Gaussian bands centred on the semitones from A0 up, (103, bins)."""
    frequencies = torch.fft.rfftfreq(fft_samples, 1 / SAMPLE_RATE_HZ, dtype=torch.float64)
    pitches = torch.arange(LOWEST_PITCH, _HIGHEST_BAND_PITCH + 1, dtype=torch.float64)[:, None]
    distances = _A4_PITCH + 12 * (frequencies / _A4_HZ).log2() - pitches
    centres = _A4_HZ * 2 ** ((pitches - _A4_PITCH) / 12)
    bin_widths = 12 * (1 + frequencies[1] / centres).log2()
    bands = torch.exp(-(distances / bin_widths.clamp(min=_SEMITONE_WIDTH)).square() / 2)
    return _normalised(bands, device)


@lru_cache(maxsize=8)
def _mel_bands(device: torch.device) -> Tensor:
    """Triangular bands, equally spaced on O'Shaughnessy's mel scale, (64, bins)."""
    frequencies = torch.fft.rfftfreq(MEL_FRAME_SAMPLES, 1 / SAMPLE_RATE_HZ, dtype=torch.float64)
    lowest, highest = (_mel(torch.tensor(hz)) for hz in (LOWEST_MEL_HZ, SAMPLE_RATE_HZ / 2))
    edges = torch.linspace(float(lowest), float(highest), MEL_BANDS + 2, dtype=torch.float64)
    rise = (_mel(frequencies) - edges[:-2, None]) / (edges[1] - edges[0])
    return _normalised(torch.minimum(rise, 2 - rise).clamp(min=0), device)


def _mel(hz: Tensor) -> Tensor:
    return 2595 * torch.log10(1 + hz / 700)


def _normalised(bands: Tensor, device: torch.device) -> Tensor:
    return (bands / bands.sum(dim=1, keepdim=True)).float().to(device)


@lru_cache(maxsize=8)
def _cosines(device: torch.device) -> Tensor:
    """Discrete cosine transform of log-mel spectra without its constant, (20, 64)."""
    order = torch.arange(1, COEFFICIENTS + 1, dtype=torch.float64)[:, None]
    places = torch.arange(MEL_BANDS, dtype=torch.float64) + 0.5
    cosines = torch.cos(torch.pi / MEL_BANDS * order * places) / math.sqrt(MEL_BANDS)
    return cosines.float().to(device)
