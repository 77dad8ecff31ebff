"""A release says only what can be true: facts of another format, of no taxonomy or of other pixels are refused."""

from __future__ import annotations

import pickle
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.release import (
    CARD_FILE,
    CONFIG_FILE,
    FORMAT,
    GOLDEN_FILE,
    LINEAGE_FILE,
    METRICS_FILE,
    MODEL_FILE,
    THRESHOLDS_FILE,
    ReleaseError,
)
from models.releases.folder import check_golden, draft, load, write_facts
from models.releases.signing import sign
from models.releases.store import default_store
from tests.unit.models.made_releases import SIDE, Site, made_class, made_facts, made_files


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_release_is_read_as_it_was_written(site: Site) -> None:
    classes = (made_class(), made_class("algae", trained=False, high=None, low=None), made_class("rust", people=True))
    facts = made_facts("a.1", classes, parent="a.0")
    written = site.make("a.1", classes=classes, parent="a.0")
    release = load(site.store.folder / "a.1", site.store.trusted)
    assert release == written
    assert {name: getattr(release, name) for name in facts.__struct_fields__} == msgspec.structs.asdict(facts)
    assert (release.names, release.trained, release.tile_size) == (
        ("crack", "algae", "rust"), (True, False, True), SIDE,
    )  # fmt: skip
    assert release.path(MODEL_FILE).read_bytes() == b"weights"
    with pytest.raises(ReleaseError, match=r"holds no model\.int8\.onnx"):
        release.path("model.int8.onnx")


def test_the_digest_is_what_sha256sum_says(site: Site) -> None:
    release = site.make("a.1")
    command = "export LC_ALL=C; ls | grep -v '^model.sig$' | xargs sha256sum | sha256sum"
    told = subprocess.run(command, shell=True, cwd=release.folder, capture_output=True, text=True, check=True).stdout
    assert release.digest == told.split()[0]
    assert site.make("a.2").digest != release.digest


