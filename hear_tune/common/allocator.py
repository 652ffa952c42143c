"""Configuring the C library's memory allocator."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_NEVER_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Configure glibc malloc to reuse freed memory; return whether that worked.

    Otherwise each large activation is mapped anew, and the kernel spends more time clearing its
    pages than the network computing. Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    wanted = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER_BYTES, _M_ARENA_MAX: 1}
    return all(mallopt(parameter, value) for parameter, value in wanted.items())
