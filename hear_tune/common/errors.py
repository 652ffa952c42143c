"""Base class of the package's errors, which the command line prints in one line, with code 2."""


class HearTuneError(Exception):
    """Base class of all errors of the package; the message names the cause and the remedy."""
