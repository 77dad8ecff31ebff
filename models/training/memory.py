"""Training frees and takes the same hundreds of megabytes at every step: let the process keep them in between."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

# Of the GNU C library's malloc.h; musl and macOS have no such function.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
NEVER, NONE = -1, 0
GROWTH = 256 << 20  # bytes
ROOM = 512 << 20
"""Bytes at the end of the heap that are to come in huge pages; none is used before it is asked for."""


def keep_freed_memory() -> bool:
    """Tell the C library to hand freed memory to whoever asks next instead of giving it back to the system.

    An activation of more than 32 MiB (a batch of 32 tiles of 256 px has dozens) is else mapped anew each time, and the
    kernel clears it page by page: 40 % of a step went there. Costs nothing but what the largest step needs, kept until
    the process ends. What is kept comes in huge pages as far as the kernel has them: painting a tile goes through
    dozens of fields, whose small pages are more than the processor remembers the places of.

    Returns:
        Whether this system's C library knows how.
    """
    library = ctypes.CDLL(None)
    mallopt = getattr(library, "mallopt", None)
    if mallopt is None:
        return False
    kept = all(mallopt(name, value) for name, value in ((MMAP_MAX, NONE), (TRIM_THRESHOLD, NEVER), (TOP_PAD, GROWTH)))
    if kept:
        _ask_for_huge_pages(library)
    return kept


def _ask_for_huge_pages(library: ctypes.CDLL) -> None:
    """Make the heap longer, and say of all of it that huge pages are welcome; a kernel without them just declines."""
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    library.free(library.malloc(ROOM))
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        if line.endswith("[heap]"):
            first, end = (int(address, 16) for address in line.split(maxsplit=1)[0].split("-"))
            library.madvise(first, end - first, mmap.MADV_HUGEPAGE)
