"""How long the next photo must wait so that the line is not used beyond its limit."""

from __future__ import annotations

from stream.errors import Misuse


class Pace:
    """A token bucket that may go into debt: a photo is sent whole, and the next one waits until it is paid for.

    The limit therefore holds over photos and not within one: a photo leaves at the speed of the line. The bucket holds
    one second's worth, so an idle hour does not buy a burst of an hour.

    >>> pace = Pace(1_000_000, now=0.0)
    >>> pace.wait_s(now=0.0)
    0.0
    >>> pace.sent(5_000_000, now=0.0)
    >>> pace.wait_s(now=0.0)
    4.0
    """

    def __init__(self, bytes_per_s: float, *, now: float) -> None:
        """A limit in bytes per second; `now` is in seconds on any clock that only goes forward.

        Raises:
            Misuse: the limit is not above zero.
        """
        if not bytes_per_s > 0:
            raise Misuse(f"a limit of {bytes_per_s:g} bytes/s sends nothing, ever: leave the limit away instead")
        self._rate = bytes_per_s
        self._tokens = bytes_per_s
        self._at = now

    def wait_s(self, now: float) -> float:
        """Seconds until the next photo may start, of any size; 0.0: now."""
        self._refill(now)
        return max(0.0, -self._tokens / self._rate)

    def sent(self, size_bytes: int, now: float) -> None:
        """Note what has been put on the line."""
        self._refill(now)
        self._tokens -= size_bytes

    def _refill(self, now: float) -> None:
        elapsed = max(0.0, now - self._at)
        self._tokens = min(self._rate, self._tokens + elapsed * self._rate)
        self._at = max(self._at, now)
