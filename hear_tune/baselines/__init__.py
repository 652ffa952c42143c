"""What an embedding is compared with: features without learning, and other encoders."""

from ..network import LayeredEncoder
from .musicnn import Musicnn
from .spectral import LogMel, MfccStatistics

BASELINES: dict[str, type[LayeredEncoder]] = {
    "log-mel": LogMel,
    "mfcc": MfccStatistics,
    "musicnn": Musicnn,
}

__all__ = ["BASELINES", "LogMel", "MfccStatistics", "Musicnn"]
