"""The ways in which this machine could run a release, the likely fastest first; which one is, others measure."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from models.engines.gpu.driver import driver_obstacle
from models.engines.gpu.opening import OnCard, open_tensorrt, this_device, this_library
from models.engines.gpu.watch import Heed
from models.engines.openvino import PRECISIONS, OpenVinoEngine, OpenVinoOptions, Precision
from models.engines.processor import has_bf16
from models.engines.protocol import Engine, EngineError
from models.engines.tensorrt import TENSORRT_PRECISIONS
from models.release import INT8_FILE, Release

Backend = Literal["tensorrt", "torch", "openvino"]
AnyPrecision = Literal["f32", "f16", "bf16", "int8", "fp8"]


def default_folder() -> Path:
    """Where measurements and plans are kept unless somebody says otherwise: `~/.cache/spanwatch`, by the XDG rule."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spanwatch"


@dataclass(frozen=True)
class Conditions:
    """What a release is run under here.

    `threads`: cores that a CPU engine may use, None is all of this process; `backend`: no other than this one;
    `folder`: where measurements and plans are kept; `heed` hears how far a compilation is and may end it; `card` is for
    tests.
    """

    threads: int | None = None
    backend: Backend | None = None
    folder: Path = field(default_factory=default_folder)
    heed: Heed | None = None
    card: OnCard | None = None

    def tries(self, backend: Backend) -> bool:
        """Whether engines of this one are tried: it was asked for, or nothing was and what it needs is here."""
        if self.backend is not None:
            return self.backend == backend
        if backend == "openvino":
            return find_spec("openvino") is not None
        there = self.card is not None or driver_obstacle() is None
        return there if backend == "tensorrt" else there and self.card is None and find_spec("timm") is not None

    def card_words(self) -> str:
        """Card, driver and libraries that a measurement belongs to, or what is missing; empty if no card is tried."""
        if not (self.tries("tensorrt") or self.tries("torch")):
            return ""
        try:
            device = self.card.device() if self.card else this_device()
        except EngineError as error:
            return str(error)
        name, _, driver, _ = device.card
        device.close()
        try:
            library = self.card.library if self.card else this_library()
            words = f"TensorRT {library.version}"
        except EngineError as error:
            words = str(error)
        torch = f", torch {version('torch')}" if self.tries("torch") and find_spec("torch") else ""
        return f"{name}, driver {driver}, {words}{torch}"


class Candidate(NamedTuple):
    """An engine in one precision; `open` raises EngineError, with the reason, where it is not to be had."""

    engine: Backend
    precision: AnyPrecision
    open: Callable[[], Engine]

    @property
    def name(self) -> str:
        """For people, and to look it up by."""
        return f"{self.engine} {self.precision}"


def candidates(release: Release, under: Conditions) -> list[Candidate]:
    """All that is installed here, or those of the one backend asked for whether it is or not."""
    found: list[Candidate] = []
    if under.tries("tensorrt"):
        for on_card in TENSORRT_PRECISIONS:
            opened = partial(open_tensorrt, release, on_card, under.folder, under.card, heed=under.heed)
            found.append(Candidate("tensorrt", on_card, opened))
    if under.tries("torch"):
        found += [Candidate("torch", one, partial(_torch, release, one)) for one in ("f16", "bf16")]
    if under.tries("openvino"):
        found += [Candidate("openvino", one, partial(_openvino, release, one, under.threads)) for one in PRECISIONS]
    return found


def _torch(release: Release, precision: Literal["f16", "bf16"]) -> Engine:
    """PyTorch is imported only where there is a card for it."""
    if obstacle := driver_obstacle():
        raise EngineError(obstacle)
    try:
        from models.engines.torch_on_card import open_torch
    except ImportError as error:
        raise EngineError(f"PyTorch is not installed here ({error})") from error
    return open_torch(release, precision)


def _openvino(release: Release, precision: Precision, threads: int | None) -> Engine:
    """What is known without trying comes first."""
    if precision == "bf16" and not has_bf16():
        raise EngineError("the CPU has no bfloat16 arithmetic")
    if precision == "int8" and INT8_FILE not in release.files:
        raise EngineError(f"the release holds no {INT8_FILE}")
    return OpenVinoEngine(release, OpenVinoOptions(precision=precision, streams=threads))
