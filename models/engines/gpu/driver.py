"""Asks the NVIDIA driver alone whether there is a card: libraries above it end the process where there is none."""

from __future__ import annotations

import ctypes


def driver_obstacle() -> str | None:
    """Why there is no card to use; None if there is one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1 cannot be loaded)"
    if status := driver.cuInit(0):
        return f"the NVIDIA driver does not start (cuInit says {status})"
    count = ctypes.c_int(0)
    if (status := driver.cuDeviceGetCount(ctypes.byref(count))) or count.value == 0:
        return f"the NVIDIA driver sees no card (cuDeviceGetCount says {status})"
    return None
