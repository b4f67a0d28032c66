"""
Keeps freed memory in the process instead of handing it back to the system.

An update on a CPU frees and allocates the same hundreds of kilobytes again and again. glibc's malloc gives such blocks
back to the system, which must then clear each page anew when it is touched: up to 6000 page faults an update.
"""

import ctypes
import os
import sys

SWITCH = "SB3_RPG_KEEP_MEMORY"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = 1 << 30, 1 << 25  # the latter is the largest that every glibc takes
_OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """
    Raise the sizes from which malloc returns memory to the system: for the whole process, and no more than its peak.

    Nothing is done where the C library is not glibc, where the user has set malloc's thresholds in the environment, or
    where ``SB3_RPG_KEEP_MEMORY=0``.

    :return: whether it was done
    """
    if sys.platform != "linux" or os.environ.get(SWITCH) == "0" or any(name in os.environ for name in _OWN_SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # another C library
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)) and bool(mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD))
