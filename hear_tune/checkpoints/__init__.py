"""Checkpoints of the package, of the TUNE and CLMR authors, and on the Hugging Face hub."""

from ..common.errors import HearTuneError


class CheckpointError(HearTuneError, ValueError):
    """A file is not a usable checkpoint."""
