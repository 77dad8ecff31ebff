"""The card of a release: what it is for, what it can do and what it cannot, in the figures that were measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from models.evaluation.evaluate import ClassMetrics, PhotoMetrics
from models.evaluation.measures import Interval
from models.evaluation.overall import Overall, Share
from models.release import PREPROCESSING, ReleaseClass, ReleaseFacts

FEW = 10  # photos showing a class; with fewer the figures say little, and the card says so
EVERYTHING = "all"

USE = (
    "Triage of close photographs of concrete structures: it says where an engineer should look first. It certifies "
    "nothing and replaces no inspection: a tile that is not called is not thereby sound, and a score is the "
    "probability that a tile shows the defect, not a measure of how bad the damage is. Not for other materials, for "
    "photos from farther away than the table below allows, or for decisions without a person."
)


def card(facts: ReleaseFacts) -> str:
    """MODEL_CARD.md, generated from the release's files; only a remark in its lineage was somebody's sentence."""
    sections = {
        facts.id: _summary(facts),
        "Intended use": USE,
        "Classes": _classes(facts),
        "A person decides": _people(facts),
        "Test figures": _figures(facts.metrics),
        "Test sets as a whole": _wholes(facts.overall),
        **{f"Test photos, one by one: {name}": _photos(rows) for name, rows in facts.photos.items()},
        "Known failures and limits": _list(_limits(facts)),
        "Made from": _lineage(facts),
        "Credits": _list(_credits(facts)),
    }
    # A heading is a section's name; the first one is the card's.
    return "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items() if text)[1:] + "\n"


def _summary(facts: ReleaseFacts) -> str:
    shape = facts.architecture
    match shape.kind:
        case "transformer":
            network = (
                f"{shape.depth} transformer blocks of width {shape.width} on {shape.stem} at stride {shape.stride}"
            )
        case "convolution":
            network = f"the convolutional network {shape.stem}"
        case "foreign":
            network = "made elsewhere"
    if shape.seen_size:
        network += f", which enlarges a tile to {shape.seen_size} px first"
    embedding = f" and an embedding of {shape.width} numbers" if shape.width else ""
    return (
        f"Tiles of {shape.tile_size} px in; a probability per class{embedding} out. The network: {network}. Pixels: "
        f"{PREPROCESSING[facts.preprocessing]}. Made {facts.created}; parent: {facts.parent or 'none'}."
    )


def _classes(facts: ReleaseFacts) -> str:
    rows = [
        (
            one.title,
            str(one.aashto or "-"),
            "yes" if one.trained else "**no: untrained**",
            _number(one.high),
            _number(one.low),
            one.severity,
            f"{one.min_width_px:g}",
            f"{one.coarsest_mm_per_px:g}",
            f"{one.weight:g}",
        )
        for one in facts.classes
    ]
    head = ("class", "AASHTO", "trained", "reported from", "reviewed from", "severity", "smallest px", "coarsest mm/px")
    return _table((*head, "importance"), rows)


def _people(facts: ReleaseFacts) -> str:
    """Which classes carry no promise and why, and what the others promise."""
    handed = [one for one in facts.classes if one.people]
    kept = [one for one in facts.classes if one.trained and not one.people]
    lines = [f"{one.title}: {one.why or 'nobody has measured it'}." for one in handed]
    text = "No class: every trained class has thresholds that its validation tiles bear out."
    if handed:
        text = "For these classes no threshold can be promised, so a person decides on every call:\n\n" + _list(lines)
    if kept:
        text += (
            "\n\nThe other thresholds hold on average for tiles that could have been drawn with the validation tiles "
            "(conformal risk control of the misses); another structure, camera or season is not covered:\n\n"
        ) + _list(f"{one.title}: {one.why or 'the release does not say how they were chosen'}." for one in kept)
    return text


def _figures(metrics: Mapping[str, Mapping[str, ClassMetrics]]) -> str:
    """One row per test set and class; classes without thresholds have counts only."""
    if not metrics:
        return "**Never evaluated.** Run `spanwatch evaluate` on labelled tiles before trusting it."
    rows = [_figure_row(source, name, one) for source, found in metrics.items() for name, one in found.items()]
    head = ["set", "class", "tiles with / without", "groups with it", "AUROC (95 %)", "AP"]
    head += ["recall (95 %)", "precision", "F2", "false alarms", "review: recall (95 %)", "review: false alarms"]
    return (
        "On groups (photos) that neither training nor the choice of thresholds has seen; `spanwatch evaluate` gives "
        "the same on the same tiles. Intervals are a bootstrap over groups, none where fewer than two show the class. "
        "Recall, precision, F2 and false alarms (share of the tiles without the defect) are at the report threshold, "
        "then at the review threshold. The set `all` mixes easy scenes with hard walls: read the others.\n\n"
        + _table(head, rows)
    )


def _figure_row(source: str, name: str, one: ClassMetrics) -> Sequence[str]:
    review = one.review
    return (
        source,
        name,
        f"{one.positives} / {one.negatives}",
        f"{one.photos_present} of {one.photos}",
        _spanned(one.auroc, one.auroc_interval),
        _number(one.average_precision),
        _spanned(one.recall, one.recall_interval),
        _number(one.precision),
        _number(one.f2),
        _number(one.false_alarm_share),
        _spanned(review.recall, review.recall_interval) if review else "-",
        _number(review.false_alarm_share) if review else "-",
    )


def _wholes(overall: Mapping[str, Overall]) -> str:
    """One row per test set; empty where nothing is known."""
    rows = [
        (
            name,
            f"{one.tiles} in {one.groups}",
            _number(one.macro.auroc),
            _number(one.macro.weighted_f2),
            f"{_number(one.clean.report_tiles.share)}, {_of(one.clean.review_tiles)}",
            f"{_number(one.clean.report_groups.share)}, {_of(one.clean.review_groups)}",
            _of(one.exact_match.all_known),
        )
        for name, one in overall.items()
    ]
    if not rows:
        return ""
    head = ["set", "tiles in groups", "mean AUROC", "F2 by importance"]
    head += ["clean tiles that alarm", "clean groups that alarm", "tiles wholly right"]
    return (
        "A tile or group is clean where every known label is 0; it alarms when any trained class is called: at the "
        "report thresholds, then at the review thresholds. F2 is weighted by the importance of the classes. The last "
        "column is the share of the tiles labelled for every trained class that are called rightly for all of them."
        "\n\n" + _table(head, rows) + _extents(overall)
    )


def _extents(overall: Mapping[str, Overall]) -> str:
    """By how many tiles are called; nothing of releases made before that was counted."""
    counted = {name: one.extents for name, one in overall.items() if one.extents}
    if not counted:
        return ""
    rows = [
        (f"{name}: {words}", *(_of(getattr(one, field)) for one in found))
        for name, found in counted.items()
        for field, words in (("clean", "clean groups"), ("showing", "groups with a defect"))
    ]
    least = next(iter(counted.values()))
    head = ("groups that raise an alert", *(f"{one.least_tiles} or more tiles" for one in least))
    words = "By how many tiles have to show one class, one of them at its report and all at its review threshold:"
    return f"\n\n{words}\n\n{_table(head, rows)}"


def _photos(photos: Sequence[PhotoMetrics]) -> str:
    rows = [
        (one.photo, str(one.tiles), str(one.present), str(one.found), str(one.false_alarms), _number(one.auroc))
        for one in photos
        if one.present or one.false_alarms
    ]
    quiet = [one for one in photos if not one.present and not one.false_alarms]
    table = _table(("photo", "tiles", "with the defect", "of these found", "false alarms", "AUROC"), rows)
    return f"{table}\n\n{len(quiet)} more photos ({sum(one.tiles for one in quiet)} tiles) show none and raised none."


def _limits(facts: ReleaseFacts) -> Iterator[str]:
    """What went wrong on the test photos, then what is true of every release made this way."""
    for name, photos in facts.photos.items():
        for one in photos:
            if one.present == 0 and one.false_alarms > one.tiles / 4:
                yield f"Fooled: {name} is called on {one.false_alarms} of {one.tiles} tiles of {one.photo}, without it."
            if one.present >= 5 and one.found < one.present / 2:
                yield f"Missed: {name} is called on {one.found} of {one.present} tiles of {one.photo} that show it."
    for about in facts.classes:
        yield from _doubts(about, facts.metrics.get(EVERYTHING, {}).get(about.name))
    yield (
        "Test photos come from the same campaigns as the training photos (other photos, often of the same structures). "
        "On another structure, another camera or another distance expect less."
    )
    yield "Labels are their authors': hairlines are missed in places and joints marked as cracks."
    yield "A label says that a tile shows the defect somewhere, not where, and nothing about width or depth."
    yield "A tile that nobody labelled for a class counts as part of a tile without it, in training and for thresholds."
    yield "Negatives beyond the labelled photos are drone frames and textures judged free of the defects by us."


def _doubts(about: ReleaseClass, seen: ClassMetrics | None) -> Iterator[str]:
    if not about.trained:
        yield f"{about.title}: nobody had labels for it. Its scores mean nothing and are masked."
    elif seen is None or seen.photos_present < FEW:
        shown = seen.photos_present if seen else 0
        photos = "photo shows" if shown == 1 else "photos show"
        yield f"{about.title}: only {shown} test {photos} it; take its figures as a hint, not as a promise."


def _lineage(facts: ReleaseFacts) -> str:
    lineage = facts.lineage
    lines = [f"Weights it started from: {lineage.origin}.", f"Parent: {facts.parent or 'none'}."]
    lines += [f"{name}: {value}." for name, value in lineage.training.items()]
    lines += [f"Data `{name}`: sha256 `{digest}`." for name, digest in lineage.data.items()]
    for name, noun in (("Seeds", lineage.seeds), ("Versions", lineage.versions)):
        if noun:
            lines.append(f"{name}: " + ", ".join(f"{key} {value}" for key, value in noun.items()) + ".")
    return _list(lines)


def _credits(facts: ReleaseFacts) -> Iterator[str]:
    for one in facts.lineage.credits:
        yield f"{one.name} ({one.licence}): {one.credit}."
    yield "The tiles inside this release are cut from its sources and keep their licences."


def _spanned(value: float | None, span: Interval | None) -> str:
    return _number(value) + (f" ({span.low:.3f} to {span.high:.3f})" if span and value is not None else "")


def _of(share: Share) -> str:
    return f"{_number(share.share)} of {share.of}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
