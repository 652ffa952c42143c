"""The errors of the package: the command line prints each in one line and exits with code 2."""


class HearTuneError(Exception):
    """Anything that the package refuses or cannot do; the message says why and what helps."""
