"""Mono audio as arrays."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
SampleType = TypeVar("SampleType", np.float32, np.int16)


def pad_end(samples: npt.NDArray[SampleType], size: int) -> npt.NDArray[SampleType]:
    """Pad a clip with silence at its end to a size in samples."""
    return np.pad(samples, (0, size - len(samples)))
