"""Reverberation by the delay lines of freeverb."""

import math

import torch
from torch import Tensor

from .batches import by_rows, fast_fft_size
from .transform import RandomTransform, Range, uniform

FREEVERB_RATE_HZ = 44_100
COMB_SAMPLES = (1116, 1188, 1277, 1356, 1422, 1491, 1557, 1617)
ALLPASS_SAMPLES = (225, 341, 441, 556)
ALLPASS_FEEDBACK = 0.5
WET_GAIN = 0.015
MIN_FEEDBACK = 0.3
MAX_FEEDBACK = 0.98
REVERB_ALIAS = 1e-3
"""Gain of the reverberation that wraps around the end of the FFT (-60 dB)."""


def reverb(
    audio: Tensor, reverberance: Tensor, damping: Tensor, room_size: Tensor, sample_rate: int
) -> Tensor:
    """Add the reverberation of a room: freeverb, with the parameters of SoX's `reverb`.

    Eight parallel combs, each with a low-pass in its loop, then four allpasses, mixed as
    dry + 0.015 * wet (SoX's wet gain of 0 dB, no pre-delay). SoX's mapping of the percentages:

    - reverberance: the combs' feedback g, with log(1 - g) linear from g = 0.3 to g = 0.98;
    - damping: the loop's one-pole low-pass, coefficient 0.2 to 0.5;
    - room size: the comb delays, 0.1 to 1 times freeverb's 25 to 37 ms.

    The exact frequency response of this recursion is evaluated on the bins of one FFT. What
    outlasts the FFT is faded by a further 60 dB before it wraps around. Differs from SoX: one
    channel of reverberation, where SoX turns mono into two channels (stereo depth 100 %, delays
    0.3 ms apart) that CLMR averaged; no clipping.

    Parameters
    ----------
    audio : Tensor
        Shape (batch, samples).
    reverberance, damping, room_size : Tensor
        Shape (batch,), each 0 to 100 %.
    sample_rate : int
        In Hz.

    Returns
    -------
    Tensor
        Shape (batch, samples); the reverberation that outlasts the audio is dropped.
    """
    longest_comb = math.ceil(max(COMB_SAMPLES) * sample_rate / FREEVERB_RATE_HZ)
    size = fast_fft_size(max(audio.shape[-1], 2 * longest_comb))
    device = audio.device
    # log(1 - feedback) falls linearly from its value at 0 % to that at 100 %.
    low, high = math.log(1 - MIN_FEEDBACK), math.log(1 - MAX_FEEDBACK)
    feedback = 1 - torch.exp(low + (high - low) * reverberance / 100)
    absorption = 0.2 + 0.3 * damping / 100
    scale = (0.1 + 0.9 * room_size.double() / 100) * (sample_rate / FREEVERB_RATE_HZ)
    combs = (scale[:, None] * torch.tensor(COMB_SAMPLES) + 0.5).long().to(device)
    parameters = (audio, combs, feedback.to(audio), absorption.to(audio))

    z = _SpectralGrid(size, device)
    envelope = _growth(-torch.arange(audio.shape[-1], device=device), size)
    allpasses = _allpass_response(z, sample_rate).mul_(WET_GAIN)
    return by_rows(_apply_reverb, parameters, z, allpasses, envelope)


def _apply_reverb(
    audio: Tensor,
    combs: Tensor,
    feedback: Tensor,
    absorption: Tensor,
    z: "_SpectralGrid",
    allpasses: Tensor,
    envelope: Tensor,
) -> Tensor:
    """Add the sum of the combs 1 / (z^d - loop), whose loop holds the damping's low-pass."""
    loop = (1 - absorption[:, None, None] * z.power(-z.one)).reciprocal_()
    loop.mul_((feedback * (1 - absorption))[:, None, None])
    response = torch.zeros_like(loop)
    coarse, fine = z.factors(combs)
    for comb in range(combs.shape[1]):
        response.add_((coarse[:, comb] * fine[:, comb]).sub_(loop).reciprocal_())
    spectrum = torch.fft.rfft(audio * envelope, z.size)
    spectrum.mul_(response.mul_(allpasses).flatten(1)[:, : z.bins])
    wet: Tensor = torch.fft.irfft(spectrum, z.size)[:, : audio.shape[-1]]
    return wet.div_(envelope).add_(audio)


class _SpectralGrid:
    """The points z of an FFT on a circle slightly outside the unit circle.

    There the response of a reverberator is that of its exponentially faded impulse response, so
    that what outlasts the FFT wraps around faintly. The points are laid out as (coarse, fine), to
    make each power of z an outer product; the last ones lie beyond the FFT's bins.
    """

    def __init__(self, size: int, device: torch.device, fine: int = 256) -> None:
        self.size = size
        self.bins = size // 2 + 1
        self.one = torch.ones(1, dtype=torch.long, device=device)
        self.fine = torch.arange(fine, device=device)
        self.coarse = torch.arange(math.ceil(self.bins / fine), device=device)[:, None] * fine

    def factors(self, exponents: Tensor) -> tuple[Tensor, Tensor]:
        """Two factors, (..., coarse, 1) and (..., 1, fine), of z to some whole powers."""
        exponents = exponents[..., None, None]
        coarse, fine = (
            (exponents * bins).remainder(self.size) * (2 * math.pi / self.size)
            for bins in (self.coarse, self.fine)
        )
        radius = _growth(exponents, self.size).expand_as(coarse)
        return torch.polar(radius, coarse), torch.polar(torch.ones_like(fine), fine)

    def power(self, exponents: Tensor) -> Tensor:
        coarse, fine = self.factors(exponents)
        return coarse * fine


def _allpass_response(z: _SpectralGrid, sample_rate: int) -> Tensor:
    scale = sample_rate / FREEVERB_RATE_HZ
    delays = [max(1, math.floor(scale * samples + 0.5)) for samples in ALLPASS_SAMPLES]
    echo = z.power(-torch.tensor(delays, device=z.fine.device))
    return (((1 + ALLPASS_FEEDBACK) * echo - 1) / (1 - ALLPASS_FEEDBACK * echo)).prod(0)


def _growth(exponent: Tensor, size: int) -> Tensor:
    return torch.exp(exponent * (-math.log(REVERB_ALIAS) / size))


class Reverb(RandomTransform):
    """Add reverberation; reverberance, damping and room size are drawn from one range, in %."""

    def __init__(self, sample_rate: int, p: float = 0.6, percent: Range = (0.0, 99.0)) -> None:
        super().__init__(p)
        self.sample_rate = sample_rate
        self.percent = percent

    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        reverberance, damping, room_size = (
            uniform(len(audio), self.percent, generator) for _ in range(3)
        )
        return reverb(audio, reverberance, damping, room_size, self.sample_rate)
