"""What processes of this machine have used, as Linux counts it: processor time, memory, and who listens on a port."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LISTEN = "0A"
UNNAMED = "engine"
"""Threads that Python has not started are the inference library's."""
OWNERS = {"MainThread": "loop", "decode": "decode", "engine": "engine", "log": "log", "asyncio": "blobs"}
"""Beginning of a thread's name -> the worker's stage that it does."""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads, ended ones too."""
    return _ticks(Path(f"/proc/{pid}/stat")) / TICKS_PER_S


def own_cpu_by_stage() -> dict[int, tuple[str, float]]:
    """Of each living thread of this process, by its id: its stage, and the processor seconds it has used so far."""
    named = {thread.native_id: thread.name for thread in threading.enumerate()}
    found = {}
    for folder in Path("/proc/self/task").iterdir():
        try:
            spent = _ticks(folder / "stat") / TICKS_PER_S
        except FileNotFoundError:
            continue  # it has ended meanwhile
        name = named.get(int(folder.name))
        found[int(folder.name)] = (stage_of(name), spent)
    return found


def stage_of(name: str | None) -> str:
    """The stage of the worker that a thread of this name does; None: a thread of no Python name."""
    if name is None:
        return UNNAMED
    return next((stage for start, stage in OWNERS.items() if name.startswith(start)), "other")


def spent_by_stage(before: dict[int, tuple[str, float]], after: dict[int, tuple[str, float]]) -> dict[str, float]:
    """Processor seconds of each stage between two looks."""
    stages: dict[str, float] = {}
    for thread, (stage, spent) in after.items():
        stages[stage] = stages.get(stage, 0.0) + spent - before.get(thread, (stage, 0.0))[1]
    return {stage: round(seconds, 3) for stage, seconds in sorted(stages.items())}


def rss_bytes(pid: int) -> int:
    """Memory of a process now; 0 if it has ended."""
    return _status(pid, "VmRSS")


def peak_rss_bytes(pid: int) -> int:
    """The high-water mark of this program alone; `ru_maxrss` would inherit the parent's across the exec."""
    return _status(pid, "VmHWM")


def listener(port: int) -> int | None:
    """The process that listens on a TCP port of this machine, if it is one that we may look into."""
    sockets = set(_listening(port))
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and sockets & set(_sockets(folder / "fd")):
            return int(folder.name)
    return None


def _listening(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{words[9]}]"


def _sockets(folder: Path) -> Iterator[str]:
    try:
        links = list(folder.iterdir())
    except OSError:
        return  # another user's, or it has ended
    for link in links:
        try:
            yield str(link.readlink())
        except OSError:
            continue


def _ticks(path: Path) -> int:
    words = path.read_text().rpartition(")")[2].split()  # the name in parentheses may hold spaces
    return int(words[11]) + int(words[12])


def _status(pid: int, key: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)
