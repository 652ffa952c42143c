"""Augmentation of waveforms for contrastive pre-training, batched in plain torch.

Conventions: audio is a float tensor of shape (batch, samples) on any device, nominally within
[-1, 1]. A *function* applies one effect with explicit parameters, one value per sample of the
batch. A *transform* is a module that draws such parameters for the samples it picks. All
randomness comes from one `torch.Generator` on the CPU, so that a seed reproduces every result on
every device. Nothing is clipped or normalised: a sum or a resonance may exceed 1.

The published chain is that of CLMR (Spijkervet & Burgoyne, ISMIR 2021, section 3.2), with the
probabilities and ranges of the authors' code: `clmr_chain`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Range: TypeAlias = tuple[float, float]
"""Lowest and highest value of a uniform distribution."""

ROWS_IN_CACHE = 4
"""Rows of some 60,000 samples whose intermediate results fit a CPU core's cache together."""

# Filter
FILTER_TAIL_SECONDS = 0.02
"""Time for the filter's response to fade: below -100 dB for every cutoff above 130 Hz."""
FILTER_FFT_TAILS = 5

# Pitch shift: segment, search and overlap of SoX's `pitch`
SEGMENT_SECONDS = 0.082
SEARCH_SECONDS = 0.01468
OVERLAP_SECONDS = 0.012
KERNEL_ZERO_CROSSINGS = 10
KERNEL_STEPS_PER_CROSSING = 2048
KERNEL_KAISER_BETA = 8.0
KERNEL_CUTOFF = 0.9
"""Cutoff of the interpolation, as a share of the lower of the two Nyquist frequencies."""
OUTPUTS_PER_BLOCK = 16

# Reverb: freeverb's delay lines, in samples at 44,100 Hz
FREEVERB_RATE_HZ = 44_100
COMB_SAMPLES = (1116, 1188, 1277, 1356, 1422, 1491, 1557, 1617)
ALLPASS_SAMPLES = (225, 341, 441, 556)
ALLPASS_FEEDBACK = 0.5
WET_GAIN = 0.015
MIN_FEEDBACK = 0.3
MAX_FEEDBACK = 0.98
REVERB_ALIAS = 1e-3
"""What is left of the reverberation that wraps around the end of the FFT (-60 dB)."""


def invert_polarity(audio: Tensor) -> Tensor:
    """Flip the sign of the waveform.

    Parameters
    ----------
    audio : Tensor
        Shape (batch, samples).

    Returns
    -------
    Tensor
        Shape (batch, samples).
    """
    return -audio


