"""What a release was made from: digests of what went into it, and marks of the groups whose labels it has learned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from models.dataset import Manifest, Part, digest_of
from models.release import Release
from models.sources.scenes import texture_group
from models.training.initial import TIMM, identity
from models.training.orders import TrainOrder
from models.training.recipe import RecipeError
from models.training.train import Lessons

MARK = 16  # hex digits: among a million groups two share one by a chance of 1 in 37 million
NO_FILES = digest_of([])
ADVICE = "start from a base that was told no label (`spanwatch pretrain`)"


def marks(groups: Iterable[str]) -> tuple[str, ...]:
    """One mark for each group, sorted: the first digits of its name's sha256.

    They go wherever the release goes, so they are no names, which tell of a site. That a name somebody has guessed is
    among them can still be seen.
    """
    return tuple(sorted({hashlib.sha256(group.encode()).hexdigest()[:MARK] for group in groups}))


def sources(order: TrainOrder, lessons: Lessons) -> dict[str, str | None]:
    """What a run is made from beside its manifest, by what tells each from another; None for what there is none of."""
    return {
        "textures": digest_of(lessons.composer.surfaces.files) if lessons.composer else None,
        "base": order.base.digest if order.base else None,
        "init": identity(order.init),
    }


def digests(found: Mapping[str, str | None]) -> dict[str, str]:
    """Those sources that are files here: a name of weights that are kept elsewhere, or of nothing, is no digest."""
    return {name: one for name, one in found.items() if one and one != NO_FILES and not one.startswith(TIMM)}


def learned(order: TrainOrder, lessons: Lessons) -> tuple[str, ...]:
    """Marks of the groups that a network has learned from after these lessons, those of its base among them.

    None at all if nobody knows which its base has learned from: a list that is not whole would pass for one that is.
    """
    if _keeps_no_list(order.base):
        return ()
    textures = lessons.composer.surfaces.files if lessons.composer else ()
    own = marks([*lessons.manifest.groups, *(texture_group(file.name) for file in textures)])
    return tuple(sorted({*own, *(order.base.lineage.groups if order.base else ())}))


def demand_unseen(order: TrainOrder, split: Mapping[Part, Manifest]) -> None:
    """Refuse a base that was told labels of what is to choose this run's thresholds, or to test it.

    Raises:
        RecipeError: it was; or a fold is asked for, which no earlier split keeps apart, and nobody knows.
    """
    if order.base is None:
        return
    if order.fold and _keeps_no_list(order.base):
        raise RecipeError(
            f"the base {order.base.id} does not say which groups it was trained on, and a fold may test on any of "
            f"them: {ADVICE}, or leave out --fold"
        )
    seen = set(order.base.lineage.groups)
    for part in ("validation", "test"):
        met = [group for group in sorted(set(split[part].groups)) if seen.intersection(marks([group]))]
        if met:
            raise RecipeError(
                f"the base {order.base.id} was trained on {len(met)} of the groups of the {part} part, such as "
                f"{met[0]}, and the figures would be too good: {ADVICE}, or split as it was split; if these are other "
                "photos, give their groups other names"
            )


def doubt(order: TrainOrder) -> str:
    """What the card has to say of a base whose pictures may be in the test part; nothing, if none can be."""
    if order.base and _keeps_no_list(order.base):
        return f"{order.base.id} does not say which groups it was trained on: some may be in the test part"
    if order.base and order.fold and not order.base.lineage.groups:
        return f"{order.base.id} knew of no fold: it may have seen pictures of the test part, without their labels"
    return ""


def _keeps_no_list(base: Release | None) -> bool:
    """Whether a base has learned labels and does not say whose: it is older than the list, or was made elsewhere."""
    return base is not None and not base.lineage.groups and any(base.trained)
