"""What this machine's processor is and can do, in Linux's words, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
from pathlib import Path

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
CPUINFO = Path("/proc/cpuinfo")


def cpu_flags(path: Path = CPUINFO) -> frozenset[str]:
    """What the first CPU of this machine can do; empty where Linux does not say."""
    return frozenset(_field("flags", path).split())


def cpu_model(path: Path = CPUINFO) -> str:
    """The name of the first CPU, or at least its architecture."""
    return _field("model name", path) or platform.machine()


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 numbers; without, it would only be asked for."""
    return bool(BF16_FLAGS & cpu_flags())


def has_int8() -> bool:
    """Whether the CPU adds products of 8-bit numbers up exactly; without, two of them share 16 bits and are cut off."""
    return bool(INT8_FLAGS & cpu_flags())


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _field(name: str, path: Path) -> str:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    found = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in found if key.strip() == name), "")
