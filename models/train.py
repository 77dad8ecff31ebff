"""Training, as one loop to read from top to bottom: every step is a function of the state and its own number."""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.architecture import Architecture
from models.augment import augment
from models.convert import convert
from models.dataset import Manifest, Split, read_manifest, read_tile
from models.taxonomy import load_taxonomy
from models.vit import DefectNetwork, load_image_trained_stem


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults made the shipped release."""

    steps: int = 650
    batch: int = 32
    early_size: int = 224  # pixels; smaller crops cost a quarter less and vary the positions
    early_share: float = 0.7  # of the steps; the rest see tiles of the size they are served at
    stem_rate: float = 4e-4
    rate: float = 1.2e-3  # for what starts from nothing
    warmup: float = 0.1
    weight_decay: float = 0.05
    average: float = 0.995
    unknown_weight: float = 0.05
    seed: int = 1
    threads: int = 2
    save_every: int = 50
    image_trained_stem: bool = True


def masked_loss(logits: Tensor, labels: Tensor, unknown_weight: Tensor) -> Tensor:
    """Mean binary cross-entropy over the known labels of float32[n, classes]; NaN is unknown.

    An unknown label pulls towards "absent" with `unknown_weight` (float32[classes]): most things are absent from most
    tiles, and a source that labels one class would else leave the others free to fire anywhere. It is 0 for a class
    nobody has labelled, whose output then never learns anything.
    """
    known = ~torch.isnan(labels)
    target = torch.where(known, labels, torch.zeros_like(labels))
    weight = torch.where(known, torch.ones_like(labels), unknown_weight.expand_as(labels))
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)


def sampling_weights(manifest: Manifest) -> NDArray[np.float64]:
    """Chance of each row to be drawn. Sources (the first word of a group) count by the cube root of their size, so that
    18 photos are heard beside 12,000 tiles; inside a source half of the draws show a defect."""
    present = np.nansum(manifest.labels, axis=1) > 0
    sources = np.array([group.split("/")[0] for group in manifest.groups])
    weights = np.zeros(len(manifest))
    for source in np.unique(sources):
        here = sources == source
        halves = [half for half in (here & present, here & ~present) if half.any()]
        for half in halves:
            weights[half] = np.cbrt(here.sum()) / len(halves) / half.sum()
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances


def learning_rate(step: int, config: TrainConfig) -> float:
    """Share of the peak rate at a step: up in a line, down in half a cosine."""
    rise = max(1, int(config.warmup * config.steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, config.steps - rise)))


@dataclass
class State:
    """All that a run is: with it and the step's number, everything that follows is fixed."""

    network: DefectNetwork
    average: DefectNetwork
    optimizer: torch.optim.AdamW
    step: int = 0

    def save(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        words = {"network": self.network.state_dict(), "average": self.average.state_dict()}
        torch.save({**words, "optimizer": self.optimizer.state_dict(), "step": self.step}, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def load(self, path: Path) -> None:
        """Go on where `save` was called."""
        words = torch.load(path, map_location="cpu", weights_only=True)
        self.network.load_state_dict(words["network"])
        self.average.load_state_dict(words["average"])
        self.optimizer.load_state_dict(words["optimizer"])
        self.step = words["step"]


def new_state(shape: Architecture, config: TrainConfig) -> State:
    """A fresh run: image-trained stem (if asked), everything behind it from nothing."""
    torch.manual_seed(config.seed)
    network = DefectNetwork(shape).to(memory_format=torch.channels_last)
    if config.image_trained_stem:
        load_image_trained_stem(network)
    stem = list(network.stem.parameters())
    rest = [p for name, p in network.named_parameters() if not name.startswith("stem.")]
    optimizer = torch.optim.AdamW(
        [{"params": stem, "peak": config.stem_rate}, {"params": rest, "peak": config.rate}],
        lr=config.rate,
        weight_decay=config.weight_decay,
    )
    return State(network, copy.deepcopy(network).eval(), optimizer)


def train(
    manifest: Manifest, shape: Architecture, config: TrainConfig, checkpoint: Path
) -> Iterable[tuple[int, float]]:
    """Train on every row of `manifest`, from `checkpoint` if it exists; yields (step, loss) after each step.

    Batches, augmentation and positions are drawn from the seed and the step's number, never from what went before, so a
    run that was killed and taken up again ends with the same weights as one that was not.
    """
    torch.set_num_threads(config.threads)
    state = new_state(shape, config)
    if checkpoint.exists():
        state.load(checkpoint)
    weights = sampling_weights(manifest)
    labelled = np.nansum(manifest.labels, axis=0) > 0
    unknown = torch.from_numpy(np.where(labelled, config.unknown_weight, 0.0).astype(np.float32))
    state.network.train()
    while state.step < config.steps:
        tiles, labels = _batch(manifest, weights, state.step, shape, config)
        loss = _step(state, tiles, labels, unknown, config)
        if state.step % config.save_every == 0 or state.step == config.steps:
            state.save(checkpoint)
        yield state.step, loss


def _batch(
    manifest: Manifest, weights: NDArray[np.float64], step: int, shape: Architecture, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """uint8[batch, size, size, 3] and float32[batch, classes] of step number `step`."""
    random = np.random.default_rng((config.seed, step))
    size = config.early_size if step < config.early_share * config.steps else shape.tile_size
    rows = random.choice(len(manifest), size=config.batch, p=weights)
    tiles = np.stack([augment(read_tile(manifest.images[row], shape.tile_size), size, random) for row in rows])
    return torch.from_numpy(tiles), torch.from_numpy(manifest.labels[rows])


def _step(state: State, tiles: Tensor, labels: Tensor, unknown: Tensor, config: TrainConfig) -> float:
    torch.manual_seed(config.seed * 1_000_003 + state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = group["peak"] * learning_rate(state.step, config)
    # bfloat16 keeps float32's range, so no loss scaling; it doubles the speed where the CPU has it.
    with torch.autocast("cpu", torch.bfloat16):
        logits = state.network.logits(state.network.embed(tiles)).float()
    loss = masked_loss(logits, labels, unknown)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    state.optimizer.step()
    state.step += 1
    _follow(state.average, state.network, min(config.average, state.step / (state.step + 10.0)))
    return float(loss.detach())


def _follow(average: DefectNetwork, network: DefectNetwork, keep: float) -> None:
    """Move the average towards the network, batch statistics included."""
    with torch.no_grad():
        for mine, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1.0 - keep)
            else:
                mine.copy_(theirs)


def main() -> None:
    """Convert a data folder and train on its training part; leaves `checkpoint.pt` and `manifest.csv` in the output."""
    parser = argparse.ArgumentParser(prog="python -m models.train", description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with sdnet, concrete_damage, ...")
    parser.add_argument("--out", type=Path, required=True, help="folder for the manifest and the checkpoint")
    parser.add_argument("--taxonomy", type=Path, default=Path("configs/taxonomy.toml"))
    parser.add_argument("--steps", type=int, default=TrainConfig.steps)
    options = parser.parse_args()
    classes = load_taxonomy(options.taxonomy).names
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "manifest.csv"
    if not path.exists():
        convert(options.data, options.out, classes)
    parts = Split().apply(read_manifest(path, classes))
    config = TrainConfig(steps=options.steps)
    began, mean = time.monotonic(), math.nan
    for step, loss in train(parts["train"], Architecture(classes=len(classes)), config, options.out / "checkpoint.pt"):
        mean = loss if math.isnan(mean) else 0.95 * mean + 0.05 * loss
        minutes = (time.monotonic() - began) / 60
        sys.stdout.write(f"step={step}/{config.steps} loss={mean:.4f} minutes={minutes:.1f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
