"""The files of a release: how its facts are written into a folder, and what must be true before they are believed."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from models.architecture import Architecture
from models.evaluation.evaluate import ClassMetrics, PhotoMetrics
from models.evaluation.overall import Overall
from models.release import (
    ALIASES,
    CARD_FILE,
    CONFIG_FILE,
    FORMAT,
    GOLDEN_FILE,
    LINEAGE_FILE,
    METRICS_FILE,
    NEEDED,
    OPTIONAL,
    PREPROCESSING,
    SIGNATURE_FILE,
    THRESHOLDS_FILE,
    Lineage,
    Release,
    ReleaseClass,
    ReleaseError,
    ReleaseFacts,
)
from models.releases.disk import digests
from models.taxonomy import Defect, Taxonomy, problems_of

if TYPE_CHECKING:
    from models.releases.signing import Trusted

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
T = TypeVar("T")


class _Header(msgspec.Struct):
    """What every format has in common."""

    format: int


class _Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`config.json`; `classes` is the taxonomy it was trained for, in the order of the outputs."""

    format: int
    id: str
    parent: str | None
    created: str
    architecture: Architecture
    preprocessing: str
    classes: tuple[Defect, ...]


class _Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One class in `thresholds.json`; see ReleaseClass."""

    trained: bool
    high: float | None
    low: float | None
    people: bool
    why: str


class _Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`metrics.json`; see ReleaseFacts."""

    metrics: dict[str, dict[str, ClassMetrics]]
    photos: dict[str, tuple[PhotoMetrics, ...]]
    overall: dict[str, Overall] = {}


def load(folder: Path, trusted: Trusted) -> Release:
    """Verify a release's signature and files, then read what it says of itself.

    Raises ReleaseError: not signed by a trusted key, changed, incomplete, of a newer format, or facts that cannot be.
    """
    from models.releases.signing import verify  # a box where drafts are measured may lack `cryptography`

    return _read(folder, verify(folder, trusted))


def draft(folder: Path) -> Release:
    """A release that nobody has signed yet, to measure it before it is released; nothing else may open one.

    Raises ReleaseError for facts that cannot be. The card and the signature may still be missing.
    """
    return _read(folder, digests(folder), unfinished=frozenset({CARD_FILE}))


def write_facts(folder: Path, facts: ReleaseFacts) -> None:
    """Write the four JSON files; raises ReleaseError for facts that cannot be."""
    for problem in _problems(facts):
        raise ReleaseError(f"release {facts.id}: {problem}")
    classes = tuple(_defect(one) for one in facts.classes)
    config = _Config(
        format=FORMAT,
        id=facts.id,
        parent=facts.parent,
        created=facts.created,
        architecture=facts.architecture,
        preprocessing=facts.preprocessing,
        classes=classes,
    )
    thresholds = {
        one.name: _Thresholds(trained=one.trained, high=one.high, low=one.low, people=one.people, why=one.why)
        for one in facts.classes
    }
    metrics = _Metrics(metrics=facts.metrics, photos=facts.photos, overall=facts.overall)
    nouns = {CONFIG_FILE: config, THRESHOLDS_FILE: thresholds, METRICS_FILE: metrics, LINEAGE_FILE: facts.lineage}
    for name, noun in nouns.items():
        (folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(noun), indent=1) + b"\n")


def check_golden(release: Release) -> None:
    """Raise ReleaseError unless the golden tiles are arrays of the sizes the release promises; nothing is unpickled."""
    path = release.path(GOLDEN_FILE)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as golden:
            tiles, expected = golden["tiles"], golden["probabilities"]
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ReleaseError(f"{path}: no golden tiles: {error}") from error
    side = release.tile_size
    if tiles.dtype != np.uint8 or tiles.shape[1:] != (side, side, 3) or not len(tiles):
        raise ReleaseError(f"{path}: tiles are {tiles.dtype}{list(tiles.shape)}, not uint8[n, {side}, {side}, 3]")
    if expected.dtype != np.float32 or expected.shape != (len(tiles), len(release.classes)):
        raise ReleaseError(
            f"{path}: probabilities are {expected.dtype}{list(expected.shape)}, not "
            f"float32[{len(tiles)}, {len(release.classes)}]"
        )
    if not ((expected >= 0.0) & (expected <= 1.0)).all():
        raise ReleaseError(f"{path}: a probability lies outside 0 to 1")


