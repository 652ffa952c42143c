"""Contrastive pre-training of the encoders."""

from ..common.errors import HearTuneError

# Defaults of a whitening.
WHITENED_SIZE = 512  # numbers of an embedding
WHITENING_CROPS = 8192  # crops that it is fitted on
WHITENING_POWER = 0.75  # of variances: 1 makes all components equal
WHITENING_TIMESTAMP_POWER = 0.25  # the same, of timestamps
WHITENING_COMPRESSION = 5.0  # of statistics over time


class TrainingError(HearTuneError, ValueError):
    """A training run cannot start or resume as requested, or has diverged."""
