"""From a finished training run to a release: calibrate, choose thresholds, export, measure, and write the card."""

from __future__ import annotations

import argparse
import datetime
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.architecture import Architecture
from models.calibration import calibrate
from models.card import card
from models.convert import CREDITS
from models.dataset import Manifest, Split, read_manifest, read_tile
from models.engines.autopilot import open_engine
from models.evaluate import choose_thresholds
from models.export import round_weights, write_golden, write_onnx, write_weights
from models.release import (
    CARD_FILE,
    CHAMPION,
    GOLDEN_FILE,
    MODEL_FILE,
    WEIGHTS_FILE,
    Release,
    ReleaseClass,
    ReleaseFacts,
    ReleaseStore,
    digest_of,
    load,
    write_facts,
)
from models.scoring import judge, score_manifest
from models.taxonomy import Defect, Taxonomy, load_taxonomy
from models.train import TrainConfig
from models.vit import STEM_ORIGIN, DefectNetwork

PREPROCESSING = (
    "none outside the network: uint8 RGB tiles, never resized; inside it (x - 127.5) / 127.5, and the calibration of "
    "the logits per class"
)
GOLDEN_TILES = 24
# A tile nobody labelled for a class counts as one without it: in calibration as much as in training, and for the same
# reason; for thresholds more, because on a site a defect is rarer than among photos that were taken because of it.
UNKNOWN_WEIGHT = TrainConfig.unknown_weight
UNKNOWN_WEIGHT_OF_THRESHOLDS = 0.2


@dataclass(frozen=True)
class Order:
    """What release to make: the taxonomy it serves, its id, its parent, and how it was trained (words for the card)."""

    taxonomy: Taxonomy
    id: str
    parent: str | None
    training: dict[str, str]


def publish(
    network: DefectNetwork, shape: Architecture, parts: dict[str, Manifest], order: Order, store: Path
) -> Release:
    """Write a release into a store's folder; `parts` are the training, validation and test parts of one manifest.

    Calibration and thresholds come from the validation part, every figure of the card from the test part, measured on
    the files that are shipped.
    """
    rounded = round_weights(network)
    classes = _calibrated(rounded, parts["train"], parts["validation"], order.taxonomy)
    folder = store / order.id
    folder.mkdir(parents=True, exist_ok=True)
    tiles = golden_tiles(parts["test"], shape.tile_size)
    write_weights(rounded, folder)
    write_onnx(rounded, folder, tiles)
    write_golden(rounded, folder, tiles)
    sources = {group.split("/")[0].removesuffix("_more") for part in parts.values() for group in part.groups}
    facts = ReleaseFacts(
        id=order.id,
        parent=order.parent,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        architecture=shape,
        classes=classes,
        preprocessing=PREPROCESSING,
        stem_origin=STEM_ORIGIN,
        training=order.training,
        data=tuple(CREDITS[name] for name in CREDITS if name in sources),
        metrics={},
        photos={},
        files={name: digest_of(folder / name) for name in (MODEL_FILE, WEIGHTS_FILE, GOLDEN_FILE)},
    )
    write_facts(folder, facts)
    return _measured(folder, facts, parts["test"])


def _measured(folder: Path, facts: ReleaseFacts, test: Manifest) -> Release:
    """Measure the files as a user would run them, in float32, and write the figures beside them."""
    engine = open_engine(load(folder), "f32")
    judgement = judge(score_manifest(engine, test), test, facts.classes)
    engine.close()
    fields = {name: getattr(facts, name) for name in facts.__struct_fields__}
    facts = ReleaseFacts(**{**fields, "metrics": judgement.metrics, "photos": judgement.photos})
    (folder / CARD_FILE).write_text(card(facts), encoding="utf-8")
    fields = {name: getattr(facts, name) for name in facts.__struct_fields__}
    facts = ReleaseFacts(**{**fields, "files": {**facts.files, CARD_FILE: digest_of(folder / CARD_FILE)}})
    write_facts(folder, facts)
    return load(folder)


