"""Contrastive pre-training of the encoders."""

from ..common.errors import HearTuneError


class TrainingError(HearTuneError, ValueError):
    """A training run cannot start or resume as requested, or has diverged."""
