"""Labelled music to train and test probes on."""

from ..common.errors import HearTuneError


class DownloadError(HearTuneError, OSError):
    """Files could not be fetched or unpacked, or are not the expected ones."""
