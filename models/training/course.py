"""The whole way from pictures to a signed release: what `spanwatch pretrain` and `spanwatch train` do."""

from __future__ import annotations

import datetime
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.architecture import PRESETS, Architecture, with_classes
from models.dataset import (
    Manifest,
    ManifestError,
    digest,
    digest_of,
    read_manifest,
    source_of,
    write_manifest,
)
from models.engines.torch import load_network
from models.release import Credit, Lineage, Release
from models.releases.store import ReleaseStore
from models.sources.convert import CREDITS
from models.taxonomy import load_taxonomy
from models.training import curve
from models.training.initial import identity, initial, take
from models.training.parts import composer_of, parts_of, unseen
from models.training.precision import usable
from models.training.pretrain import PretrainConfig
from models.training.probe import probe
from models.training.publish import Order, Parts, publish, publish_base
from models.training.recipe import (
    TEACHER,
    Progress,
    RecipeError,
    Teaching,
    finished,
    pretrained,
    promised,
    remember,
    trained,
)
from models.training.train import Lessons, TrainConfig
from models.vit import STEM_ORIGIN, DefectNetwork

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")


@dataclass(frozen=True)
class Step:
    """One step of one stage, for whoever watches."""

    stage: str
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Pictures:
    """Pictures without labels, each once and sorted, and the group of each: a manifest's, or the picture's name."""

    images: tuple[Path, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BaseOrder:
    """What `pretrain` is to make, and from what; see the command's options."""

    pictures: Pictures
    shape: Architecture
    taxonomy: Path
    settings: PretrainConfig
    init: str | None = None
    labelled: Path | None = None
    release_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainOrder:
    """What `train` is to make, and from what; see the command's options."""

    manifest: Path
    shape: Architecture
    taxonomy: Path
    settings: TrainConfig
    teacher: TrainConfig | None
    base: Release | None = None
    init: str | None = None
    surfaces: Path | None = None
    fold: tuple[int, int] | None = None
    release_id: str | None = None
    remark: str = ""


def pretrain_settings(steps: int | None, seed: int, threads: int, device: str) -> PretrainConfig:
    """The defaults, with what was asked for; raises DeviceMissing."""
    base = PretrainConfig(seed=seed, threads=threads, device=usable(device))
    return base if steps is None else replace(base, steps=steps)


def train_settings(
    steps: int | None, seed: int, threads: int, device: str, composed_share: float | None
) -> TrainConfig:
    """The defaults, with what was asked for; raises DeviceMissing."""
    base = TrainConfig(seed=seed, threads=threads, device=usable(device))
    base = base if steps is None else replace(base, steps=steps)
    return base if composed_share is None else replace(base, composed_share=composed_share)


def teacher_settings(steps: int, seed: int, threads: int, device: str) -> TrainConfig | None:
    """The teacher's; None for no steps at all."""
    return replace(TEACHER, steps=steps, seed=seed, threads=threads, device=device) if steps else None


def pictures(sources: Sequence[Path]) -> Pictures:
    """Every picture in some folders and manifests.

    Raises:
        ManifestError: a source that is neither, or none that holds a picture.
    """
    named: dict[Path, str] = {}
    listed: dict[Path, str] = {}
    for source in sources:
        if source.is_dir():
            named |= {path.resolve(): path.stem for path in source.rglob("*") if path.suffix.lower() in PICTURES}
        else:
            manifest = read_manifest(source)
            listed |= {path.resolve(): group for path, group in zip(manifest.images, manifest.groups, strict=True)}
    found = named | listed
    if not found:
        raise ManifestError(f"{', '.join(map(str, sources))}: no picture in there")
    images = tuple(sorted(found))
    return Pictures(images, tuple(found[image] for image in images))


def make_base(order: BaseOrder, run: Path, store: ReleaseStore, key: Path) -> Generator[Step, None, Release]:
    """Pre-train and publish; yields every step, returns the base release, at once if this run has made it already."""
    taxonomy = load_taxonomy(order.taxonomy)
    images, groups = order.pictures.images, order.pictures.groups
    data = digest_of(images)
    if order.shape.kind != "transformer":
        raise RecipeError(
            "pre-training teaches transformer blocks, and this architecture has none: `spanwatch train` starts it from "
            "image-trained weights as it is"
        )
    remember(
        run,
        {
            "shape": order.shape,
            "pictures": data,
            "init": identity(order.init),
            "settings": _repeatable(order.settings),
        },
    )
    name, made = promised(run, store, order.release_id, f"{_name(order.shape)}.base.{_month()}")
    if made is not None:
        return made
    start = initial(order.shape, order.settings.seed, order.init)
    yield from _watched(pretrained(images, start, order.settings, run), run)
    network = finished(run / "pretrain.pt", initial(order.shape, order.settings.seed))
    lineage = Lineage(
        origin=_origin(order.init, order.shape),
        training={
            "pre-training": _words(order.settings.steps, order.settings.batch),
            "pictures": str(len(images)),
            **(_probes(order, order.labelled, network, taxonomy.names) if order.labelled else {}),
        },
        data={"pictures": data},
        seeds={"pre-training": order.settings.seed},
        credits=_credits(groups),
    )
    unknown = np.full((len(images), len(taxonomy.names)), np.nan, dtype=np.float32)
    unlabelled = Manifest(taxonomy.names, images, groups, unknown)
    return publish_base(network, unlabelled, Order(taxonomy, name, None, lineage, store, key))


def _probes(order: BaseOrder, labelled: Path, network: DefectNetwork, classes: tuple[str, ...]) -> dict[str, str]:
    """What two simple readers make of the embeddings, before and after, in words."""
    manifest = read_manifest(labelled, classes)
    before = probe(initial(order.shape, order.settings.seed, order.init), manifest)
    after = probe(network, manifest)
    words = {}
    for name, one in after.items():
        was = before[name]
        words[f"probe of {name}"] = (
            f"AP by neighbours {was.neighbours:.3f} before, {one.neighbours:.3f} after; by a line {was.linear:.3f} "
            f"before, {one.linear:.3f} after ({one.tiles} tiles, chance {one.chance:.3f})"
        )
    return words


def make_release(order: TrainOrder, run: Path, store: ReleaseStore, key: Path) -> Generator[Step, None, Release]:
    """Train and publish; yields every step, returns the release, at once if this run has made it already."""
    taxonomy = load_taxonomy(order.taxonomy)
    manifest = read_manifest(order.manifest, taxonomy.names)
    data = digest(manifest)
    split = parts_of(manifest, order.fold)
    composer = (
        composer_of(split, taxonomy, order.surfaces, order.settings.seed) if order.settings.composed_share else None
    )
    remember(
        run,
        {
            "shape": order.shape,
            "data": data,
            "taxonomy": taxonomy,
            "textures": digest_of(composer.surfaces.files) if composer else None,
            "base": order.base.digest if order.base else None,
            "init": identity(order.init),
            "fold": order.fold,
            "settings": _repeatable(order.settings),
            "teacher": _repeatable(order.teacher) if order.teacher else None,
        },
    )
    name, made = promised(run, store, order.release_id, f"{_name(order.shape)}.{_month()}")
    if made is not None:
        return made
    for part, rows in split.items():
        write_manifest(run / f"{part}.csv", rows)
    parts = Parts(split["train"], split["validation"], split["test"], unseen(composer))
    start = starting_network(order)
    teaching = Teaching(PRESETS["lite2"], order.teacher) if order.teacher else None
    lessons = Lessons(parts.train, composer)
    yield from _watched(trained(lessons, start, order.settings, run, teaching), run)
    network = finished(run / "train.pt", starting_network(order))
    seeds = {"training": order.settings.seed} | ({"teacher": order.teacher.seed} if order.teacher else {})
    lineage = Lineage(
        origin=_origin(order.init, order.shape),
        training=_training(order, parts),
        data={order.manifest.name: data},
        seeds=seeds,
        credits=_credits(manifest.groups),
    )
    parent = order.base.id if order.base else None
    return publish(network, parts, Order(taxonomy, name, parent, lineage, store, key))


def starting_network(order: TrainOrder) -> DefectNetwork:
    """What training starts from, as it was before the first step."""
    network = initial(order.shape, order.settings.seed, order.init)
    if order.base is not None:
        base = load_network(order.base)
        base.fold_preprocessing(False)
        take(network, base.state_dict(), order.base.id)
    return network


def _watched(stages: Iterator[Progress], run: Path) -> Iterator[Step]:
    """Every step, and the curve drawn anew now and then."""
    losses: dict[str, list[float]] = {}
    for at in stages:
        losses[at.stage] = at.state.losses
        if at.state.step == at.steps or at.state.step % 50 == 0:
            curve.draw(losses, run / "curve.png")
        yield Step(at.stage, at.state.step, at.steps, curve.smoothed(at.state.losses[-200:])[-1])


def _repeatable(settings: TrainConfig | PretrainConfig) -> TrainConfig | PretrainConfig:
    """Settings without what changes no weight in principle: a run may go on with other threads."""
    return replace(settings, threads=0, save_every=0, device="")


def _credits(groups: Sequence[str]) -> tuple[Credit, ...]:
    """Of the sources these groups come from."""
    sources = {source_of(group) for group in groups}
    return tuple(credit for name, credit in CREDITS.items() if name in sources)


def _training(order: TrainOrder, parts: Parts) -> dict[str, str]:
    words = {
        "training": _words(order.settings.steps, order.settings.batch),
        "composed": f"{order.settings.composed_share:.0%} of the tiles",
        "tiles": f"{len(parts.train)} train, {len(parts.validation)} validation, {len(parts.test)} test",
    }
    if order.teacher is not None:
        words["teacher"] = f"{PRESETS['lite2'].stem}, {_words(order.teacher.steps, order.teacher.batch)}"
    if order.remark:
        words["remark"] = order.remark.rstrip(".")
    return words


def _words(steps: int, batch: int) -> str:
    return f"{steps} steps of {batch} tiles"


def _origin(init: str | None, shape: Architecture) -> str:
    return init or (STEM_ORIGIN if shape.stem != "patches" else "from nothing")


def _name(shape: Architecture) -> str:
    found = next((name for name in PRESETS if with_classes(name, shape.classes) == shape), "custom")
    return f"{found}-{shape.tile_size}"


def _month() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m")
