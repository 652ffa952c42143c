"""What an embedding is compared with: features without learning, and other encoders."""

from .spectral import LogMel, MfccStatistics

BASELINES = {"log-mel": LogMel, "mfcc": MfccStatistics}

__all__ = ["BASELINES", "LogMel", "MfccStatistics"]
