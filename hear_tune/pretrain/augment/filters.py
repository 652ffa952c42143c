"""High-pass and low-pass filters."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .batches import by_rows, fast_fft_size
from .transform import RandomTransform, Range, uniform

FILTER_TAIL_SECONDS = 0.02
"""Time for the filter's response to fade: below -100 dB for every cutoff above 130 Hz."""
FILTER_FFT_TAILS = 5


def butterworth(audio: Tensor, cutoff_hz: Tensor, high_pass: Tensor, sample_rate: int) -> Tensor:
    """Filter with a second-order Butterworth low- or high-pass, 12 dB per octave.

    The response is that of the digital biquad (bilinear transform, -3.01 dB at the cutoff, causal),
    evaluated on the bins of a zero-padded FFT, so that nothing wraps around. Cutoffs below 130 Hz
    would outlast the padding.

    Parameters
    ----------
    audio : Tensor
        Shape (batch, samples).
    cutoff_hz : Tensor
        Shape (batch,), in Hz, below half the sample rate.
    high_pass : Tensor
        Shape (batch,), bool: high-pass where true, low-pass elsewhere.
    sample_rate : int
        In Hz.

    Returns
    -------
    Tensor
        Shape (batch, samples).
    """
    tail = math.ceil(FILTER_TAIL_SECONDS * sample_rate)
    size = fast_fft_size(FILTER_FFT_TAILS * tail)
    # On the unit circle the bilinear transform maps s to j tan(w / 2).
    frequency = torch.arange(size // 2 + 1, device=audio.device) * (math.pi / size)
    corner = (math.pi * cutoff_hz / sample_rate).tan().to(audio)[:, None]
    scaled = frequency.tan() / corner
    squared = scaled.square()
    numerator = torch.where(high_pass.to(audio.device)[:, None], -squared, 1.0)
    response = numerator / torch.complex(1 - squared, math.sqrt(2) * scaled)
    return by_rows(_overlap_add, (audio, response), tail)


def _overlap_add(audio: Tensor, response: Tensor, tail: int) -> Tensor:
    """Filter block by block; the response has faded after `tail` samples."""
    size = 2 * response.shape[-1] - 2
    block = size - tail
    rows, samples = audio.shape
    blocks = F.pad(audio, (0, -samples % block)).view(rows, -1, block)
    spectrum = torch.fft.rfft(blocks, size).mul_(response[:, None])
    filtered: Tensor = torch.fft.irfft(spectrum, size)
    filtered[:, 1:, :tail] += filtered[:, :-1, block:]
    filtered = filtered[..., :block].flatten(1)
    return filtered[:, :samples]


class HighLowPass(RandomTransform):
    """Filter with a high-pass or, as often, a low-pass; cutoffs in Hz."""

    def __init__(
        self,
        sample_rate: int,
        p: float = 0.8,
        high_pass_hz: Range = (200.0, 1200.0),
        low_pass_hz: Range = (2200.0, 4000.0),
    ) -> None:
        super().__init__(p)
        self.sample_rate = sample_rate
        self.high_pass_hz = high_pass_hz
        self.low_pass_hz = low_pass_hz

    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        count = len(audio)
        high_pass = torch.rand(count, generator=generator) < 0.5
        high = uniform(count, self.high_pass_hz, generator)
        low = uniform(count, self.low_pass_hz, generator)
        return butterworth(audio, torch.where(high_pass, high, low), high_pass, self.sample_rate)
