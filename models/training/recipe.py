"""From pictures to a network: the stages of a run in their order, each taken up again where it stopped."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import msgspec

from models.release import Release
from models.releases.store import ReleaseStore
from models.training.initial import state_of
from models.training.pretrain import PretrainConfig, pretrain
from models.training.train import Lessons, State, TrainConfig, train
from models.vit import DefectNetwork

PLAN_FILE, ID_FILE = "plan.json", "id"


class RecipeError(ValueError):
    """A run that cannot be what was asked for: its folder holds another one, or the id it is to have is taken."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is: after each step."""

    stage: str
    state: State
    steps: int


@dataclass(frozen=True)
class Teaching:
    """A run that comes first, and whose network then teaches: another draw of the same thing, to learn from besides.

    Some of what a network says of a tile is chance: its seed, the order of its lessons. One that learns half from the
    labels and half from another of its kind may end above both (Furlanello et al., "Born-again neural networks", ICML
    2018).
    """

    lessons: Lessons
    start: DefectNetwork
    config: TrainConfig


def remember(run: Path, plan: Any) -> None:
    """Note what a run folder is for; a run taken up again must be the same one.

    Raises:
        RecipeError: the folder was begun with another plan.
    """
    run.mkdir(parents=True, exist_ok=True)
    words = msgspec.json.format(msgspec.json.encode(msgspec.to_builtins(plan, enc_hook=str), order="sorted"), indent=1)
    path = run / PLAN_FILE
    if path.exists():
        if path.read_bytes() != words:
            raise RecipeError(f"{path}: this folder holds a run with another plan; choose another one, or remove it")
        return
    _settle(path, words)


def promised(run: Path, store: ReleaseStore, wanted: str | None, usual: str) -> tuple[str, Release | None]:
    """The id of the release that a run makes, and that release if it has been made.

    Settled before the first step, and kept with the run: the same command goes on under the same id next month, and
    says at once what an hour later could only be refused.

    Args:
        wanted: the id that was asked for; None takes `usual`, or `usual` and the first letter behind those that are
            taken: an id before them may be that of a release which is there no more.

    Raises:
        RecipeError: another run has made a release of that id.
        ReleaseError: what this run has made is there and not whole.
    """
    note = run / ID_FILE
    noted = note.read_text(encoding="utf-8") if note.exists() else None
    taken, own = set(store.ids()), store.own_ids()
    if noted is not None and wanted in {None, noted} and (noted in own or noted not in taken):
        return noted, store.open(noted) if noted in own else None
    names = [usual + letter for letter in ("", *ascii_lowercase[1:])]
    free = names[max((place for place, name in enumerate(names, 1) if name in taken), default=0) :]
    if wanted in taken or not (wanted or free):
        there = wanted or usual
        raise RecipeError(f"there is a release {there!r} already, and a release never changes: give another --id")
    name = wanted or free[0]
    _settle(note, name.encode())
    return name, None


def _settle(path: Path, words: bytes) -> None:
    """Write a file whole or not at all."""
    path.with_name(f"{path.name}.new").write_bytes(words)
    path.with_name(f"{path.name}.new").replace(path)


def pretrained(images: Sequence[Path], start: DefectNetwork, config: PretrainConfig, run: Path) -> Iterator[Progress]:
    """Pre-train without labels; the network is `finished(run / "pretrain.pt", start)` afterwards."""
    for state in pretrain(images, start, config, run / "pretrain.pt"):
        yield Progress("pretrain", state, config.steps)


def trained(
    lessons: Lessons, start: DefectNetwork, config: TrainConfig, run: Path, teaching: Teaching | None = None
) -> Iterator[Progress]:
    """Train, after a teacher if there is to be one; `finished` has their networks, of "train.pt" and "teacher.pt"."""
    if teaching is not None:
        teacher = copy.deepcopy(teaching.start)
        for state in train(teaching.lessons, teaching.start, teaching.config, run / "teacher.pt"):
            yield Progress("teacher", state, teaching.config.steps)
        teacher = finished(run / "teacher.pt", teacher).to(config.device)
        lessons = replace(lessons, teacher=teacher.requires_grad_(False))
    for state in train(lessons, start, config, run / "train.pt"):
        yield Progress("train", state, config.steps)


def finished(checkpoint: Path, network: DefectNetwork) -> DefectNetwork:
    """The averaged weights of a run, in a network of its architecture, ready to infer."""
    words = state_of(checkpoint)["average"]
    inner = "network."  # where a Student keeps what is to be kept
    kept = {name.removeprefix(inner): value for name, value in words.items() if name.startswith(inner)} or words
    network.load_state_dict(kept)
    network.eval()
    return network
