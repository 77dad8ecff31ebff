"""Where a figure was measured: a number without its machine, versions and load says nothing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.processes import listener
from stream.transport.kafka_client import addresses

PACKAGES = ("numpy", "opencv-python-headless", "openvino", "simplejpeg", "torch", "aiokafka", "faust-streaming")
NOISE = {"cpu", "processor", "amd", "intel", "r", "tm", "core", "with", "the"}


def describe(transport: str) -> dict[str, Any]:
    """Processor, cores, versions, commit, time, and the load before anything was measured: call it first."""
    broker = broker_pid(transport)
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+changes" if _git("status", "--porcelain") else ""),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_1m": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "transport": scheme(transport),
        "broker_on_this_machine": broker is not None if scheme(transport) == "kafka" else None,
    }


def scheme(transport: str) -> str:
    """`local` or `kafka`."""
    return transport.partition(":")[0]


def broker_pid(transport: str) -> int | None:
    """The broker's process, if it runs on this machine and is ours to look at; never for the embedded log."""
    if scheme(transport) != "kafka":
        return None
    host, _, port = addresses(transport)[0].rpartition(":")
    return listener(int(port)) if host in {"127.0.0.1", "localhost", "::1", "[::1]", platform.node()} else None


def hardware_name(processor: str, cores: int) -> str:
    """A short name of a machine for a file's name, for example `epyc-2core`."""
    words = [word for word in re.findall(r"[a-z0-9]+", processor.lower()) if word not in NOISE]
    return "-".join([*words[:3], f"{cores}core"])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    here = Path(__file__).parent
    done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
