"""Pre-training: on tiles that nobody has labelled, the transformer learns to see what a larger network sees.

A frozen image-trained network looks at each tile; the student sees the same tile with a part of its tokens taken out,
and has to say what the teacher saw in every cell, also where it was blind (masked feature prediction: Wei et al.,
"Masked feature prediction for self-supervised visual pre-training", CVPR 2022), and in the tile as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.architecture import Architecture, Stem
from models.dataset import read_tile
from models.training.augment import augment
from models.training.memory import keep_freed_memory
from models.training.precision import mixed
from models.training.train import State, begin, descend, learning_rate
from models.vit import DefectNetwork, load_image_trained_stem


@dataclass(frozen=True)
class PretrainConfig:
    """How to pre-train; the defaults made the shipped base release."""

    steps: int = 700
    batch: int = 32
    size: int = 224  # pixels of the crops
    teacher: Stem = "tf_efficientnet_lite2"
    masked_share: float = 0.5  # of the tokens
    whole_weight: float = 0.5  # of the tile's loss beside the cells'
    stem_rate: float = 1e-4
    rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    average: float = 0.99
    seed: int = 1
    threads: int = 2
    save_every: int = 50
    device: str = "cpu"
    compile: bool = False  # the network, before the first step: minutes, which a long run on a card gains back


class Student(nn.Module):  # type: ignore[misc, unused-ignore]
    """The network that is to be kept, and what it needs only while it is pre-trained."""

    def __init__(self, network: DefectNetwork, teacher: DefectNetwork) -> None:
        super().__init__()
        width = network.shape.width
        channels = teacher.stem[-2].out_channels
        self.network = network
        self.blank = nn.Parameter(torch.zeros(width))
        self.cells = nn.Linear(width, channels)
        self.whole = nn.Linear(width, channels)

    def forward(self, tiles: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """What the teacher should see: float32[n, rows, columns, channels] cell by cell, float32[n, channels] in all.

        `masked` is bool[n, rows, columns]: the tokens that are taken out.
        """
        tokens = self.network.tokens(tiles)
        seen = torch.where(masked[..., None], self.blank.to(tokens.dtype), tokens)
        attended = self.network.attend(seen)
        return self.cells(attended).unflatten(1, masked.shape[1:]), self.whole(attended.mean(dim=1))


def teacher_of(stem: Stem) -> DefectNetwork:
    """The image-trained network, frozen."""
    teacher = DefectNetwork(Architecture(kind="convolution", stem=stem))
    load_image_trained_stem(teacher)
    teacher.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return teacher


def pretrain(images: Sequence[Path], start: DefectNetwork, config: PretrainConfig, checkpoint: Path) -> Iterator[State]:
    """Pre-train on pictures of any size, from the weights of `start` or from `checkpoint`; yields after each step.

    As in training, everything is drawn from the seed and the step's number, and a run that had ended yields its end.
    The networks of the state are Students.
    """
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    torch.manual_seed(config.seed)
    teacher = teacher_of(config.teacher).to(config.device)
    student = Student(start, teacher).to(config.device)
    state = begin(student, "network.stem.", (config.stem_rate, config.rate), config.weight_decay)
    if checkpoint.exists():
        state.load(checkpoint)
    if state.step == config.steps:
        yield state
        return
    student.train()
    guessing = torch.compile(student) if config.compile else student
    while state.step < config.steps:
        random = np.random.default_rng((config.seed, state.step))
        rows = random.integers(len(images), size=config.batch)
        size = start.shape.tile_size
        tiles = np.stack([augment(read_tile(images[row], size), config.size, random) for row in rows])
        _step(state, guessing, teacher, torch.from_numpy(tiles), config)
        if state.step % config.save_every == 0 or state.step == config.steps:
            state.save(checkpoint)
        yield state


def _step(state: State, student: Student, teacher: DefectNetwork, tiles: Tensor, config: PretrainConfig) -> None:
    torch.manual_seed(config.seed * 1_000_003 + state.step)
    tiles = tiles.to(config.device)
    side = tiles.shape[1] // student.network.shape.stride
    masked = torch.rand(len(tiles), side, side, device=config.device) < config.masked_share
    with mixed(config.device):
        with torch.no_grad():
            seen = teacher.tokens(tiles).float()
        cells, whole = student(tiles, masked)
    loss = feature_loss(cells.float(), whole.float(), seen, config.whole_weight)
    descend(state, loss, learning_rate(state.step, config.steps, config.warmup), config.average)


def feature_loss(cells: Tensor, whole: Tensor, seen: Tensor, whole_weight: float) -> Tensor:
    """How far the student's guesses are from the teacher's features, each made mean 0 and variance 1 over its channels.

    Args:
        cells: float32[n, rows, columns, channels], the student's.
        whole: float32[n, channels], the student's.
        seen: float32[n, fewer rows, fewer columns, channels], the teacher's cells, which are coarser.
    """
    channels = seen.shape[-1:]
    coarse = functional.adaptive_avg_pool2d(cells.permute(0, 3, 1, 2), seen.shape[1:3]).permute(0, 2, 3, 1)
    by_cell = functional.smooth_l1_loss(coarse, functional.layer_norm(seen, channels))
    in_all = functional.smooth_l1_loss(whole, functional.layer_norm(seen.mean(dim=(1, 2)), channels))
    return by_cell + whole_weight * in_all
