"""A release: one trained network with everything needed to run it, judge it and say where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from models.architecture import Architecture
from models.evaluation.evaluate import ClassMetrics, PhotoMetrics
from models.evaluation.overall import Overall
from models.taxonomy import Severity

FORMAT = 2
CONFIG_FILE = "config.json"
THRESHOLDS_FILE = "thresholds.json"
METRICS_FILE = "metrics.json"
LINEAGE_FILE = "lineage.json"
CARD_FILE = "MODEL_CARD.md"
SIGNATURE_FILE = "model.sig"
MODEL_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
WEIGHTS_FILE = "model.safetensors"
GOLDEN_FILE = "golden.npz"
EVALUATION_FILE = "evaluation.npz"

NEEDED = frozenset(
    {CONFIG_FILE, THRESHOLDS_FILE, METRICS_FILE, LINEAGE_FILE, CARD_FILE, SIGNATURE_FILE, MODEL_FILE, GOLDEN_FILE}
)
OPTIONAL = frozenset({INT8_FILE, WEIGHTS_FILE, EVALUATION_FILE})
"""What a release holds: all of NEEDED, some of OPTIONAL, and no other file."""

FOLDED = "folded"
"""A word in the metadata of WEIGHTS_FILE: `true` where the first convolution divides by 127.5, as of every release."""

CHAMPION = "champion"
ALIASES = ("candidate", "shadow", CHAMPION, "previous")

UINT8_RGB = "uint8-rgb"
PREPROCESSING: Mapping[str, str] = {
    UINT8_RGB: "none outside the network: it takes uint8 RGB tiles [n, side, side, 3], never resized",
}
"""What this code knows to do with pixels before the network sees them: a word for `config.json` -> what it means."""


class ReleaseError(Exception):
    """A release that must not be used, or a change of the store that must not happen, and what is wrong with it."""


class ReleaseClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One class as this release knows it.

    `trained` is false for a class nobody had labels for: its scores mean nothing, it has no thresholds, and it is shown
    as untrained. `high` is the report threshold, it opens a region; `low` is the review threshold, it lets a region
    grow (probabilities). `people`: there were too few positives for a threshold that can be promised, so a person
    decides; `why` says so in words. `weight` is the class's importance; sizes are those of the taxonomy, in millimetres
    per pixel and in pixels.
    """

    name: str
    title: str
    severity: Severity
    trained: bool
    high: float | None = None
    low: float | None = None
    people: bool = False
    why: str = ""
    aashto: int | None = None
    coarsest_mm_per_px: float
    min_width_px: float
    weight: float
    recall_floor: float


class Credit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose data a release was trained on, and under which licence."""

    name: str
    licence: str
    credit: str


class Lineage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a release comes from, so that it can be made again.

    `origin` says whose weights it started from, `training` how it was trained (words for the card), `data` maps what it
    was made from to a sha256 (a manifest or pictures; `textures`, the `base` release, the file of `init` where there
    were such), `seeds` and `versions` are those of the training run. `groups` are marks (models/training/ancestry.py)
    of the groups whose labels it or its base has learned; if classes are trained and there is no mark, nobody knows.
    """

    origin: str
    training: dict[str, str] = {}
    data: dict[str, str] = {}
    seeds: dict[str, int] = {}
    versions: dict[str, str] = {}
    groups: tuple[str, ...] = ()
    credits: tuple[Credit, ...] = ()


class ReleaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a release says of itself, in the four JSON files of its folder.

    `preprocessing` is one of PREPROCESSING; `created` an RFC 3339 time; `metrics` maps a test set's name to a class to
    its figures, `photos` a class to the test photos one by one, `overall` a set to what is said of it as a whole.
    """

    id: str
    parent: str | None
    created: str
    architecture: Architecture
    classes: tuple[ReleaseClass, ...]
    preprocessing: str = UINT8_RGB
    metrics: dict[str, dict[str, ClassMetrics]] = {}
    photos: dict[str, tuple[PhotoMetrics, ...]] = {}
    overall: dict[str, Overall] = {}
    lineage: Lineage

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
    """A release on disk, its files verified; `files` maps a file's name to its sha256."""

    folder: Path
    files: dict[str, str]

    @property
    def digest(self) -> str:
        """One sha256 for all files, for caches: that of the lines `sha256sum` prints for them, sorted by name."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    def path(self, name: str) -> Path:
        """Where one of its files is; raises ReleaseError if the release does not hold it."""
        if name not in self.files:
            raise ReleaseError(f"{self.folder}: the release holds no {name}")
        return self.folder / name
