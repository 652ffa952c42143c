"""Augmentation of waveforms for contrastive pre-training, batched in plain torch.

Conventions: audio is a float tensor of shape (batch, samples) on any device, nominally within
[-1, 1]. A *function* applies one effect with explicit parameters, one value per sample of the
batch. A *transform* is a module that draws such parameters for the samples it picks. All
randomness comes from one `torch.Generator` on the CPU, so that a seed reproduces every result on
every device. Nothing is clipped or normalised: a sum or a resonance may exceed 1.

`clmr_chain` is the published chain of CLMR (Spijkervet & Burgoyne, ISMIR 2021, section 3.2), with
the probabilities and ranges of the authors' code.
"""

from .echo import Delay, delay
from .filters import HighLowPass, butterworth
from .freeverb import Reverb, reverb
from .level import Gain, Noise, PolarityInversion, add_noise, gain, invert_polarity
from .pitch import PitchShift, pitch_shift
from .transform import AugmentationChain, RandomTransform

__all__ = [
    "AugmentationChain",
    "Delay",
    "Gain",
    "HighLowPass",
    "Noise",
    "PitchShift",
    "PolarityInversion",
    "RandomTransform",
    "Reverb",
    "add_noise",
    "butterworth",
    "clmr_chain",
    "delay",
    "gain",
    "invert_polarity",
    "pitch_shift",
    "reverb",
]


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
