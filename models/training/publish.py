"""From a finished run to a release: calibrate, choose thresholds, export, quantise, measure, and sign."""

from __future__ import annotations

import datetime
import io
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from models.dataset import Manifest, read_tile
from models.engines.openvino import OpenVinoEngine
from models.evaluation.calibration import calibrate
from models.evaluation.scoring import judge, read_ahead, score_manifest
from models.evaluation.thresholds import choose, choose_without_photos
from models.quantizing.quantize import quantize
from models.release import (
    EVALUATION_FILE,
    INT8_FILE,
    MODEL_FILE,
    Lineage,
    Release,
    ReleaseClass,
    ReleaseFacts,
)
from models.releases.folder import defects_to_classes, draft, write_facts
from models.releases.store import ReleaseStore
from models.releases.writing import NewRelease, write_release
from models.synthesis import Composed
from models.taxonomy import Taxonomy
from models.training.export import reference, round_weights, write_golden, write_onnx, write_weights
from models.training.parts import shippable
from models.vit import DefectNetwork

GOLDEN_TILES = 24
EVALUATION_TILES = 600
SNAPPING_TILES = 100
QUANTIZING_TILES = 300
# A tile nobody labelled for a class counts as one without it: in calibration as much as in training, and for the same
# reason; for thresholds more, because on a site a defect is rarer than among photos that were taken because of it.
UNKNOWN_WEIGHT = 0.05
UNKNOWN_WEIGHT_OF_THRESHOLDS = 0.2
RECORDED = ("spanwatch", "torch", "timm", "numpy", "opencv-python-headless", "openvino", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Order:
    """What release to make: the taxonomy it serves, its id and parent, where it comes from, and who signs it."""

    taxonomy: Taxonomy
    id: str
    parent: str | None
    lineage: Lineage
    store: ReleaseStore
    key: Path


@dataclass(frozen=True)
class Parts:
    """The training, validation and test parts of one manifest, and composed tiles that were not trained on.

    Composed tiles choose thresholds of classes that no photo shows; no figure rests on them.
    """

    train: Manifest
    validation: Manifest
    test: Manifest
    composed: Sequence[Composed] = ()


def publish(network: DefectNetwork, parts: Parts, order: Order) -> Release:
    """Write a release into a store.

    Calibration and thresholds come from the validation part, every figure of the card from the test part, measured on
    the files that are shipped; the numbers of the int8 file from training tiles.
    """
    rounded = round_weights(network, read_tiles(some_of(parts.train, SNAPPING_TILES), network.shape.tile_size))
    classes = calibrated(rounded, parts, order.taxonomy)
    with tempfile.TemporaryDirectory(prefix="spanwatch-release-") as name:
        folder = Path(name)
        _write_models(rounded, folder, parts.train, some_of(parts.test, GOLDEN_TILES))
        write_evaluation(rounded, folder, parts.test)
        facts = _facts(order, rounded, classes)
        write_facts(folder, facts)
        engine = OpenVinoEngine(draft(folder))
        judgement = judge(score_manifest(engine, parts.test), parts.test, classes)
        engine.close()
        facts = msgspec.structs.replace(
            facts, metrics=judgement.metrics, photos=judgement.photos, overall=judgement.overall
        )
        return write_release(order.store, NewRelease(facts, folder), order.key)


def publish_base(network: DefectNetwork, unlabelled: Manifest, order: Order) -> Release:
    """Write a release that has learned no class: for `train --base`, and for whoever wants its embeddings."""
    rounded = round_weights(network, read_tiles(some_of(unlabelled, SNAPPING_TILES), network.shape.tile_size))
    with tempfile.TemporaryDirectory(prefix="spanwatch-release-") as name:
        _write_models(rounded, Path(name), unlabelled, some_of(unlabelled, GOLDEN_TILES))
        facts = _facts(order, rounded, defects_to_classes(order.taxonomy))
        return write_release(order.store, NewRelease(facts, Path(name)), order.key)


def _write_models(rounded: DefectNetwork, folder: Path, train: Manifest, golden: Manifest) -> None:
    size = rounded.shape.tile_size
    tiles = read_tiles(golden, size)
    write_weights(rounded, folder)
    write_onnx(rounded, folder, tiles)
    write_golden(rounded, folder, tiles)
    quantize(folder / MODEL_FILE, read_tiles(some_of(train, QUANTIZING_TILES), size), folder / INT8_FILE)


def _facts(order: Order, network: DefectNetwork, classes: tuple[ReleaseClass, ...]) -> ReleaseFacts:
    return ReleaseFacts(
        id=order.id,
        parent=order.parent,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        architecture=network.shape,
        classes=classes,
        lineage=msgspec.structs.replace(order.lineage, versions=versions()),
    )


def versions() -> dict[str, str]:
    """Of spanwatch, and of the libraries that a release's numbers depend on."""
    found = {}
    for name in RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # it had no part in this
    return found


def calibrated(network: DefectNetwork, parts: Parts, taxonomy: Taxonomy) -> tuple[ReleaseClass, ...]:
    """Calibrate the network in place and describe its classes; one that it has learned nothing of is untrained."""
    validation, composed = parts.validation, parts.composed
    logits = logits_of(network, read_ahead(validation.images, network.shape.tile_size))
    affine = calibrate(logits, validation.labels, UNKNOWN_WEIGHT)
    network.scale.copy_(torch.from_numpy(affine.scale))
    network.bias.copy_(torch.from_numpy(affine.bias))
    probabilities = affine.probabilities(logits)
    on_composed = affine.probabilities(logits_of(network, [one.tile for one in composed])) if composed else None
    classes = []
    for column, one in enumerate(defects_to_classes(taxonomy)):
        labels = validation.labels[:, column]
        painted = np.array([tile.labels[column] for tile in composed], dtype=np.float32)
        if (parts.train.labels[:, column] == 1).any() and (labels == 1).any() and (labels == 0).any():
            chosen = choose(
                probabilities[:, column], labels, validation.groups, one.recall_floor, UNKNOWN_WEIGHT_OF_THRESHOLDS
            )
        elif on_composed is not None and (painted == 1).any() and (painted == 0).any():
            chosen = choose_without_photos(
                on_composed[:, column], painted, probabilities[labels != 1, column], one.recall_floor
            )
        else:
            classes.append(one)
            continue
        high, low = round(chosen.high, 4), round(chosen.low, 4)
        classes.append(
            msgspec.structs.replace(one, trained=True, high=high, low=low, people=chosen.people, why=chosen.why)
        )
    return tuple(classes)


def logits_of(network: DefectNetwork, tiles: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """float32[n, classes] before calibration, of uint8[size, size, 3] tiles."""
    network.eval()
    parts, waiting = [], iter(tiles)
    while some := list(islice(waiting, 16)):
        with torch.inference_mode():
            parts.append(network.logits(network.embed(torch.from_numpy(np.stack(some)))).numpy())
    return np.concatenate(parts).astype(np.float32)


def some_of(manifest: Manifest, count: int) -> Manifest:
    """Tiles of every class, some with and some without it, then any others; always the same ones, and none that may not
    be put into a release's files."""
    allowed = shippable(manifest)
    random = np.random.default_rng(0)
    share = max(1, count // (2 * len(manifest.classes)))
    chosen: list[int] = []
    for column in range(len(manifest.classes)):
        for value in (1.0, 0.0):
            fitting = np.flatnonzero(allowed & (manifest.labels[:, column] == value))
            chosen += [int(row) for row in random.permutation(fitting)[:share]]
    rest = [int(row) for row in random.permutation(np.flatnonzero(allowed))]
    rows = np.zeros(len(manifest), dtype=bool)
    rows[list(dict.fromkeys([*chosen, *rest]))[:count]] = True
    return manifest.take(rows)


def read_tiles(manifest: Manifest, size: int) -> NDArray[np.uint8]:
    """uint8[n, size, size, 3], in the order of the manifest."""
    return np.stack([read_tile(path, size) for path in manifest.images])


def write_evaluation(rounded: DefectNetwork, folder: Path, test: Manifest) -> None:
    """`evaluation.npz`: labelled test tiles as JPEG, and what the float32 reference says of what a reader decodes."""
    some = some_of(test, EVALUATION_TILES)
    size = rounded.shape.tile_size
    packed = [_jpeg(tile) for tile in read_tiles(some, size)]
    tiles = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in packed])
    np.savez(
        folder / EVALUATION_FILE,
        jpeg=np.frombuffer(b"".join(packed), dtype=np.uint8),
        ends=np.cumsum([len(data) for data in packed]),
        labels=some.labels,
        groups=np.array(some.groups),
        probabilities=reference(rounded, tiles),
    )


def _jpeg(tile: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", quality=92)
    return file.getvalue()