def defects_to_classes(taxonomy: Taxonomy) -> tuple[ReleaseClass, ...]:
    """The classes of a taxonomy, none of them trained yet."""
    return tuple(
        ReleaseClass(
            name=one.name,
            title=one.title,
            severity=one.severity,
            trained=False,
            aashto=one.aashto,
            coarsest_mm_per_px=one.coarsest_mm_per_px,
            min_width_px=one.min_width_px,
            weight=one.importance,
            recall_floor=one.recall_floor,
        )
        for one in taxonomy.defects
    )


def _read(folder: Path, files: dict[str, str], unfinished: frozenset[str] = frozenset()) -> Release:
    held = files.keys() | {SIGNATURE_FILE}
    if missing := sorted(NEEDED - held - unfinished):
        old = " (releases of the first format, with a release.json, are made again)" if "release.json" in held else ""
        raise ReleaseError(f"{folder}: no release, {', '.join(missing)} is missing{old}")
    if strange := sorted(held - NEEDED - OPTIONAL):
        raise ReleaseError(f"{folder}: {', '.join(strange)} is no file of a release")
    path = folder / CONFIG_FILE
    if (found := _decoded(path, _Header).format) != FORMAT:
        advice = "update spanwatch" if found > FORMAT else "make the release again"
        raise ReleaseError(f"{path}: written in format {found}, this spanwatch reads format {FORMAT}: {advice}")
    config = _decoded(path, _Config)
    thresholds = _decoded(folder / THRESHOLDS_FILE, dict[str, _Thresholds])
    metrics = _decoded(folder / METRICS_FILE, _Metrics)
    if thresholds.keys() != {one.name for one in config.classes}:
        raise ReleaseError(f"{folder / THRESHOLDS_FILE}: not the classes that {CONFIG_FILE} names")
    release = Release(
        id=config.id,
        parent=config.parent,
        created=config.created,
        architecture=config.architecture,
        classes=tuple(_class(one, thresholds[one.name]) for one in config.classes),
        preprocessing=config.preprocessing,
        metrics=metrics.metrics,
        photos=metrics.photos,
        overall=metrics.overall,
        lineage=_decoded(folder / LINEAGE_FILE, Lineage),
        folder=folder,
        files=files,
    )
    for problem in _problems(release):
        raise ReleaseError(f"{folder}: {problem}")
    return release


def _problems(facts: ReleaseFacts) -> Iterator[str]:
    """What the types alone cannot say, as sentences."""
    if not IDENTIFIER.fullmatch(facts.id) or facts.id in {*ALIASES, "keys"}:
        yield f"{facts.id!r} cannot be the id of a release: letters, digits, dot, dash and underscore, and no alias"
    if facts.preprocessing not in PREPROCESSING:
        known = ", ".join(PREPROCESSING)
        yield f"it wants its pixels prepared as {facts.preprocessing!r}; this spanwatch knows {known}: update spanwatch"
    if facts.architecture.classes != len(facts.classes):
        yield f"{len(facts.classes)} classes for {facts.architecture.classes} outputs"
    yield from problems_of(Taxonomy(tuple(_defect(one) for one in facts.classes)))
    for one in facts.classes:
        if one.trained != (one.high is not None) or one.trained != (one.low is not None):
            yield f"class {one.name}: both thresholds where it is trained, none where it is not"
        elif one.high is not None and one.low is not None and not 0.0 <= one.low <= one.high <= 1.0:
            yield f"class {one.name}: thresholds low {one.low:g}, high {one.high:g} are not 0 <= low <= high <= 1"


def _decoded(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise ReleaseError(f"{path}: {error}") from error


def _defect(one: ReleaseClass) -> Defect:
    return Defect(
        name=one.name,
        title=one.title,
        aashto=one.aashto,
        importance=one.weight,
        recall_floor=one.recall_floor,
        min_width_px=one.min_width_px,
        coarsest_mm_per_px=one.coarsest_mm_per_px,
        severity=one.severity,
    )


def _class(one: Defect, thresholds: _Thresholds) -> ReleaseClass:
    bare = next(iter(defects_to_classes(Taxonomy((one,)))))
    return msgspec.structs.replace(
        bare,
        trained=thresholds.trained,
        high=thresholds.high,
        low=thresholds.low,
        people=thresholds.people,
        why=thresholds.why,
    )
