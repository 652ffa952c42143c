"""Labelled music: what a probe learns from and is scored on."""

from ..common.errors import HearTuneError


class DownloadError(HearTuneError, OSError):
    """Files could not be fetched or unpacked, or are not those that were wanted."""
