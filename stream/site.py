"""The site runs every role of one box as a child process, restarts what falls, and takes all down with itself."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stream.errors import Misuse

log = logging.getLogger(__name__)

STOP_BUDGET_S = 60.0
"""How long a role may take to finish its frames after SIGTERM; then it is killed, and its frames are read again."""
MISUSED = 2
"""A child's exit code that no restart mends."""
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Role:
    """One child: its name for the log, and the arguments after `spanwatch`."""

    name: str
    arguments: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables on top of the site's own."""


@dataclass(slots=True)
class Backoff:
    """How long to wait before a role is started again: 1, 2, 4 … 60 s, and from 1 anew once it has run for a minute."""

    failures: int = 0

    def pause(self, ran_s: float) -> float:
        """Seconds to wait after a run of `ran_s` seconds ended."""
        self.failures = 1 if ran_s >= 60.0 else self.failures + 1
        return float(min(60, 2 ** (self.failures - 1)))


async def run_site(roles: Sequence[Role], stop: asyncio.Event) -> None:
    """Run the roles until `stop` is set, then end them with SIGTERM and wait for their frames.

    Raises (in an ExceptionGroup):
        Misuse: a role says that it was configured wrongly; all others are ended first.
    """
    async with asyncio.TaskGroup() as group:
        for role in roles:
            group.create_task(_keep(role, stop))


async def _keep(role: Role, stop: asyncio.Event) -> None:
    backoff = Backoff()
    while not stop.is_set():
        started = time.monotonic()
        code = await _run_once(role, stop)
        if stop.is_set():
            return
        if code == MISUSED:
            raise Misuse(f"{role.name} was configured wrongly; its own message is above")
        pause = backoff.pause(time.monotonic() - started)
        log.error("role ended role=%s exit=%d restart_in_s=%.0f", role.name, code, pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)


async def _run_once(role: Role, stop: asyncio.Event) -> int:
    """One life of a role, from start to exit code."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stream",
        *role.arguments,
        env={**os.environ, **role.variables},
        preexec_fn=_die_with_parent,
    )
    log.info("role started role=%s pid=%d", role.name, child.pid)
    stopping, ending = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(child.wait())
    try:
        await asyncio.wait({stopping, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not ending.done():
            await _end(role, child.pid, ending)
    return await ending


async def _end(role: Role, pid: int, ending: asyncio.Future[int]) -> None:
    os.kill(pid, signal.SIGTERM)
    done, _ = await asyncio.wait({ending}, timeout=STOP_BUDGET_S)
    if not done:
        log.error("role did not stop in time, killing it role=%s budget_s=%.0f", role.name, STOP_BUDGET_S)
        os.kill(pid, signal.SIGKILL)
        await ending


def _die_with_parent() -> None:
    """In the child: ask the kernel for SIGTERM when the site dies in whatever way, so that no role outlives it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
