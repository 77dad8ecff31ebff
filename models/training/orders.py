"""What `spanwatch pretrain` and `spanwatch train` are asked for: the pictures, the network, the settings, the names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from models.architecture import Architecture
from models.dataset import ManifestError, read_manifest
from models.release import Release
from models.training.precision import usable
from models.training.pretrain import PretrainConfig
from models.training.train import TrainConfig

Settings = TypeVar("Settings", PretrainConfig, TrainConfig)
PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")


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


def settings(defaults: Settings, **given: Any) -> Settings:
    """The defaults, with what was given; what is None was not.

    Raises:
        DeviceMissing: this machine has not the device.
    """
    asked = replace(defaults, **{name: value for name, value in given.items() if value is not None})
    usable(asked.device)
    return asked


def teacher_settings(student: TrainConfig, steps: int) -> TrainConfig | None:
    """The teacher's, which are the student's with the next seed; None for no steps at all."""
    return replace(student, steps=steps, seed=student.seed + 1) if steps else None


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
