"""Which engine a role runs a release in: the settings' backend, precision and cores, or what measured fastest here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from models.engines.autopilot import Opened, open_chosen
from models.engines.candidates import AnyPrecision, Backend, Conditions, default_folder
from models.engines.gpu.watch import Heed
from models.engines.protocol import EngineError
from models.release import Release
from stream.config import EngineSection
from stream.errors import Broken, Misuse


def precision_of(name: str) -> AnyPrecision | Literal["auto"]:
    """The configured precision; raises Misuse if there is none of that name."""
    match name:
        case "auto" | "f32" | "f16" | "bf16" | "int8" | "fp8":
            return name
    raise Misuse(f"engine.precision is auto, f32, f16, bf16, int8 or fp8, not {name!r}")


def backend_of(name: str) -> Backend | None:
    """The configured backend, None for any; raises Misuse if there is none of that name."""
    match name:
        case "auto":
            return None
        case "tensorrt" | "torch" | "openvino":
            return name
    raise Misuse(f"engine.backend is auto, tensorrt, torch or openvino, not {name!r}")


def conditions_of(section: EngineSection, threads: int | None = None, heed: Heed | None = None) -> Conditions:
    """What the settings say a release runs under; `threads` goes before theirs."""
    return Conditions(
        threads=threads or section.threads or None,
        backend=backend_of(section.backend),
        folder=Path(section.cache) if section.cache else default_folder(),
        heed=heed,
    )


def opened(release: Release, section: EngineSection) -> Opened:
    """The engine for a verified release, and why it is this one.

    The first time on a machine, with `auto`, it measures which one that is: seconds on a CPU, minutes where plans for a
    graphics card are compiled.

    Raises:
        Misuse: a setting that means nothing.
        Broken: no engine here runs the release and says what it should.
    """
    try:
        return open_chosen(release, precision_of(section.precision), conditions_of(section))
    except EngineError as error:
        raise Broken(f"release {release.id}: {error}") from error