def add_noise(audio: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Add noise in proportion to each sample's standard deviation.

    Parameters
    ----------
    audio, noise : Tensor
        Shape (batch, samples); the noise has unit variance.
    level : Tensor
        Shape (batch,): standard deviation of the added noise over that of the audio.

    Returns
    -------
    Tensor
        Shape (batch, samples).
    """
    deviation = audio.std(dim=-1, correction=0, keepdim=True)
    return audio + noise.to(audio) * deviation * level.to(audio)[:, None]


def gain(audio: Tensor, decibels: Tensor) -> Tensor:
    """Scale each sample by a level in decibels.

    Parameters
    ----------
    audio : Tensor
        Shape (batch, samples).
    decibels : Tensor
        Shape (batch,), in dB.

    Returns
    -------
    Tensor
        Shape (batch, samples).
    """
    return audio * (10 ** (decibels / 20)).to(audio)[:, None]


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
    size = _fast_fft_size(FILTER_FFT_TAILS * tail)
    # On the unit circle the bilinear transform maps s to j tan(w / 2).
    frequency = torch.arange(size // 2 + 1, device=audio.device) * (math.pi / size)
    corner = (math.pi * cutoff_hz / sample_rate).tan().to(audio)[:, None]
    scaled = frequency.tan() / corner
    squared = scaled.square()
    numerator = torch.where(high_pass.to(audio.device)[:, None], -squared, 1.0)
    response = numerator / torch.complex(1 - squared, math.sqrt(2) * scaled)
    return _by_rows(_overlap_add, (audio, response), tail)


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


def delay(audio: Tensor, milliseconds: Tensor, sample_rate: int, factor: float = 0.5) -> Tensor:
    """Mix in one echo: (x + factor * delayed x) / 2.

    Parameters
    ----------
    audio : Tensor
        Shape (batch, samples).
    milliseconds : Tensor
        Shape (batch,): the echo's delay, in ms.
    sample_rate : int
        In Hz.
    factor : float
        Amplitude of the echo before the mix.

    Returns
    -------
    Tensor
        Shape (batch, samples); what is delayed beyond the end is dropped.
    """
    mixed = audio / 2
    samples = audio.shape[-1]
    offsets = (milliseconds.double() * sample_rate / 1000).round().long()
    for target, source, offset in zip(mixed, audio, offsets.tolist(), strict=True):
        target[offset:].add_(source[: max(samples - offset, 0)], alpha=factor / 2)
    return mixed


def pitch_shift(audio: Tensor, semitones: Tensor, sample_rate: int) -> Tensor:
    """Shift the pitch and keep duration, tempo and onsets.

    Waveform-similarity overlap-add (WSOLA; Verhelst & Roelands, ICASSP 1993) fused with a
    windowed-sinc resampler: segments of 82 ms are read at the shifted speed, each from where,
    within 14.68 ms around its place in time, the audio continues the previous segment with the
    least squared error, and cross-faded linearly over 12 ms.

    SoX's `pitch`, which CLMR used, is of the same family, with the same segment, search and overlap
    lengths (its `tempo` followed by its `rate`). What differs: segments are measured after the
    change of speed, not before; the search is exhaustive; the middle of a segment, not its start,
    keeps its place in time; the resampling filter is shorter (-6 dB at 0.9 of the Nyquist
    frequency, or of that frequency lowered by an upward shift, against aliasing).

    Measured on sines of 110 to 5,000 Hz shifted by -7 to 7 semitones: frequency within 0.2 cents,
    level within 0.1 dB, everything else at least 40 dB below the sine at 440 Hz and 20 dB at
    5 kHz (segments meet within a sample). An onset keeps its place within about 20 ms; as in SoX, a
    click may be lost by a downward shift or doubled by an upward one.

    Parameters
    ----------
    audio : Tensor
        Shape (batch, samples).
    semitones : Tensor
        Shape (batch,): positive is up; may be fractional.
    sample_rate : int
        In Hz.

    Returns
    -------
    Tensor
        Shape (batch, samples).
    """
    ratio = torch.exp2(semitones.double() / 12).to(audio)
    hop = round((SEGMENT_SECONDS - OVERLAP_SECONDS) * sample_rate)
    overlap = round(OVERLAP_SECONDS * sample_rate)
    search = round(SEARCH_SECONDS * sample_rate)
    starts = _segment_starts(audio, ratio, hop, overlap, search)
    margin = search + math.ceil(float(ratio.max()) * (hop + overlap))
    return _by_rows(_render_segments, (audio, starts, ratio), hop, overlap, margin)


def _segment_starts(audio: Tensor, ratio: Tensor, hop: int, overlap: int, search: int) -> Tensor:
    samples = audio.shape[-1]
    device = audio.device
    count = math.ceil(samples / hop)
    onset = torch.arange(count, device=device) * hop
    length = (samples - onset).clamp(max=hop + overlap)
    # The middle of a segment keeps its place in time; none reads beyond the end.
    centred = onset + length / 2 * (1 - ratio[:, None])
    latest = (samples - length * ratio[:, None]).clamp(min=0)
    latest = latest.floor().long()
    nominal = centred.clamp(min=0).round().long().minimum(latest)

    margin = search + overlap
    reach = math.ceil(float(ratio.max()) * (hop + overlap))
    padded = F.pad(audio, (margin, margin + reach))
    rows = torch.arange(len(audio), device=device)
    first = (nominal - search // 2).minimum(latest - (search - 1))
    region = padded.unfold(-1, search + overlap - 1, 1)[rows[:, None], first + margin]
    size = _fast_fft_size(region.shape[-1])
    spectrum = torch.fft.rfft(region, size)
    box = torch.fft.rfft(torch.ones(overlap, device=device), size)
    power = torch.fft.rfft(region.square_(), size).mul_(box.conj())
    energy = torch.fft.irfft(power, size)[..., :search]

    templates = padded.unfold(-1, overlap, 1)
    advance = hop * ratio
    chosen = [nominal[:, 0]]
    rounding = torch.zeros_like(ratio)
    for segment in range(1, count):
        natural = chosen[-1] + advance + rounding
        nearest = natural.round()
        rounding = natural - nearest
        template = torch.fft.rfft(templates[rows, nearest.long() + margin], size)
        match = torch.fft.irfft(spectrum[:, segment] * template.conj(), size)[:, :search]
        lag = (energy[:, segment] - 2 * match).argmin(-1)
        chosen.append(first[:, segment] + lag)
    return torch.stack(chosen, dim=-1)


def _render_segments(
    audio: Tensor, starts: Tensor, ratio: Tensor, hop: int, overlap: int, margin: int
) -> Tensor:
    device = audio.device
    samples = audio.shape[-1]
    cutoff = KERNEL_CUTOFF / ratio.clamp(min=1)
    half = math.ceil(KERNEL_ZERO_CROSSINGS / float(cutoff.min()))
    span = 2 * half + math.ceil(float(ratio.max()) * (OUTPUTS_PER_BLOCK - 1)) + 1

    blocks = math.ceil((hop + overlap) / OUTPUTS_PER_BLOCK)
    position = torch.arange(blocks, device=device) * OUTPUTS_PER_BLOCK * ratio[:, None]
    whole = position.floor()
    tap = torch.arange(span, device=device) - half
    output = torch.arange(OUTPUTS_PER_BLOCK, device=device)
    scale = cutoff[:, None, None] * KERNEL_STEPS_PER_CROSSING
    tap_step = (tap - (position - whole)[..., None]) * scale
    tap_step += KERNEL_ZERO_CROSSINGS * KERNEL_STEPS_PER_CROSSING + 0.5
    output_step = output * ratio[:, None, None] * scale
    table = _interpolation_kernel(device)
    step = tap_step[..., None] - output_step[:, :, None]
    step.clamp_(0, len(table) - 1)
    weights = table.index_select(0, step.flatten().int()).view(step.shape)

    padded = F.pad(audio, (margin + half, margin + half + span))
    first = starts[:, None] + whole.long()[..., None] + margin
    rows = torch.arange(len(audio), device=device)[:, None, None]
    frames = padded.unfold(-1, span, 1)[rows, first]
    segments = (frames @ weights).transpose(1, 2).flatten(2)
    segments.mul_(cutoff[:, None, None])
    return _cross_fade(segments, hop, overlap)[:, :samples]


def _cross_fade(segments: Tensor, hop: int, overlap: int) -> Tensor:
    ramp = (torch.arange(overlap, device=segments.device) + 0.5) / overlap
    incoming = segments[:, 1:, :overlap]
    outgoing = segments[:, :-1, hop : hop + overlap]
    incoming.mul_(ramp).add_(outgoing * (1 - ramp))
    return segments[:, :, :hop].flatten(1)


@cache
def _interpolation_kernel(device: torch.device) -> Tensor:
    half = KERNEL_ZERO_CROSSINGS * KERNEL_STEPS_PER_CROSSING
    time = torch.arange(-half, half + 1, dtype=torch.float64) / KERNEL_STEPS_PER_CROSSING
    window = torch.kaiser_window(
        2 * half + 1, periodic=False, beta=KERNEL_KAISER_BETA, dtype=torch.float64
    )
    return (torch.sinc(time) * window).float().to(device)


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
    size = _fast_fft_size(max(audio.shape[-1], 2 * longest_comb))
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
    return _by_rows(_apply_reverb, parameters, z, allpasses, envelope)


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


def _fast_fft_size(least: int) -> int:
    """Return the smallest even product of 2, 3 and 5 that is not below `least`."""
    size = least + least % 2
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


def _by_rows(
    function: Callable[..., Tensor], batched: tuple[Tensor, ...], *shared: object
) -> Tensor:
    """Call `function` on a few rows at a time on a CPU, on all at once elsewhere."""
    rows = ROWS_IN_CACHE if batched[0].device.type == "cpu" else len(batched[0])
    result = torch.empty_like(batched[0])
    for start in range(0, len(result), rows):
        part = slice(start, start + rows)
        result[part] = function(*(tensor[part] for tensor in batched), *shared)
    return result


class RandomTransform(nn.Module, ABC):
    """A transform of each sample of a batch with probability `p`.

    Parameters
    ----------
    p : float
        Probability that a sample is transformed, 0 to 1.

    Raises
    ------
    ValueError
        If `p` is not a probability.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be between 0 and 1, not {p}")
        self.p = p

    @abstractmethod
    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """Draw parameters for each sample of `audio` (batch, samples) and apply them."""

    @torch.no_grad()
    def forward(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """Transform some samples of a batch; lower precisions are computed in float32.

        Parameters
        ----------
        audio : Tensor
            Shape (batch, samples), floating point, on any device; it is left unchanged.
        generator : torch.Generator
            On the CPU: the only source of randomness.

        Returns
        -------
        Tensor
            Shape, type and device of `audio`.

        Raises
        ------
        ValueError
            If `audio` is not a floating-point tensor of shape (batch, samples), samples > 0.
        """
        return _apply_in_order([self], audio, generator)

    def transform_(self, audio: Tensor, generator: torch.Generator) -> None:
        """Transform some samples of float32 `audio` in place."""
        chosen = (torch.rand(len(audio), generator=generator) < self.p).nonzero()[:, 0]
        if len(chosen) > 0:
            rows = chosen.to(audio.device)
            audio.index_copy_(0, rows, self.process(audio.index_select(0, rows), generator))


class AugmentationChain(nn.Module):
    """Transforms applied one after the other.

    Parameters
    ----------
    transforms : iterable of RandomTransform
        In the order of their application.
    """

    def __init__(self, transforms: Iterable[RandomTransform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    @torch.no_grad()
    def forward(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch: arguments, result and errors are those of a `RandomTransform`.

        Call it once for each view.
        """
        return _apply_in_order(self.transforms, audio, generator)


def clmr_chain(sample_rate: int = 22_050) -> AugmentationChain:
    """Return the augmentation chain of CLMR: order, probabilities and ranges as published.

    Parameters
    ----------
    sample_rate : int
        In Hz, at least 8,001 for the highest cutoff.

    Returns
    -------
    AugmentationChain
        Polarity, noise, gain, filter, delay, pitch shift, reverb.
    """
    return AugmentationChain(
        [
            PolarityInversion(),
            Noise(),
            Gain(),
            HighLowPass(sample_rate),
            Delay(sample_rate),
            PitchShift(sample_rate),
            Reverb(sample_rate),
        ]
    )


class PolarityInversion(RandomTransform):
    """Flip the sign of the waveform."""

    def __init__(self, p: float = 0.8) -> None:
        super().__init__(p)

    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        return invert_polarity(audio)


class Noise(RandomTransform):
    """Add white Gaussian noise of `level` times each sample's standard deviation."""

    def __init__(self, p: float = 0.01, level: Range = (0.0001, 0.01)) -> None:
        super().__init__(p)
        self.level = level

    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        level = _uniform(len(audio), self.level, generator)
        return add_noise(audio, torch.randn(audio.shape, generator=generator), level)


class Gain(RandomTransform):
    """Scale by a level in dB."""

    def __init__(self, p: float = 0.3, decibels: Range = (-20.0, -1.0)) -> None:
        super().__init__(p)
        self.decibels = decibels

    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        return gain(audio, _uniform(len(audio), self.decibels, generator))


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
        high = _uniform(count, self.high_pass_hz, generator)
        low = _uniform(count, self.low_pass_hz, generator)
        return butterworth(audio, torch.where(high_pass, high, low), high_pass, self.sample_rate)


class Delay(RandomTransform):
    """Mix in one echo after one of the delays, in ms, with equal odds."""

    def __init__(
        self,
        sample_rate: int,
        p: float = 0.3,
        milliseconds: Sequence[float] = (200.0, 250.0, 300.0, 350.0, 400.0, 450.0),
        factor: float = 0.5,
    ) -> None:
        super().__init__(p)
        self.sample_rate = sample_rate
        self.milliseconds = tuple(milliseconds)
        self.factor = factor

    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        choice = torch.randint(len(self.milliseconds), (len(audio),), generator=generator)
        milliseconds = torch.tensor(self.milliseconds)[choice]
        return delay(audio, milliseconds, self.sample_rate, self.factor)


class PitchShift(RandomTransform):
    """Shift the pitch by some semitones, continuously distributed."""

    def __init__(self, sample_rate: int, p: float = 0.6, semitones: Range = (-7.0, 7.0)) -> None:
        super().__init__(p)
        self.sample_rate = sample_rate
        self.semitones = semitones

    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        semitones = _uniform(len(audio), self.semitones, generator)
        return pitch_shift(audio, semitones, self.sample_rate)


class Reverb(RandomTransform):
    """Add reverberation; reverberance, damping and room size are drawn from one range, in %."""

    def __init__(self, sample_rate: int, p: float = 0.6, percent: Range = (0.0, 99.0)) -> None:
        super().__init__(p)
        self.sample_rate = sample_rate
        self.percent = percent

    def process(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        reverberance, damping, room_size = (
            _uniform(len(audio), self.percent, generator) for _ in range(3)
        )
        return reverb(audio, reverberance, damping, room_size, self.sample_rate)


def _uniform(count: int, bounds: Range, generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(count, generator=generator)


def _apply_in_order(
    transforms: Iterable[nn.Module], audio: Tensor, generator: torch.Generator
) -> Tensor:
    if audio.ndim != 2 or audio.shape[-1] == 0 or not audio.is_floating_point():
        raise ValueError(
            "expected a floating-point tensor of shape (batch, samples), "
            f"not {audio.dtype} of shape {tuple(audio.shape)}"
        )
    working = audio.to(torch.float32, copy=True)
    for transform in transforms:
        assert isinstance(transform, RandomTransform)
        transform.transform_(working, generator)
    return working.to(audio.dtype)
