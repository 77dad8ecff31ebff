"""A release that was changed is refused, and an alias always means one whole release."""

from pathlib import Path

import msgspec
import pytest

from models.architecture import Architecture
from models.release import (
    CHAMPION,
    FACTS_FILE,
    ReleaseClass,
    ReleaseError,
    ReleaseFacts,
    ReleaseStore,
    default_store,
    digest_of,
    load,
    write_facts,
)


def make_release(store: Path, name: str) -> Path:
    folder = store / name
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights of " + name.encode())
    crack = ReleaseClass(
        name="crack",
        title="Crack",
        severity="low",
        trained=True,
        high=0.6,
        low=0.3,
        coarsest_mm_per_px=2.0,
        min_width_px=1.0,
        weight=1.0,
        recall_floor=0.8,
    )
    facts = ReleaseFacts(
        id=name,
        parent=None,
        created="2026-11-01T00:00:00Z",
        architecture=Architecture(classes=1),
        classes=(crack,),
        preprocessing="none",
        stem_origin="nowhere",
        training={},
        data=(),
        metrics={},
        photos={},
        files={"model.onnx": digest_of(folder / "model.onnx")},
    )
    write_facts(folder, facts)
    return folder


def test_a_release_is_read_as_it_was_written(tmp_path: Path) -> None:
    release = load(make_release(tmp_path, "a.1"))
    assert (release.id, release.names, release.trained, release.tile_size) == ("a.1", ("crack",), (True,), 256)
    assert release.path("model.onnx").read_bytes() == b"weights of a.1"
    with pytest.raises(ReleaseError, match=r"holds no card"):
        release.path("card")


def test_one_changed_byte_is_refused(tmp_path: Path) -> None:
    folder = make_release(tmp_path, "a.1")
    (folder / "model.onnx").write_bytes(b"weights of a.2")
    with pytest.raises(ReleaseError, match=r"model\.onnx.*sha256"):
        load(folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = make_release(tmp_path, "a.1")
    (folder / "model.onnx").unlink()
    with pytest.raises(ReleaseError, match=r"model\.onnx"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"colour": "red"}, "colour"),
        ({"files": {"../other/model.onnx": "0" * 64}}, "outside"),
        ({"classes": []}, "0 classes for 1 outputs"),
        ({"id": 7}, "id"),
    ],
)
def test_facts_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    folder = make_release(tmp_path, "a.1")
    facts = msgspec.json.decode((folder / FACTS_FILE).read_bytes())
    (folder / FACTS_FILE).write_bytes(msgspec.json.encode({**facts, **change}))
    with pytest.raises(ReleaseError, match=complaint):
        load(folder)


def test_an_alias_moves_from_one_release_to_another_and_leaves_no_litter(tmp_path: Path) -> None:
    store = ReleaseStore(tmp_path)
    make_release(tmp_path, "a.1")
    make_release(tmp_path, "a.2")
    store.point(CHAMPION, "a.1")
    store.point("candidate", "a.2")
    assert (store.resolve(), store.resolve("candidate"), store.resolve("a.2")) == ("a.1", "a.2", "a.2")
    store.point(CHAMPION, "a.2")
    assert store.open().id == "a.2"
    assert store.aliases() == {"candidate": "a.2", "champion": "a.2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.1", "a.2", "aliases.json"]


def test_an_alias_never_means_a_release_that_is_missing_or_broken(tmp_path: Path) -> None:
    store = ReleaseStore(tmp_path)
    folder = make_release(tmp_path, "a.1")
    store.point(CHAMPION, "a.1")
    with pytest.raises(ReleaseError, match=r"no release 'a\.9'; there are a\.1"):
        store.point(CHAMPION, "a.9")
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(ReleaseError, match="sha256"):
        store.point("candidate", "a.1")
    assert store.aliases() == {"champion": "a.1"}


def test_a_release_in_another_ones_folder_is_refused(tmp_path: Path) -> None:
    make_release(tmp_path, "a.1").rename(tmp_path / "b.1")
    with pytest.raises(ReleaseError, match=r"named b\.1"):
        ReleaseStore(tmp_path).open("b.1")


def test_the_name_of_a_release_cannot_become_an_alias(tmp_path: Path) -> None:
    make_release(tmp_path, "a.1")
    with pytest.raises(ReleaseError, match="cannot be an alias"):
        ReleaseStore(tmp_path).point("a.1", "a.1")


def test_an_empty_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="there are none"):
        ReleaseStore(tmp_path).open()


def test_the_shipped_champion_is_whole_and_says_which_classes_it_knows() -> None:
    release = default_store().open()
    assert release.names[0] == "crack" and release.trained[0]
    for one in release.classes:
        assert one.trained == (one.high is not None) == (one.low is not None)
        assert one.low is None or one.high is None or 0.0 < one.low < one.high < 1.0
    assert not dict(zip(release.names, release.trained, strict=True))["algae"]


def test_the_shipped_champion_finds_cracks_on_photos_it_has_never_seen() -> None:
    crack = default_store().open().metrics["sdnet"]["crack"]
    assert crack.photos >= 10 and crack.auroc_interval is not None
    assert crack.auroc_interval.low > 0.80
