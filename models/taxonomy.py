"""The taxonomy: which defects we look for, and what has to be true before we may say that one is absent."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

Severity = Literal["low", "medium", "high"]


class TaxonomyError(ValueError):
    """A taxonomy file that cannot be read, with the place in it that is wrong."""


class Defect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One class of defect; `coarsest_mm_per_px` is in millimetres of the structure per pixel, `min_width_px` in px."""

    name: str
    title: str
    aashto: int | None = None
    importance: float
    recall_floor: float
    min_width_px: float
    coarsest_mm_per_px: float
    severity: Severity


class Taxonomy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The defects in the order of the network's outputs."""

    defects: tuple[Defect, ...] = msgspec.field(name="class")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, in the order of every `[..., classes]` array of the project."""
        return tuple(defect.name for defect in self.defects)

    @property
    def widths(self) -> dict[str, float]:
        """The smallest width in px at which each class can be seen."""
        return {defect.name: defect.min_width_px for defect in self.defects}


def load_taxonomy(path: Path) -> Taxonomy:
    """Read a taxonomy file, strictly: raises TaxonomyError for an unknown key, a missing key, a wrong type or value."""
    try:
        taxonomy = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Taxonomy)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise TaxonomyError(f"{path}: {error}") from error
    for problem in problems_of(taxonomy):
        raise TaxonomyError(f"{path}: {problem}")
    return taxonomy


def problems_of(taxonomy: Taxonomy) -> list[str]:
    """What the types of a taxonomy alone cannot say, as sentences; none is good."""
    found = []
    if not taxonomy.defects:
        found.append("it names no class")
    if len(set(taxonomy.names)) != len(taxonomy.names):
        found.append("two classes carry the same name")
    for defect in taxonomy.defects:
        if not defect.name.isidentifier():
            found.append(f"class `{defect.name}`: a name is letters, digits and underscores")
        if not 0.0 <= defect.recall_floor <= 1.0:
            found.append(f"class `{defect.name}`: recall_floor lies between 0 and 1")
        if min(defect.importance, defect.min_width_px, defect.coarsest_mm_per_px) <= 0.0:
            found.append(f"class `{defect.name}`: importance, min_width_px and coarsest_mm_per_px are above 0")
    return found
