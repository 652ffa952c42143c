"""Contrastive pre-training of the encoders."""

from ..common.errors import HearTuneError


class TrainingError(HearTuneError, ValueError):
    """A training run cannot begin or go on as asked, or has diverged."""
