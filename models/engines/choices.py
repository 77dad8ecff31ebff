"""What an engine's measurement has decided on this machine, kept in a file so that it is measured once."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import msgspec

from models.engines.candidates import AnyPrecision, Backend, Conditions
from models.engines.gate import Judged
from models.engines.openvino import openvino_version
from models.engines.processor import cores, cpu_flags, cpu_model
from models.release import Release
from models.releases.disk import replace_file

FORMAT = 3
"""Of the file and of what is measured: raised when an older measurement means nothing any more."""
KEPT = 32
FILE = "engines.json"


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that a measurement depends on; anything else must not change which precision is the fastest."""

    processor: str
    flags: str
    cores: int
    openvino: str
    """Its version; empty where it is not installed."""
    card: str
    """Graphics card, driver and library, or what is missing of them; empty where there is no card."""
    backend: str
    """The one that was asked for; empty for any."""
    release: str
    """The release's digest."""


class Trial(Judged, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One candidate, and how fast it was."""

    engine: Backend
    precision: AnyPrecision
    tiles_per_second: float | None = None


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The engine and precision that run here, why, and all that was tried."""

    machine: Machine
    release: str
    engine: Backend
    precision: AnyPrecision
    tiles_per_second: float
    why: str
    trials: tuple[Trial, ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: int
    choices: tuple[Choice, ...]


def this_machine(release: Release, under: Conditions) -> Machine:
    """The key of a measurement made here, now."""
    flags = hashlib.sha256(" ".join(sorted(cpu_flags())).encode()).hexdigest()
    return Machine(
        processor=cpu_model(),
        flags=flags[:16],
        cores=under.threads or cores(),
        openvino=openvino_version() if find_spec("openvino") else "",
        card=under.card_words(),
        backend=under.backend or "",
        release=release.digest,
    )


def read_choice(folder: Path, machine: Machine) -> Choice | None:
    """What was decided under the same conditions; None for a file that is missing, or of another format or hand."""
    return next((one for one in _read(folder) if one.machine == machine), None)


def write_choice(folder: Path, choice: Choice) -> None:
    """Keep a decision beside those of other releases and conditions; raises OSError if the folder cannot be written."""
    others = [one for one in _read(folder) if one.machine != choice.machine]
    content = _File(format=FORMAT, choices=(choice, *others)[:KEPT])
    replace_file(folder / FILE, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


def _read(folder: Path) -> tuple[Choice, ...]:
    try:
        found = msgspec.json.decode((folder / FILE).read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError):
        return ()  # a cache that cannot be read is a cache that is empty: it is measured again and written anew
    return found.choices if found.format == FORMAT else ()
