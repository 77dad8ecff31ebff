"""The whole way from pictures to a signed release: what `spanwatch pretrain` and `spanwatch train` do."""

from __future__ import annotations

import datetime
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.architecture import PRESETS, Architecture, with_classes
from models.dataset import Manifest, Part, digest, digest_of, read_manifest, source_of, write_manifest
from models.engines.torch import load_network
from models.release import Credit, Lineage, Release
from models.releases.store import ReleaseStore
from models.sources.convert import CREDITS
from models.taxonomy import Taxonomy, load_taxonomy
from models.training import curve
from models.training.ancestry import demand_unseen, digests, doubt, learned, sources
from models.training.initial import identity, initial, take
from models.training.mean import begin_alike, better_of
from models.training.orders import BaseOrder, TrainOrder
from models.training.parts import composer_of, demand_shippable, parts_of, unseen
from models.training.pretrain import PretrainConfig
from models.training.probe import probe
from models.training.publish import Order, Parts, publish, publish_base
from models.training.recipe import (
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


@dataclass(frozen=True)
class Step:
    """One step of one stage, for whoever watches."""

    stage: str
    step: int
    steps: int
    loss: float


def make_base(order: BaseOrder, run: Path, store: ReleaseStore, key: Path) -> Generator[Step, None, Release]:
    """Pre-train and publish; yields every step, returns the base release, at once if this run has made it already."""
    taxonomy = load_taxonomy(order.taxonomy)
    images, groups = order.pictures.images, order.pictures.groups
    unknown = np.full((len(images), len(taxonomy.names)), np.nan, dtype=np.float32)
    unlabelled = Manifest(taxonomy.names, images, groups, unknown)
    demand_shippable(unlabelled, "these pictures")
    data, init = digest_of(images), identity(order.init)
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
            "init": init,
            "settings": _repeatable(order.settings),
        },
    )
    name, made = promised(run, store, order.release_id, f"{_name(order.shape)}.base.{_month()}")
    if made is not None:
        return made
    start = initial(order.shape, order.settings.seed, order.init)
    yield from _watched(pretrained(images, start, order.settings, run), run)
    network = finished(run / "pretrain.pt", DefectNetwork(order.shape))
    lineage = Lineage(
        origin=_origin(order.init, order.shape),
        training={
            "pre-training": _words(order.settings.steps, order.settings.batch),
            "pictures": str(len(images)),
            **(_probes(order, order.labelled, network, taxonomy.names) if order.labelled else {}),
        },
        data={**digests({"init": init}), "pictures": data},
        seeds={"pre-training": order.settings.seed},
        credits=_credits(groups),
    )
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
    demand_unseen(order, split)
    lessons = _lessons(order, order.settings, split, taxonomy)
    found = sources(order, lessons)
    remember(
        run,
        {
            "shape": order.shape,
            "data": data,
            "taxonomy": taxonomy,
            **found,
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
    parts = Parts(split["train"], split["validation"], split["test"], unseen(lessons.composer))
    start = starting_network(order, order.settings.seed)
    teaching, seeds = None, {"training": order.settings.seed}
    if order.teacher is not None:
        taught = _lessons(order, order.teacher, split, taxonomy)
        teaching = Teaching(taught, starting_network(order, order.teacher.seed), order.teacher)
        seeds["teacher"] = order.teacher.seed
    alike = teaching is not None and begin_alike(start, teaching.start)  # asked now: a run moves what it starts from
    yield from _watched(trained(lessons, start, order.settings, run, teaching), run)
    network, training = finished(run / "train.pt", DefectNetwork(order.shape)), _training(order, parts)
    if alike:
        teacher = finished(run / "teacher.pt", DefectNetwork(order.shape))
        network, training["released"] = better_of(network, teacher, parts.validation)
    lineage = Lineage(
        origin=_origin(order.init, order.shape),
        training=training,
        data={**digests(found), order.manifest.name: data},
        seeds=seeds,
        groups=learned(order, lessons),
        credits=_credits(manifest.groups),
    )
    parent = order.base.id if order.base else None
    return publish(network, parts, Order(taxonomy, name, parent, lineage, store, key))


def _lessons(order: TrainOrder, settings: TrainConfig, split: Mapping[Part, Manifest], taxonomy: Taxonomy) -> Lessons:
    """What a run with these settings learns from: the training part, and composed tiles of its own seed."""
    if not settings.composed_share:
        return Lessons(split["train"])
    return Lessons(split["train"], composer_of(split, taxonomy, order.surfaces, settings.seed))


def starting_network(order: TrainOrder, seed: int) -> DefectNetwork:
    """What training starts from, as it was before the first step; the head is drawn from the seed."""
    network = initial(order.shape, seed, order.init)
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
    return replace(settings, threads=0, save_every=0, device="", compile=False)


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
        words["teacher"] = (
            f"the same from seed {order.teacher.seed}, {_words(order.teacher.steps, order.teacher.batch)}"
        )
    if unsure := doubt(order):
        words["base"] = unsure
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
