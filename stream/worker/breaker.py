"""The breaker stops a worker when dead frames come so thick that the frames cannot be at fault."""

from __future__ import annotations

from collections import deque

from stream.errors import BreakerTripped


class Breaker:
    """Counts answers; trips on `run` dead frames in a row, or when half of the last `window` are dead.

    A wrong decoder library or an unmounted blob store would otherwise dead-letter a whole flight, one by one.
    """

    def __init__(self, run: int, window: int) -> None:
        self._run = run
        self._in_a_row = 0
        self._last: deque[bool] = deque(maxlen=window)

    def note(self, *, dead: bool) -> None:
        """Count one answered frame.

        Raises:
            BreakerTripped: with the numbers, after the frame that tripped it has been counted.
        """
        self._in_a_row = self._in_a_row + 1 if dead else 0
        self._last.append(dead)
        if self._in_a_row >= self._run:
            raise BreakerTripped(
                f"{self._in_a_row} frames in a row were dead; see `spanwatch dead list` for the reasons"
            )
        full = len(self._last) == self._last.maxlen
        if full and 2 * sum(self._last) >= len(self._last):
            raise BreakerTripped(
                f"{sum(self._last)} of the last {len(self._last)} frames were dead;"
                " see `spanwatch dead list` for the reasons"
            )
