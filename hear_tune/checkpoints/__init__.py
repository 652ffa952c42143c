"""Checkpoints: the package's own, those of the TUNE and CLMR authors, and the Hugging Face hub."""

from ..common.errors import HearTuneError


class CheckpointError(HearTuneError, ValueError):
    """A file is not a usable checkpoint; the message says why."""
