"""A release travels as one file of the same bytes, and whatever else comes in such a file stays outside."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from models.release import MODEL_FILE, ReleaseError
from models.releases.archive import export_release, import_release
from models.releases.signing import read_keys
from models.releases.store import ReleaseStore
from models.releases.writing import MAX_BYTES, MAX_FILES
from tests.unit.models.made_releases import Site

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "here")


@pytest.fixture
def other(tmp_path: Path, site: Site) -> ReleaseStore:
    """The store of another box that trusts this site."""
    return ReleaseStore(tmp_path / "there", read_keys(site.keys))


def held(store: ReleaseStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir() if path.name != ".lock") if store.folder.exists() else []


def test_an_exported_release_is_imported_whole_and_verified(site: Site, other: ReleaseStore, tmp_path: Path) -> None:
    release = site.make("a.1")
    export_release(release, tmp_path / "a.tar")
    arrived = import_release(other, tmp_path / "a.tar")
    assert (arrived.id, arrived.digest, arrived.folder) == ("a.1", release.digest, other.folder / "a.1")
    assert {path.name: path.read_bytes() for path in arrived.folder.iterdir()} == {
        path.name: path.read_bytes() for path in release.folder.iterdir()
    }
    with pytest.raises(ReleaseError, match="a release never changes"):
        import_release(other, tmp_path / "a.tar")


def test_a_folder_is_imported_as_well(site: Site, other: ReleaseStore) -> None:
    release = site.make("a.1")
    assert import_release(other, release.folder).digest == release.digest


def test_an_export_is_the_same_bytes_whenever_and_by_whomever(site: Site, other: ReleaseStore, tmp_path: Path) -> None:
    release = site.make("a.1")
    export_release(release, tmp_path / "a.tar")
    arrived = import_release(other, tmp_path / "a.tar")
    for number, path in enumerate(sorted(arrived.folder.iterdir())):
        os.utime(path, (number, number))
        path.chmod(0o600)
    export_release(arrived, tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_an_export_replaces_nothing_and_leaves_no_half(site: Site, tmp_path: Path) -> None:
    release = site.make("a.1")
    (tmp_path / "a.tar").write_bytes(b"mine")
    with pytest.raises(ReleaseError, match="is not replaced"):
        export_release(release, tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == b"mine"
    with pytest.raises(ReleaseError, match=r"nowhere/a\.tar"):
        export_release(release, tmp_path / "nowhere" / "a.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "here"]


def first(members: Members, **changes: object) -> Members:
    for name, value in changes.items():
        setattr(members[0][0], name, value)
    return members


def added(members: Members, name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Members:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return [*members, (entry, b"")]


HOSTILE: dict[str, tuple[Callable[[Members], Members], str]] = {
    "path upwards": (lambda m: first(m, name="a.1/../../evil"), "is not ID/FILE"),
    "release called dots": (lambda m: first(m, name="../evil"), "is not ID/FILE"),
    "absolute path": (lambda m: first(m, name="/tmp/evil"), "is not ID/FILE"),
    "file beside": (lambda m: added(m, "evil"), "is not ID/FILE"),
    "file below": (lambda m: added(m, "a.1/more/evil"), "is not ID/FILE"),
    "folder": (lambda m: added(m, "a.1/more", tarfile.DIRTYPE), "is not ID/FILE"),
    "symbolic link": (lambda m: added(m, "a.1/evil", tarfile.SYMTYPE, "/etc/passwd"), "is not ID/FILE"),
    "hard link": (lambda m: added(m, "a.1/evil", tarfile.LNKTYPE, "a.1/model.onnx"), "is not ID/FILE"),
    "device": (lambda m: added(m, "a.1/evil", tarfile.CHRTYPE), "is not ID/FILE"),
    "two releases": (lambda m: added(m, "b.1/config.json"), "holds b.1 beside a.1"),
    "a file twice": (lambda m: [*m, m[0]], "is there twice"),
    "extra file": (lambda m: added(m, "a.1/evil.py"), "evil.py is not part"),
    "missing file": (lambda m: [one for one in m if not one[0].name.endswith("golden.npz")], "golden.npz is missing"),
    "another name": (lambda m: [(first([one], name=one[0].name.replace("a.1", "c.1")))[0] for one in m], "named c.1"),
    "hidden name": (lambda m: [(first([one], name=one[0].name.replace("a.1", ".a")))[0] for one in m], "named .a"),
    "too many files": (
        lambda m: [*m, *(one for n in range(MAX_FILES) for one in added([], f"a.1/{n}"))],
        f"at most {MAX_FILES} files",
    ),
    "nothing": (lambda m: [], "an empty archive"),
    "changed byte": (
        lambda m: [(entry, b"WEIGHTS" if entry.name.endswith(MODEL_FILE) else content) for entry, content in m],
        "its sha256 differs",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused_and_nothing_of_it_stays(
    what: str, site: Site, other: ReleaseStore, tmp_path: Path
) -> None:
    change, complaint = HOSTILE[what]
    export_release(site.make("a.1"), tmp_path / "good.tar")
    with tarfile.open(tmp_path / "good.tar") as tar:
        members = [(entry, tar.extractfile(entry).read()) for entry in tar]  # type: ignore[union-attr]
    with tarfile.open(tmp_path / "bad.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for entry, content in change(members):
            tar.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ReleaseError) as refused:
        import_release(other, tmp_path / "bad.tar")
    assert complaint in str(refused.value)
    assert held(other) == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "there") == before


def test_an_archive_that_claims_to_be_huge_is_refused_before_it_is_written(other: ReleaseStore, tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.1/model.onnx")
    entry.size = MAX_BYTES + 1
    (tmp_path / "bad.tar").write_bytes(entry.tobuf(tarfile.USTAR_FORMAT) + bytes(10240))
    with pytest.raises(ReleaseError, match="1024 MiB"):
        import_release(other, tmp_path / "bad.tar")
    assert held(other) == []


def test_what_is_no_archive_or_half_of_one_is_refused(site: Site, other: ReleaseStore, tmp_path: Path) -> None:
    export_release(site.make("a.1"), tmp_path / "a.tar")
    whole = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(site.store.folder / "a.1", "a.1")
    for content in (b"", b"no archive" * 100, whole[:-20000], (tmp_path / "a.tar.gz").read_bytes()):
        (tmp_path / "bad.tar").write_bytes(content)
        with pytest.raises(ReleaseError, match=r"bad\.tar|is missing|not signed"):
            import_release(other, tmp_path / "bad.tar")
        assert held(other) == []
    with pytest.raises(ReleaseError, match="No such file"):
        import_release(other, tmp_path / "nowhere.tar")


def test_the_check_has_the_last_word(site: Site, other: ReleaseStore) -> None:
    release = site.make("a.1")
    with pytest.raises(ReleaseError, match=r"a\.1: golden tiles are off"):
        import_release(other, release.folder, lambda _: "golden tiles are off")
    assert held(other) == []


def test_a_folder_with_a_link_in_it_is_refused(site: Site, other: ReleaseStore, tmp_path: Path) -> None:
    folder = shutil.copytree(site.make("a.1").folder, tmp_path / "a.1")
    (folder / MODEL_FILE).unlink()
    (folder / MODEL_FILE).symlink_to(site.store.folder / "a.1" / MODEL_FILE)
    with pytest.raises(ReleaseError, match="plain files"):
        import_release(other, folder)
    assert held(other) == []
