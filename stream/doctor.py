"""The doctor looks at this machine and says what is there, what is missing, and what to do about it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.engines.processor import cpu_flags
from stream.config import Config
from stream.errors import Misuse, SpanwatchError

Verdict = Literal["ok", "note", "bad"]

VECTOR_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
RECOMMENDED_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report."""

    what: str
    verdict: Verdict
    says: str
    do: str = ""
    """What to do about it; empty if nothing."""


def examine(config: Config) -> list[Finding]:
    """Look at everything; a check that fails is a finding, never an exception."""
    checks: tuple[Callable[[Config], Finding], ...] = (
        _python,
        _processor,
        _memory,
        _decoder,
        _release,
        _engine,
        _gpu,
        _disk,
        _log,
    )
    return [check(config) for check in checks]


def _python(_: Config) -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _processor(_: Config) -> Finding:
    flags = cpu_flags()
    have = [flag for flag in VECTOR_FLAGS if flag in flags]
    cores = len(os.sched_getaffinity(0))
    says = f"{cores} cores, {', '.join(have) or 'no vector extensions known to help'}"
    if "avx512_bf16" in have or "amx_bf16" in have:
        return Finding("processor", "ok", f"{says}; the engine can run in bf16")
    return Finding("processor", "note", says, "no bf16 instructions: the engine runs in int8 or f32, whichever passes")


def _memory(config: Config) -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = config.worker.max_inflight_bytes + RECOMMENDED_BYTES // 4
    if total < needed:
        advice = "lower worker.max_inflight_bytes in the configuration"
        return Finding("memory", "bad", f"{_gib(total)}, a worker needs {_gib(needed)}", advice)
    return Finding("memory", "ok", f"{_gib(total)}, a worker needs {_gib(needed)}")


def _decoder(_: Config) -> Finding:
    try:
        from stream.photo import pixels

        return Finding("decoder", "ok", pixels.describe())
    except (ImportError, OSError) as error:
        return Finding(
            "decoder", "bad", f"cannot be loaded: {error}", "install spanwatch again, or its system libraries"
        )


def _release(config: Config) -> Finding:
    try:
        from stream.releases import open_release

        release = open_release(config.engine)
    except SpanwatchError as error:
        return Finding("release", "bad", str(error), "`spanwatch release list` shows what there is")
    trained = [c.name for c in release.classes if c.trained]
    return Finding("release", "ok", f"{release.id} knows {', '.join(trained)}")


def _engine(config: Config) -> Finding:
    try:
        from stream.worker.role import start_engine

        engine, _, why = start_engine(config.engine)
    except Misuse as error:  # a setting, or the release: the finding before this one
        return Finding("engine", "bad", str(error), "mend what it names, then look again")
    except (SpanwatchError, ImportError) as error:
        return Finding("engine", "bad", str(error), 'try precision = "f32" under [engine]')
    try:
        return Finding("engine", "ok", f"{type(engine).__name__} in {engine.precision}, golden tiles agree ({why})")
    finally:
        engine.close()


def _gpu(_: Config) -> Finding:
    """libcuda first: other GPU libraries are known to crash the process where it is missing."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Finding("gpu", "note", "no CUDA driver (libcuda.so.1)", "nothing to do: the processor does the work")
    status = cuda.cuInit(0)
    if status != 0:
        return Finding("gpu", "note", f"a CUDA driver that does not start (cuInit: {status})", "see `nvidia-smi`")
    count = ctypes.c_int(0)
    cuda.cuDeviceGetCount(ctypes.byref(count))
    return Finding("gpu", "note", f"{count.value} CUDA devices", "`spanwatch engine build` measures what runs on them")


def _disk(config: Config) -> Finding:
    scheme, _, rest = config.transport.partition(":")
    folder, reserve = (rest, config.local.min_free_bytes)
    if scheme != "local":
        folder, reserve = config.kafka.blobs, config.kafka.min_free_bytes
    place = Path(folder)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    says = f"{_gib(free)} free for {folder}, uploads are refused below {_gib(reserve)}"
    if free < reserve:
        return Finding("disk", "bad", says, "free some space or run `spanwatch gc`")
    if free < reserve + RECOMMENDED_BYTES:
        return Finding("disk", "note", says, "room for a few flights only")
    return Finding("disk", "ok", says)


def _log(config: Config) -> Finding:
    if not config.transport.startswith("kafka:"):
        return _embedded_log(config)
    from stream.transport.kafka_topics import describe_topics

    try:
        states = asyncio.run(describe_topics(config))
    except SpanwatchError as error:
        return Finding("log", "bad", str(error), "is the broker up? `make kafka` starts one to try things with")
    wrong = [state.spec.stored for state in states if state.fix or state.differs]
    if wrong:
        return Finding("log", "bad", f"topics to look at: {', '.join(wrong)}", "`spanwatch topics describe`")
    return Finding("log", "ok", f"{config.transport} answers, topics as they should be")


def _embedded_log(config: Config) -> Finding:
    """Opened as readers open it, if it is there; one that is not is made by whoever comes first."""
    from stream.transport import open_transport

    async def look() -> None:
        await (await open_transport(config)).close()

    folder = Path(config.transport.partition(":")[2])
    if not folder.is_file() and not (folder / "log.sqlite").exists():
        return Finding("log", "note", f"embedded, nothing in {folder} yet", "the first upload or role makes it")
    try:
        asyncio.run(look())
    except SpanwatchError as error:
        return Finding("log", "bad", str(error), "name another folder, or put this one's back from where it is kept")
    return Finding("log", "ok", f"embedded, {config.transport}")


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"


def as_plain(finding: Finding) -> Mapping[str, str]:
    """For `--json`."""
    return {"what": finding.what, "verdict": finding.verdict, "says": finding.says, "do": finding.do}
