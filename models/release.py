"""A release: one trained network with everything needed to run it, judge it and say where it came from."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import msgspec

from models.architecture import Architecture
from models.evaluate import ClassMetrics, PhotoMetrics
from models.taxonomy import Severity

FACTS_FILE = "release.json"
MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "weights.safetensors"
GOLDEN_FILE = "golden.npz"
CARD_FILE = "CARD.md"
ALIASES_FILE = "aliases.json"
CHAMPION = "champion"


class ReleaseError(Exception):
    """A release that must not be used, with the file and what is wrong with it."""


class ReleaseClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One class as this release knows it.

    `trained` is false for a class nobody had labels for: its scores mean nothing, it has no thresholds, and it is shown
    as untrained. `high` opens a region and `low` lets it grow (probabilities); `weight` is the class's importance;
    sizes are those of the taxonomy, in millimetres per pixel and in pixels.
    """

    name: str
    title: str
    severity: Severity
    trained: bool
    high: float | None = None
    low: float | None = None
    coarsest_mm_per_px: float
    min_width_px: float
    weight: float
    recall_floor: float


class Credit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose data a release was trained on, and under which licence."""

    name: str
    licence: str
    credit: str


class ReleaseFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `release.json` says.

    `files` maps a file's name to its sha256, `metrics` a test set's name to a class to its figures, `photos` a class to
    the test photos one by one.
    """

    id: str
    parent: str | None
    created: str
    architecture: Architecture
    classes: tuple[ReleaseClass, ...]
    preprocessing: str
    stem_origin: str
    training: dict[str, str]
    data: tuple[Credit, ...]
    metrics: dict[str, dict[str, ClassMetrics]]
    photos: dict[str, tuple[PhotoMetrics, ...]]
    files: dict[str, str]

    @property
    def tile_size(self) -> int:
        """Side of a tile in pixels."""
        return self.architecture.tile_size

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return tuple(one.name for one in self.classes)

    @property
    def trained(self) -> tuple[bool, ...]:
        """Which classes the scores mean something for."""
        return tuple(one.trained for one in self.classes)


class Release(ReleaseFacts, frozen=True, kw_only=True):
    """A release on disk, its files verified."""

    folder: Path

    def path(self, name: str) -> Path:
        """Where one of its files is; raises ReleaseError if the release does not hold it."""
        if name not in self.files:
            raise ReleaseError(f"{self.folder}: the release holds no {name}")
        return self.folder / name


def load(folder: Path) -> Release:
    """Read and verify a release; raises ReleaseError for a missing, unreadable or changed file."""
    path = folder / FACTS_FILE
    try:
        facts = msgspec.json.decode(path.read_bytes(), type=ReleaseFacts)
    except (OSError, msgspec.DecodeError) as error:
        raise ReleaseError(f"{path}: {error}") from error
    if facts.architecture.classes != len(facts.classes):
        raise ReleaseError(f"{path}: {len(facts.classes)} classes for {facts.architecture.classes} outputs")
    for name, digest in facts.files.items():
        # A digest proves nothing about a file that another release may change.
        if Path(name).name != name:
            raise ReleaseError(f"{path}: {name!r} lies outside the release")
        if digest_of(folder / name) != digest:
            raise ReleaseError(f"{folder / name}: not the file that was released (its sha256 differs)")
    fields = {name: getattr(facts, name) for name in facts.__struct_fields__}
    return Release(**fields, folder=folder)


def write_facts(folder: Path, facts: ReleaseFacts) -> None:
    """Write `release.json`; the digests in it are those of the caller."""
    _write_atomically(folder / FACTS_FILE, msgspec.json.format(msgspec.json.encode(facts), indent=1) + b"\n")


def digest_of(path: Path) -> str:
    """sha256 of a file as hexadecimal digits; raises ReleaseError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ReleaseError(f"{path}: {error.strerror}") from error


class ReleaseStore:
    """A folder of releases, one folder each, and one file that says which alias means which.

    Rule: whoever needs "the current release" resolves an alias once and keeps the id. Trap: resolving again for the
    next tile may give another release in the middle of a photo.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ids(self) -> list[str]:
        """Ids of the releases in the store, sorted."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{FACTS_FILE}"))

    def aliases(self) -> dict[str, str]:
        """alias -> id; empty before the first `point`."""
        path = self.folder / ALIASES_FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise ReleaseError(f"{path}: {error}") from error

    def resolve(self, name: str = CHAMPION) -> str:
        """The id an alias or an id stands for; raises ReleaseError if the store has neither."""
        known = self.ids()
        wanted = self.aliases().get(name, name)
        if wanted not in known:
            raise ReleaseError(f"{self.folder}: no release {wanted!r}; there are {', '.join(known) or 'none'}")
        return wanted

    def open(self, name: str = CHAMPION) -> Release:
        """The verified release behind an alias or an id."""
        wanted = self.resolve(name)
        release = load(self.folder / wanted)
        if release.id != wanted:
            raise ReleaseError(f"{release.folder}: the folder is named {wanted}, the release {release.id}")
        return release

    def point(self, alias: str, release_id: str) -> None:
        """Let an alias mean a release, at once and for every later reader; the release is verified first."""
        if alias in self.ids():
            raise ReleaseError(f"{self.folder}: {alias!r} is a release and cannot be an alias")
        self.open(release_id)
        changed = dict(sorted({**self.aliases(), alias: release_id}.items()))
        _write_atomically(
            self.folder / ALIASES_FILE, msgspec.json.format(msgspec.json.encode(changed), indent=1) + b"\n"
        )


def default_store() -> ReleaseStore:
    """The releases the project ships."""
    return ReleaseStore(Path(__file__).parent / "zoo")


def _write_atomically(path: Path, content: bytes) -> None:
    """A reader sees the old file or the new one, also after a power cut."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new = Path(file.name)
    new.chmod(0o644)
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
