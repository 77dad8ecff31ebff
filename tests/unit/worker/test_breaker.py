"""The breaker trips on a run of dead frames and on half of the last window, and on nothing less."""

import pytest

from stream.errors import BreakerTripped
from stream.worker.breaker import Breaker


def test_trips_on_a_run_of_dead_frames() -> None:
    breaker = Breaker(run=3, window=100)
    for dead in (True, True, False, True, True):
        breaker.note(dead=dead)
    with pytest.raises(BreakerTripped, match="3 frames in a row"):
        breaker.note(dead=True)


def test_trips_on_half_of_a_full_window_only() -> None:
    breaker = Breaker(run=100, window=4)
    for dead in (True, False, True):  # two of three, but the window is not full
        breaker.note(dead=dead)
    with pytest.raises(BreakerTripped, match="2 of the last 4"):
        breaker.note(dead=False)


def test_a_bad_frame_now_and_then_never_trips() -> None:
    breaker = Breaker(run=3, window=10)
    for index in range(1000):
        breaker.note(dead=index % 3 == 0)
