"""Keeps what a card's compiler has made, so that it is made once: a plan is found by all that it depends on, or not.

Compiling a network takes minutes, and what comes of it runs on the very library, card and driver it was made with. A
plan of anything else is not a plan: it is not found, and a new one is built.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import msgspec

from models.engines.gpu.device import Card
from models.releases.disk import locked, replace_file

FORMAT = 1
"""Of the file and of how a graph is compiled: raised when a plan of before is not what would be built today."""
PLANS_FOLDER = "plans"
KEPT = 16
"""Plans in a folder; the ones that were read the longest ago go first."""


class PlanKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that a plan depends on."""

    library: str
    """Name and version of what compiled it."""
    card: str
    capability: tuple[int, int]
    driver: str
    graph: str
    """SHA-256 of the ONNX file, and of the one behind it that ranges are taken from, if any."""
    precision: str
    buckets: tuple[int, ...]
    format: int = FORMAT

    @classmethod
    def of(cls, card: Card, library: str, graph: bytes, precision: str, buckets: tuple[int, ...]) -> PlanKey:
        """That of a graph compiled here, now."""
        return cls(
            library=library,
            card=card.name,
            capability=card.capability,
            driver=card.driver,
            graph=hashlib.sha256(graph).hexdigest(),
            precision=precision,
            buckets=buckets,
        )

    @property
    def name(self) -> str:
        """Of its file."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32] + ".plan"

    @property
    def timing_name(self) -> str:
        """Of the file of kernel timings, which plans of one library, card and driver share."""
        words = msgspec.json.encode((self.library, self.card, self.capability, self.driver, self.format))
        return hashlib.sha256(words).hexdigest()[:32] + ".timing"


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    key: PlanKey
    digest: str


class Plans:
    """A folder of plans; several processes may use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / PLANS_FOLDER

    def read(self, key: PlanKey) -> bytes | None:
        """The plan made under exactly these conditions; None if there is none, or its file is damaged."""
        path = self._folder / key.name
        try:
            line, _, plan = path.read_bytes().partition(b"\n")
            head = msgspec.json.decode(line, type=_Head)
        except (OSError, msgspec.DecodeError):
            return None
        if head.key != key or head.digest != hashlib.sha256(plan).hexdigest():
            return None
        with contextlib.suppress(OSError):  # a folder that can only be read keeps its order
            path.touch()
        return plan

    def write(self, key: PlanKey, plan: bytes) -> None:
        """Keep a plan: written aside, then renamed. Raises OSError where nothing can be written."""
        head = _Head(key=key, digest=hashlib.sha256(plan).hexdigest())
        with locked(self._folder):
            replace_file(self._folder / key.name, msgspec.json.encode(head) + b"\n" + plan)
            found = sorted(self._folder.glob("*.plan"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
            for path in found[KEPT:]:
                path.unlink()

    def timing(self, key: PlanKey) -> bytes:
        """What was timed on this card before, empty if nothing was: a second build takes a fraction of the first."""
        try:
            return (self._folder / key.timing_name).read_bytes()
        except OSError:
            return b""

    def write_timing(self, key: PlanKey, timing: bytes) -> None:
        """Keep timings. Raises OSError where nothing can be written."""
        with locked(self._folder):
            replace_file(self._folder / key.timing_name, timing)
