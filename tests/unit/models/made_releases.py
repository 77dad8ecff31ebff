"""Small releases for tests: everything is there and real, but the network, which nobody opens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from models.architecture import Architecture
from models.release import CONFIG_FILE, GOLDEN_FILE, MODEL_FILE, Lineage, Release, ReleaseClass, ReleaseFacts
from models.releases.folder import draft, write_facts

if TYPE_CHECKING:
    from models.releases.store import ReleaseStore

SIDE = 4


@dataclass(frozen=True)
class Site:
    """A folder with a key pair, which is the one it trusts, and a store."""

    folder: Path

    @property
    def key(self) -> Path:
        from models.releases.signing import key_in

        return key_in(self.folder / "keys", "site").private

    @property
    def keys(self) -> Path:
        return self.key.parent

    @property
    def store(self) -> ReleaseStore:
        from models.releases.signing import read_keys
        from models.releases.store import ReleaseStore

        return ReleaseStore(self.folder / "store", read_keys(self.keys))

    def make(self, name: str, **changes: Any) -> Release:
        from models.releases.writing import NewRelease, write_release

        facts = made_facts(name, **changes)
        new = NewRelease(facts, partial(made_files, classes=len(facts.classes)))
        return write_release(self.store, new, self.key)

    def forge(self, name: str, file: str, change: Callable[[Any], Any]) -> Path:
        """A release in the store whose JSON file was changed by someone who holds the key."""
        from models.releases.signing import sign

        folder = self.store.folder / name
        old = msgspec.json.decode((folder / file).read_bytes())
        (folder / file).write_bytes(msgspec.json.encode(change(old)))
        sign(folder, self.key)
        return folder

    def forge_config(self, name: str, **changes: Any) -> Path:
        return self.forge(name, CONFIG_FILE, lambda old: {**old, **changes})


def made_class(name: str = "crack", **changes: Any) -> ReleaseClass:
    words = {"title": name.capitalize(), "severity": "low", "trained": True, "high": 0.6, "low": 0.3}
    sizes = {"coarsest_mm_per_px": 2.0, "min_width_px": 1.0, "weight": 1.0, "recall_floor": 0.8}
    return ReleaseClass(name=name, **{**words, **sizes, **changes})


def made_facts(name: str, classes: tuple[ReleaseClass, ...] = (made_class(),), **changes: Any) -> ReleaseFacts:
    facts = ReleaseFacts(
        id=name,
        parent=None,
        created="2026-11-01T00:00:00Z",
        architecture=Architecture(classes=len(classes), tile_size=SIDE),
        classes=classes,
        lineage=Lineage(origin="nowhere"),
    )
    return msgspec.structs.replace(facts, **changes)


def made_files(folder: Path, classes: int = 1) -> None:
    """A model file that nobody opens, and two golden tiles."""
    (folder / MODEL_FILE).write_bytes(b"weights")
    (folder / MODEL_FILE).chmod(0o600)  # as some libraries leave them
    tiles = np.zeros((2, SIDE, SIDE, 3), dtype=np.uint8)
    np.savez(folder / GOLDEN_FILE, tiles=tiles, probabilities=np.full((2, classes), 0.5, dtype=np.float32))


def unsigned(folder: Path, facts: ReleaseFacts, files: Callable[[Path], None]) -> Release:
    """A release that nobody has signed: a box with a graphics card may lack what signs."""
    folder.mkdir(parents=True)
    files(folder)
    write_facts(folder, facts)
    return draft(folder)