def test_a_lineage_from_before_groups_were_kept_is_read(site: Site) -> None:
    site.make("a.1")
    folder = site.forge("a.1", LINEAGE_FILE, lambda old: {name: fact for name, fact in old.items() if name != "groups"})
    assert load(folder, site.store.trusted).lineage.groups == ()


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "newer format": (
        {"format": FORMAT + 1, "news": 1},
        rf"format {FORMAT + 1}.*reads format {FORMAT}: update spanwatch",
    ),
    "older format": ({"format": 1}, "make the release again"),
    "unknown fact": ({"colour": "red"}, "colour"),
    "wrong type": ({"id": 7}, "id"),
    "other preprocessing": ({"preprocessing": "mean-std-bgr"}, r"'mean-std-bgr'; this spanwatch knows uint8-rgb"),
    "fewer classes than outputs": ({"architecture": {"classes": 7, "tile_size": SIDE}}, "1 classes for 7 outputs"),
    "path for an id": ({"id": "../elsewhere"}, "cannot be the id"),
    "alias for an id": ({"id": "champion"}, "cannot be the id"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_config_that_cannot_be_is_refused_though_it_is_signed(what: str, site: Site) -> None:
    changes, complaint = CONFIGS[what]
    site.make("a.1")
    folder = site.forge_config("a.1", **changes)
    with pytest.raises(ReleaseError, match=complaint):
        load(folder, site.store.trusted)


CLASSES: dict[str, tuple[dict[str, Any], str]] = {
    "no identifier": ({"name": "crack; drop"}, "letters, digits and underscores"),
    "recall above one": ({"recall_floor": 1.5}, "recall_floor lies between 0 and 1"),
    "no size": ({"min_width_px": 0.0}, "above 0"),
    "unknown severity": ({"severity": "fatal"}, "fatal"),
}


@pytest.mark.parametrize("what", CLASSES)
def test_a_taxonomy_that_cannot_be_is_refused_though_it_is_signed(what: str, site: Site) -> None:
    changes, complaint = CLASSES[what]
    site.make("a.1")
    name = changes.get("name", "crack")
    site.forge("a.1", THRESHOLDS_FILE, lambda old: {name: old["crack"]})
    folder = site.forge("a.1", CONFIG_FILE, lambda old: {**old, "classes": [{**old["classes"][0], **changes}]})
    with pytest.raises(ReleaseError, match=complaint):
        load(folder, site.store.trusted)


def test_two_classes_of_one_name_are_refused(site: Site) -> None:
    site.make("a.1")
    twice = {"architecture": {"classes": 2, "tile_size": SIDE}}
    folder = site.forge("a.1", CONFIG_FILE, lambda old: {**old, **twice, "classes": old["classes"] * 2})
    with pytest.raises(ReleaseError, match="two classes carry the same name"):
        load(folder, site.store.trusted)


@pytest.mark.parametrize(
    ("thresholds", "complaint"),
    [
        ({"high": 1.5}, "0 <= low <= high <= 1"),
        ({"low": -0.1}, "0 <= low <= high <= 1"),
        ({"low": 0.7, "high": 0.6}, "0 <= low <= high <= 1"),
        ({"low": None}, "both thresholds where it is trained"),
        ({"trained": False}, "none where it is not"),
        ({"people": "yes"}, "people"),
        ({"median": 0.5}, "median"),
    ],
)
def test_thresholds_that_cannot_be_are_refused_though_they_are_signed(
    thresholds: dict[str, object], complaint: str, site: Site
) -> None:
    site.make("a.1")
    folder = site.forge("a.1", THRESHOLDS_FILE, lambda old: {"crack": {**old["crack"], **thresholds}})
    with pytest.raises(ReleaseError, match=complaint):
        load(folder, site.store.trusted)


def test_thresholds_of_other_classes_are_refused(site: Site) -> None:
    site.make("a.1")
    folder = site.forge("a.1", THRESHOLDS_FILE, lambda old: {"crack": old["crack"], "rust": old["crack"]})
    with pytest.raises(ReleaseError, match="not the classes"):
        load(folder, site.store.trusted)


@pytest.mark.parametrize("file", [CONFIG_FILE, THRESHOLDS_FILE, METRICS_FILE, LINEAGE_FILE])
def test_a_file_that_is_no_json_is_named(file: str, site: Site) -> None:
    folder = site.make("a.1").folder
    (folder / file).write_bytes(b"{")
    sign(folder, site.key)
    with pytest.raises(ReleaseError, match=file):
        load(folder, site.store.trusted)


def test_a_folder_signed_without_all_files_or_with_another_is_refused(site: Site) -> None:
    folder = site.make("a.1").folder
    (folder / "run.py").write_bytes(b"print()")
    sign(folder, site.key)
    with pytest.raises(ReleaseError, match=r"run\.py is no file of a release"):
        load(folder, site.store.trusted)
    (folder / "run.py").unlink()
    (folder / GOLDEN_FILE).unlink()
    sign(folder, site.key)
    with pytest.raises(ReleaseError, match=r"no release, golden\.npz is missing"):
        load(folder, site.store.trusted)
    (folder / CONFIG_FILE).rename(folder / "release.json")
    sign(folder, site.key)
    with pytest.raises(ReleaseError, match="first format"):
        load(folder, site.store.trusted)


class Bomb:
    """What a pickle would do to whoever loads it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_nothing_is_ever_unpickled(site: Site, tmp_path: Path) -> None:
    release = site.make("a.1")
    mark = tmp_path / "went off"
    tiles = np.array([Bomb(mark)], dtype=object)
    pickle.loads(pickle.dumps(Bomb(tmp_path / "works")))
    assert (tmp_path / "works").exists()
    np.savez(release.folder / GOLDEN_FILE, tiles=tiles, probabilities=np.zeros((1, 1), dtype=np.float32))
    sign(release.folder, site.key)
    with pytest.raises(ReleaseError, match=r"golden\.npz.*allow_pickle"):
        site.store.audit("a.1")
    assert not mark.exists()


TILES, SCORES = np.zeros((2, SIDE, SIDE, 3), dtype=np.uint8), np.zeros((2, 1), dtype=np.float32)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"tiles": TILES}, "probabilities"),
        ({"tiles": TILES.astype(np.float32), "probabilities": SCORES}, "not uint8"),
        ({"tiles": TILES[:, 1:], "probabilities": SCORES}, "not uint8"),
        ({"tiles": TILES[:0], "probabilities": SCORES[:0]}, "not uint8"),
        ({"tiles": TILES, "probabilities": SCORES[:1]}, "not float32"),
        ({"tiles": TILES, "probabilities": np.zeros((2, 3), dtype=np.float32)}, "not float32"),
        ({"tiles": TILES, "probabilities": SCORES + 2}, "outside 0 to 1"),
        ({"tiles": TILES, "probabilities": SCORES * np.float32("nan")}, "outside 0 to 1"),
    ],
)
def test_golden_tiles_of_another_form_are_refused(arrays: dict[str, Any], complaint: str, site: Site) -> None:
    release = site.make("a.1")
    np.savez(release.folder / GOLDEN_FILE, **arrays)
    with pytest.raises(ReleaseError, match=complaint):
        check_golden(release)


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", b"\x93NUMPY\x01\x00junk"])
def test_golden_tiles_that_are_no_archive_are_refused(content: bytes, site: Site) -> None:
    release = site.make("a.1")
    (release.folder / GOLDEN_FILE).write_bytes(content)
    with pytest.raises(ReleaseError, match=r"golden\.npz"):
        check_golden(release)
    np.save(release.folder / "golden.npy", TILES)
    (release.folder / "golden.npy").replace(release.folder / GOLDEN_FILE)
    with pytest.raises(ReleaseError, match=r"golden\.npz"):
        check_golden(release)


def test_a_draft_can_be_measured_before_it_has_a_card_and_a_signature(tmp_path: Path, site: Site) -> None:
    made_files(tmp_path)
    write_facts(tmp_path, made_facts("a.1"))
    assert draft(tmp_path).names == ("crack",)
    with pytest.raises(ReleaseError, match="not signed"):
        load(tmp_path, site.store.trusted)
    with pytest.raises(ReleaseError, match="cannot be the id"):
        write_facts(tmp_path, made_facts("a/1"))


@pytest.mark.parametrize("name", default_store().ids())
def test_what_ships_is_whole_and_says_which_classes_it_knows(name: str) -> None:
    release = default_store().audit(name)
    assert release.names[0] == "crack" and release.trained[0]
    for one in release.classes:
        assert one.trained == (one.high is not None) == (one.low is not None)
        assert one.low is None or one.high is None or 0.0 < one.low <= one.high < 1.0
    assert release.path(CARD_FILE).read_text(encoding="utf-8").startswith(f"# {release.id}\n")
    assert sum((release.folder / file).stat().st_size for file in release.files) <= 40_000_000


def test_the_shipped_champion_finds_cracks_on_photos_it_has_never_seen() -> None:
    metrics = default_store().open().metrics
    crack = metrics["sdnet"]["crack"]
    assert sum(metrics[name]["crack"].photos_present for name in ("sdnet", "sdnet_more", "quay")) >= 10
    assert crack.auroc_interval is not None
    assert crack.auroc_interval.low > 0.80
