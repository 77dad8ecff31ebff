"""Patience: one way to try again when something outside is away, with jittered back-off inside one deadline."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_random_exponential
from tenacity.stop import stop_never

from stream.errors import Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")


async def patiently(
    call: Callable[[], Awaitable[T]],
    *,
    deadline_s: float | None,
    final: tuple[type[Unavailable], ...] = (),
    on_wait: Callable[[BaseException, float], None] | None = None,
) -> T:
    """Await `call()` until it does not raise `Unavailable`.

    Args:
        deadline_s: seconds after which the last error rises; None never gives up.
        final: kinds of `Unavailable` that rise at once, because the caller has its own way to wait for them.
        on_wait: told the error and the seconds until the next try; the log is told in any case.
    """

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        log.warning("unavailable, trying again pause_s=%.1f error=%s", pause, error)
        if on_wait is not None and error is not None:
            on_wait(error, pause)

    retrying = AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, Unavailable) and not isinstance(error, final)),
        wait=wait_random_exponential(multiplier=0.1, max=15.0),
        stop=stop_never if deadline_s is None else stop_after_delay(deadline_s),
        before_sleep=before_sleep,
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            return await call()
    raise AssertionError("unreachable: the last error rises")
