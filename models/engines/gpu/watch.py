"""Lets a person see how far a compilation is, and end it, although the library's callbacks must not raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models.engines.gpu.device import DeviceError

Heed = Callable[[str, int, int], bool]
"""Told of a phase of the build, steps done and steps in all; False ends the build."""


class BuildStopped(DeviceError):
    """Whoever watched the build has ended it; nothing was made."""


class Watch:
    """Carries what a watcher says or raises out of the library's callbacks, which must not raise."""

    def __init__(self, heed: Heed | None) -> None:
        self._heed = heed
        self._stopped: BaseException | None = None

    def step(self, phase: str, done: int, steps: int) -> bool:
        """Whether to go on."""
        if self._heed is None or self._stopped is not None:
            return self._stopped is None
        try:
            if not self._heed(phase, done, steps):
                self._stopped = BuildStopped(f"the build was stopped in {phase}, {done} of {steps}")
        except BaseException as error:  # Ctrl-C among them: it goes on where Python has the word again
            self._stopped = error
        return self._stopped is None

    def raise_if_stopped(self) -> None:
        """What the watcher wanted."""
        if self._stopped is not None:
            raise self._stopped


def monitor(trt: Any, watch: Watch) -> Any:
    """What TensorRT 10 and 11 call while they build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            watch.step(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step + 1, self._steps.get(phase_name, 0))

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()
