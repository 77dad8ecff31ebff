"""Training, as one loop to read from top to bottom: every step is a function of the state and its own number."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.dataset import Manifest, read_tile
from models.synthesis import Composer
from models.training.augment import augment
from models.training.memory import keep_freed_memory
from models.training.precision import keep_in_float, mixed
from models.vit import DefectNetwork

Labels = NDArray[np.float32]


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults, from a base under a teacher of 900 steps, made `lite0vit2-256.2026-11d`."""

    steps: int = 1200
    batch: int = 32
    size: int = 224  # pixels of the crops: what they show is then as large as in service, on average
    composed_share: float = 0.25  # of each batch
    teacher_share: float = 0.5  # of the target, where a tile has a label too
    teacher_views: int = 2  # of a tile that the teacher is asked about, 1 to 8; the student costs the same to run
    unknown_weight: float = 0.05  # of an unknown label's pull towards "absent", without a teacher
    taught_weight: float = 0.3  # of an unknown label's pull towards what the teacher says
    stem_rate: float = 4e-4
    rate: float = 1.2e-3  # for what starts from nothing
    warmup: float = 0.1
    weight_decay: float = 0.05
    average: float = 0.995
    seed: int = 1
    threads: int = 2
    save_every: int = 50
    device: str = "cpu"
    compile: bool = False  # the network, before the first step: minutes, which a long run on a card gains back


@dataclass(frozen=True)
class Lessons:
    """What is learned from: labelled tiles, composed ones, and a teacher that looks at each tile as it is shown."""

    manifest: Manifest
    composer: Composer | None = None
    teacher: DefectNetwork | None = None


@dataclass(frozen=True)
class Batch:
    """uint8[n, size, size, 3] tiles, float32[n, classes] labels (NaN unknown), and how much each label counts."""

    tiles: Tensor
    labels: Tensor
    weight: Tensor


def label_weights(labels: Labels, labelled: NDArray[np.bool_], unknown_weight: float) -> Labels:
    """How much each of float32[n, classes] labels counts; NaN is unknown.

    An unknown label pulls a little (towards what the teacher says, without one towards "absent"): most things are
    absent from most tiles, and a source that labels one class would else leave the others free to fire anywhere. A
    class that is `labelled` nowhere (bool[classes]) is left alone: its output never learns anything.
    """
    return (np.where(np.isnan(labels), unknown_weight, 1.0) * labelled).astype(np.float32)


