"""The card of a release: what it can do and what it cannot, in the figures that were measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from models.evaluate import ClassMetrics, PhotoMetrics
from models.release import ReleaseFacts

FEW = 10  # photos showing a class; with fewer the figures say little, and the card says so


def card(facts: ReleaseFacts) -> str:
    """CARD.md, generated; nothing in it is written by hand."""
    sections = [
        f"# {facts.id}\n\n{_summary(facts)}",
        "## Classes\n\n" + _classes(facts),
        "## Test figures\n\n" + _figures(facts),
        *(f"## Test photos, one by one: {name}\n\n" + _photos(rows) for name, rows in facts.photos.items()),
        "## Limits\n\n" + _limits(facts),
        "## Origin and credits\n\n" + _origin(facts),
    ]
    return "\n\n".join(sections) + "\n"


def _summary(facts: ReleaseFacts) -> str:
    shape = facts.architecture
    training = "; ".join(f"{name}: {value}" for name, value in facts.training.items())
    return (
        f"Tiles of {shape.tile_size} px in; a probability per class and an embedding of {shape.width} numbers out. "
        f"Convolutional stem to stride {shape.stride}, {shape.depth} transformer blocks of width {shape.width}, mean "
        f"pooling. Made {facts.created}; parent: {facts.parent or 'none'}.\n\nPreprocessing: {facts.preprocessing}.\n\n"
        f"Training: {training}."
    )


def _classes(facts: ReleaseFacts) -> str:
    rows = [
        (
            one.title,
            "yes" if one.trained else "**no: untrained**",
            _number(one.high),
            _number(one.low),
            one.severity,
            f"{one.coarsest_mm_per_px:g}",
        )
        for one in facts.classes
    ]
    return _table(("class", "trained", "high", "low", "severity", "coarsest mm/px"), rows)


def _figures(facts: ReleaseFacts) -> str:
    rows = [
        (
            source,
            name,
            f"{one.positives} / {one.negatives}",
            f"{one.photos_present} of {one.photos}",
            _area(one),
            _number(one.average_precision),
            _number(one.recall),
            _number(one.precision),
            _number(one.false_alarm_share),
        )
        for source, by_class in facts.metrics.items()
        for name, one in by_class.items()
    ]
    head = ["set", "class", "tiles with / without", "photos with it", "AUROC (95 %)", "AP", "recall", "precision"]
    head.append("false alarms")
    return (
        "On photos that neither training nor the choice of thresholds has seen. The interval is a bootstrap over "
        "photos. Recall, precision and false alarms (share of the tiles without the defect) are at the `high` "
        "threshold. The set `all` mixes easy scenes with hard walls: read the others.\n\n" + _table(head, rows)
    )


def _area(one: ClassMetrics) -> str:
    if one.auroc is None:
        return "-"
    span = one.auroc_interval
    return f"{one.auroc:.3f}" + (f" ({span.low:.3f} to {span.high:.3f})" if span else "")


def _photos(photos: Sequence[PhotoMetrics]) -> str:
    rows = [
        (one.photo, str(one.tiles), str(one.present), str(one.found), str(one.false_alarms), _number(one.auroc))
        for one in photos
        if one.present or one.false_alarms
    ]
    quiet = [one for one in photos if not one.present and not one.false_alarms]
    table = _table(("photo", "tiles", "with the defect", "of these found", "false alarms", "AUROC"), rows)
    return f"{table}\n\n{len(quiet)} more photos ({sum(one.tiles for one in quiet)} tiles) show none and raised none."


def _limits(facts: ReleaseFacts) -> str:
    lines = [
        f"Fooled: {name} is called on {one.false_alarms} of {one.tiles} tiles of {one.photo}, which shows none."
        for name, photos in facts.photos.items()
        for one in photos
        if one.present == 0 and one.false_alarms > one.tiles / 4
    ]
    for one in facts.classes:
        seen = facts.metrics.get("all", {}).get(one.name)
        if not one.trained:
            lines.append(f"{one.title}: nobody had labels for it. Its scores mean nothing and are masked.")
        elif seen is None or seen.photos_present < FEW:
            count = seen.photos_present if seen else 0
            lines.append(
                f"{one.title}: only {count} test photos show it; take its figures as a hint, not as a promise."
            )
    lines += [
        "Test photos come from the same campaigns as the training photos (other photos, often of the same structures). "
        "On another structure, another camera or another distance expect less.",
        "Labels are their authors': hairlines are missed in places and joints marked as cracks.",
        "A label says that a tile shows the defect somewhere, not where, and nothing about width or depth.",
        "A tile that nobody labelled for a class counts as part of a tile without it, in training and for thresholds.",
        "Negatives beyond the labelled photos are drone frames and textures judged free of the defects by us.",
    ]
    return _list(lines)


def _origin(facts: ReleaseFacts) -> str:
    return _list(
        [
            f"Stem weights: {facts.stem_origin}.",
            *(f"{one.name} ({one.licence}): {one.credit}." for one in facts.data),
            "The golden tiles in this release are cut from those sources and keep their licences.",
        ]
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
