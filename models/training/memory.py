"""Training frees and takes the same hundreds of megabytes at every step: let the process keep them in between."""

from __future__ import annotations

import ctypes

# Of the GNU C library's malloc.h; musl and macOS have no such function.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
NEVER, NONE = -1, 0
GROWTH = 256 << 20  # bytes


def keep_freed_memory() -> bool:
    """Tell the C library to hand freed memory to whoever asks next instead of giving it back to the system.

    An activation of more than 32 MiB (a batch of 32 tiles of 256 px has dozens) is else mapped anew each time, and the
    kernel clears it page by page: 40 % of a step went there. Costs nothing but what the largest step needs, kept until
    the process ends.

    Returns:
        Whether this system's C library knows how.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(name, value) for name, value in ((MMAP_MAX, NONE), (TRIM_THRESHOLD, NEVER), (TOP_PAD, GROWTH)))