def masked_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean binary cross-entropy of float32[n, classes]; what has no weight does not count."""
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)


def targets(labels: Tensor, taught: Tensor | None, share: float) -> Tensor:
    """What the network should say: the label, softened by `share` of what a teacher says; alone, where it is unknown.

    The teacher sees the very tile that the student sees, crop and light and all (Beyer et al., "Knowledge distillation:
    a good teacher is patient and consistent", CVPR 2022).
    """
    known = ~torch.isnan(labels)
    if taught is None:
        return torch.where(known, labels, torch.zeros_like(labels))
    return torch.where(known, (1.0 - share) * labels + share * taught, taught)


def opinion(teacher: DefectNetwork, tiles: Tensor, views: int) -> Tensor:
    """What a teacher says of uint8[n, size, size, 3] tiles, float32[n, classes]: the mean over some of the eight ways
    to turn and mirror them.

    A crack is one from every side, and what a network says is not quite the same from each: the mean of several is
    nearer to the truth than any, and a student can learn at no price of its own to say it at once.
    """
    turned = [torch.rot90(tiles, turns, (1, 2)) for turns in range(4)]
    sides = [side for one in turned for side in (one, one.flip(2))][:views]
    return torch.stack([torch.sigmoid(teacher.logits(teacher.embed(side)).float()) for side in sides]).mean(0)


def sampling_weights(manifest: Manifest) -> NDArray[np.float64]:
    """Chance of each row to be drawn. Sources count by the cube root of their size, so that
    18 photos are heard beside 12,000 tiles; inside a source half of the draws show a defect."""
    present = np.nansum(manifest.labels, axis=1) > 0
    sources = manifest.sources
    weights = np.zeros(len(manifest))
    for source in np.unique(sources):
        here = sources == source
        halves = [half for half in (here & present, here & ~present) if half.any()]
        for half in halves:
            weights[half] = np.cbrt(here.sum()) / len(halves) / half.sum()
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances


def learning_rate(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at a step: up in a line, down in half a cosine."""
    rise = max(1, int(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


class Drawing:
    """Draws the batch of a step: real tiles by their source's weight, then composed ones nobody has seen before."""

    def __init__(self, lessons: Lessons, config: TrainConfig, tile_size: int) -> None:
        self._lessons = lessons
        self._config = config
        self._tile_size = tile_size
        self._composed = round(config.composed_share * config.batch) if lessons.composer else 0
        self._weights = sampling_weights(lessons.manifest) if self._composed < config.batch else None
        labelled = np.nansum(lessons.manifest.labels, axis=0) > 0
        self._labelled = labelled if lessons.composer is None else labelled | lessons.composer.painted
        self._unknown = config.unknown_weight if lessons.teacher is None else config.taught_weight

    def batch(self, step: int) -> Batch:
        """The same for the same step, whatever was drawn before."""
        config, manifest, composer = self._config, self._lessons.manifest, self._lessons.composer
        random = np.random.default_rng((config.seed, step))
        tiles, labels = [], []
        if self._weights is not None:
            rows = random.choice(len(manifest), size=config.batch - self._composed, p=self._weights)
            tiles += [read_tile(manifest.images[row], self._tile_size) for row in rows]
            labels += list(manifest.labels[rows])
        if composer is not None:
            composed = [composer.compose(step * self._composed + number) for number in range(self._composed)]
            tiles += [one.tile for one in composed]
            labels += [one.labels for one in composed]
        known = np.stack(labels)
        return Batch(
            torch.from_numpy(np.stack([augment(tile, config.size, random) for tile in tiles])),
            torch.from_numpy(known),
            torch.from_numpy(label_weights(known, self._labelled, self._unknown)),
        )


@dataclass
class State:
    """All that a run is: with it and the step's number, everything that follows is fixed."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.AdamW
    losses: list[float]

    @property
    def step(self) -> int:
        """How many steps have been taken."""
        return len(self.losses)

    def save(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        words = {"network": self.network.state_dict(), "average": self.average.state_dict(), "losses": self.losses}
        torch.save({**words, "optimizer": self.optimizer.state_dict()}, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def load(self, path: Path) -> None:
        """Go on where `save` was called."""
        words = torch.load(path, map_location="cpu", weights_only=True)
        self.network.load_state_dict(words["network"])
        self.average.load_state_dict(words["average"])
        self.optimizer.load_state_dict(words["optimizer"])
        self.losses = words["losses"]


def begin(network: nn.Module, stem: str, rates: tuple[float, float], weight_decay: float) -> State:
    """A run that has not begun; `rates` are the peaks of the parameters named `stem`..., and of the rest."""
    network = network.to(memory_format=torch.channels_last)
    named = list(network.named_parameters())
    groups = [
        {"params": [parameter for name, parameter in named if name.startswith(stem)], "peak": rates[0]},
        {"params": [parameter for name, parameter in named if not name.startswith(stem)], "peak": rates[1]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rates[1], weight_decay=weight_decay)
    average = copy.deepcopy(network).eval()
    if named[0][1].device.type == "cpu":
        keep_in_float(network)
    return State(network, average, optimizer, [])


def train(lessons: Lessons, start: DefectNetwork, config: TrainConfig, checkpoint: Path) -> Iterator[State]:
    """Train from the weights of `start`, or from `checkpoint` if it exists; yields the state after each step.

    A run that had ended already yields its end once more: it may have been killed before anybody saw it.
    Batches, augmentation and positions are drawn from the seed and the step's number, never from what went before, so a
    run that was killed and taken up again ends with the same weights as one that was not.
    """
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    state = begin(start.to(config.device), "stem.", (config.stem_rate, config.rate), config.weight_decay)
    if checkpoint.exists():
        state.load(checkpoint)
    if state.step == config.steps:
        yield state
        return
    drawing = Drawing(lessons, config, start.shape.tile_size)
    state.network.train()  # which is `start`, moved to the device
    embed = torch.compile(start.embed) if config.compile else start.embed
    while state.step < config.steps:
        _step(state, embed, drawing.batch(state.step), lessons.teacher, config)
        if state.step % config.save_every == 0 or state.step == config.steps:
            state.save(checkpoint)
        yield state


def _step(
    state: State, embed: Callable[[Tensor], Tensor], batch: Batch, teacher: DefectNetwork | None, config: TrainConfig
) -> None:
    torch.manual_seed(config.seed * 1_000_003 + state.step)
    tiles = batch.tiles.to(config.device)
    with mixed(config.device):
        logits = state.network.logits(embed(tiles)).float()  # type: ignore[operator, unused-ignore]
        with torch.no_grad():
            taught = None if teacher is None else opinion(teacher, tiles, config.teacher_views)
    target = targets(batch.labels.to(config.device), taught, config.teacher_share)
    loss = masked_loss(logits, target, batch.weight.to(config.device))
    descend(state, loss, learning_rate(state.step, config.steps, config.warmup), config.average)


def descend(state: State, loss: Tensor, rate: float, average: float) -> None:
    """One step of the optimizer at a share of its peak rates; the average follows.

    Raises:
        FloatingPointError: the loss or a gradient is not finite. No weight has been changed, nor the average; the
            network's own batch statistics have, so the run goes on from its last checkpoint.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of step {state.step} is {value}: train with a lower rate")
    for group in state.optimizer.param_groups:
        group["lr"] = group["peak"] * rate
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
    norm = float(nn.utils.clip_grad_norm_(state.network.parameters(), 1.0))
    if not math.isfinite(norm):
        raise FloatingPointError(f"the gradients of step {state.step} have a norm of {norm}: train with a lower rate")
    state.optimizer.step()
    state.losses.append(value)
    _follow(state.average, state.network, min(average, state.step / (state.step + 10.0)))


def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    """Move the average towards the network, batch statistics included."""
    with torch.no_grad():
        for mine, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1.0 - keep)
            else:
                mine.copy_(theirs)