def _calibrated(
    network: DefectNetwork, train: Manifest, validation: Manifest, taxonomy: Taxonomy
) -> tuple[ReleaseClass, ...]:
    """Calibrate the network in place and describe its classes; one without labels on both sides is untrained."""
    logits = logits_of(network, validation)
    affine = calibrate(logits, validation.labels, UNKNOWN_WEIGHT)
    network.scale.copy_(torch.from_numpy(affine.scale))
    network.bias.copy_(torch.from_numpy(affine.bias))
    probabilities = 1.0 / (1.0 + np.exp(-(logits * affine.scale + affine.bias)))
    classes = []
    for column, defect in enumerate(taxonomy.defects):
        labels = validation.labels[:, column]
        trained = bool((train.labels[:, column] == 1).any() and (labels == 1).any() and (labels == 0).any())
        classes.append(_described(defect, trained, probabilities[:, column].astype(np.float32), labels))
    return tuple(classes)


def _described(
    defect: Defect, trained: bool, probabilities: NDArray[np.float32], labels: NDArray[np.float32]
) -> ReleaseClass:
    high = low = None
    if trained:
        weight = np.where(np.isnan(labels), UNKNOWN_WEIGHT_OF_THRESHOLDS, 1.0)
        chosen = choose_thresholds(probabilities, labels == 1, defect.recall_floor, weight)
        high, low = round(chosen.high, 4), round(chosen.low, 4)
    return ReleaseClass(
        name=defect.name,
        title=defect.title,
        severity=defect.severity,
        trained=trained,
        high=high,
        low=low,
        coarsest_mm_per_px=defect.coarsest_mm_per_px,
        min_width_px=defect.min_width_px,
        weight=defect.importance,
        recall_floor=defect.recall_floor,
    )


def logits_of(network: DefectNetwork, manifest: Manifest) -> NDArray[np.float32]:
    """float32[n, classes] before calibration, for every tile of a manifest."""
    network.eval()
    size = network.side * 16
    parts = []
    for start in range(0, len(manifest), 16):
        tiles = np.stack([read_tile(path, size) for path in manifest.images[start : start + 16]])
        with torch.inference_mode():
            parts.append(network.logits(network.embed(torch.from_numpy(tiles))).numpy())
    return np.concatenate(parts).astype(np.float32)


def golden_tiles(test: Manifest, size: int) -> NDArray[np.uint8]:
    """A few test tiles, uint8[n, size, size, 3]: for each class some with and some without it, then any others.

    Tiles of the quay stay out: their licence (share alike) would reach the file.
    """
    allowed = np.array([not group.startswith("quay/") for group in test.groups])
    random = np.random.default_rng(0)
    chosen: list[int] = []
    for column in range(len(test.classes)):
        for value in (1.0, 0.0):
            fitting = np.flatnonzero(allowed & (test.labels[:, column] == value))
            chosen += [int(row) for row in random.permutation(fitting)[:3]]
    rest = [int(row) for row in random.permutation(np.flatnonzero(allowed))]
    rows = list(dict.fromkeys([*chosen, *rest]))[:GOLDEN_TILES]
    return np.stack([read_tile(test.images[row], size) for row in rows])


def main() -> None:
    """Make a release of a training run's averaged weights and let the alias `champion` mean it."""
    parser = argparse.ArgumentParser(prog="python -m models.publish", description=main.__doc__)
    parser.add_argument("--run", type=Path, required=True, help="output folder of models.train")
    parser.add_argument("--id", required=True, help="such as lite0vit3-256.2026-11")
    parser.add_argument("--store", type=Path, default=Path("models/zoo"))
    parser.add_argument("--taxonomy", type=Path, default=Path("configs/taxonomy.toml"))
    options = parser.parse_args()
    taxonomy = load_taxonomy(options.taxonomy)
    manifest = read_manifest(options.run / "manifest.csv", taxonomy.names)
    parts = {str(part): rows for part, rows in Split().apply(manifest).items()}
    shape = Architecture(classes=len(taxonomy.names))
    words = torch.load(options.run / "checkpoint.pt", map_location="cpu", weights_only=True)
    network = DefectNetwork(shape)
    network.load_state_dict(words["average"])
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in parts.items())
    steps = int(words["step"])
    training = {"steps": str(steps), "augmented samples": str(steps * TrainConfig.batch), "tiles": counts}
    release = publish(network, shape, parts, Order(taxonomy, options.id, None, training), options.store)
    ReleaseStore(options.store).point(CHAMPION, release.id)
    sys.stdout.write((release.folder / CARD_FILE).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
