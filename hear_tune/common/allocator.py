"""Memory that a CPU program gives back is memory that it must fetch again, page by page."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the next tensors, instead of returning it to the system.

    A network's large activations come and go at every step; where each one is mapped anew, the
    kernel spends more time on clearing its pages than the network on computing. Elsewhere than on
    glibc nothing is done.

    Returns
    -------
    bool
        Whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    wanted = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER_BYTES, _M_ARENA_MAX: 1}
    return all(mallopt(parameter, value) for parameter, value in wanted.items())
