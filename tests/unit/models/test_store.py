"""A store holds whole releases only, and an alias always means one of them, whoever changes it and however it ends."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.release import CONFIG_FILE, MODEL_FILE, Release, ReleaseError
from models.releases.disk import aside
from models.releases.signing import new_key, read_keys
from models.releases.store import By, Change, ReleaseStore, default_store, site_store
from models.releases.writing import NewRelease, write_release
from tests.unit.models.made_releases import Site, made_class, made_facts, made_files

ADA = By("ada", "better on piers")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def litter(store: ReleaseStore) -> list[str]:
    """What lies in a store beside its releases."""
    return sorted(path.name for path in store.folder.iterdir() if path.name not in store.own_ids())


def refuse(release: Release) -> str:
    return f"the golden tiles of {release.id} are off"


def test_a_written_release_is_there_under_its_name_and_nothing_else_is(site: Site) -> None:
    release = site.make("a.1")
    assert release.folder == site.store.folder / "a.1"
    assert (site.store.ids(), litter(site.store)) == (["a.1"], [".lock"])
    assert site.store.open("a.1") == release
    assert {path.stat().st_mode & 0o777 for path in release.folder.iterdir()} == {0o644}


def test_files_may_come_from_a_folder(site: Site, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    made_files(tmp_path / "model")
    release = write_release(site.store, NewRelease(made_facts("a.1"), tmp_path / "model"), site.key)
    assert release.path(MODEL_FILE).read_bytes() == b"weights"
    (tmp_path / "model" / "more").symlink_to("/etc/passwd")
    with pytest.raises(ReleaseError, match="plain files"):
        write_release(site.store, NewRelease(made_facts("a.2"), tmp_path / "model"), site.key)
    assert site.store.ids() == ["a.1"]


def test_a_release_that_is_refused_leaves_the_store_as_it_was(site: Site, tmp_path: Path) -> None:
    stranger = new_key(tmp_path / "strange", "stranger").private
    two = (made_class(), made_class("rust"))
    wrong = {
        "golden tiles of a.1 are off": (NewRelease(made_facts("a.1"), made_files, refuse), site.key),
        "not trusted here": (NewRelease(made_facts("a.1"), made_files), stranger),
        "0 <= low": (NewRelease(made_facts("a.1", (made_class(high=2.0),)), made_files), site.key),
        r"not\s+float32\[2, 2\]": (NewRelease(made_facts("a.1", two), made_files), site.key),
        "golden.npz, model.onnx is missing": (NewRelease(made_facts("a.1"), lambda _: None), site.key),
        "no private EC key": (NewRelease(made_facts("a.1"), made_files), tmp_path / "lost.pem"),
    }
    for complaint, (new, key) in wrong.items():
        with pytest.raises(ReleaseError, match=complaint):
            write_release(site.store, new, key)
        assert (site.store.ids(), litter(site.store)) == ([], [".lock"])


def test_a_release_never_changes(site: Site) -> None:
    first = site.make("a.1")
    with pytest.raises(ReleaseError, match="a release never changes"):
        site.make("a.1", parent="a.0")
    assert site.store.open("a.1") == first


def test_what_a_dead_writer_left_is_cleaned_and_what_a_living_one_writes_is_not(site: Site) -> None:
    site.make("a.1")
    dead = site.store.folder / ".writing-dead" / "a.2"
    dead.mkdir(parents=True)
    (dead / "config.json").write_bytes(b"{")
    (site.store.folder / ".writing-aliases.json").write_bytes(b"{")
    assert site.store.ids() == ["a.1"]
    with aside(site.store.folder) as living:
        assert not dead.exists()
        site.make("a.3")
        assert living.is_dir()
    assert litter(site.store) == [".lock"]


def test_promote_keeps_what_was_champion_and_rollback_swaps_back(site: Site) -> None:
    for name in ("a.1", "a.2", "a.3"):
        site.make(name)
    site.store.promote("a.1", ADA)
    assert site.store.aliases() == {"champion": "a.1"}
    with pytest.raises(ReleaseError, match="no way back"):
        site.store.rollback(ADA)
    site.store.point("candidate", "a.2", ADA)
    assert site.store.promote("candidate", ADA).id == "a.2"
    site.store.promote("a.2", ADA)  # it is already
    assert site.store.aliases() == {"candidate": "a.2", "champion": "a.2", "previous": "a.1"}
    assert site.store.rollback(By("bob", "false alarms")).id == "a.1"
    assert site.store.aliases() == {"candidate": "a.2", "champion": "a.1", "previous": "a.2"}
    site.store.promote("a.3", ADA)
    assert site.store.open().id == "a.3" and site.store.open("previous").id == "a.1"
    assert litter(site.store) == [".lock", "aliases.json", "history.jsonl"]


@pytest.mark.parametrize("lost", [".", CONFIG_FILE])
def test_rollback_works_when_the_champion_is_gone_and_leaves_no_way_back_to_it(lost: str, site: Site) -> None:
    for name in ("a.1", "a.2"):
        site.make(name)
        site.store.promote(name, ADA)
    path = site.store.folder / "a.2" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert site.store.rollback(ADA).id == "a.1"
    assert site.store.aliases() == {"champion": "a.1"} == site.store.history()[-1].after
    with pytest.raises(ReleaseError, match="no way back"):
        site.store.rollback(ADA)


def test_a_rollback_that_is_refused_changes_nothing_and_says_what_to_do(site: Site) -> None:
    for name in ("a.1", "a.2"):
        site.make(name)
        site.store.promote(name, ADA)
    advice = r"nothing was changed; .*spanwatch release promote RELEASE"
    with pytest.raises(ReleaseError, match=rf"golden tiles of a\.1 are off; {advice}"):
        site.store.rollback(ADA, refuse)
    shutil.rmtree(site.store.folder / "a.1")
    with pytest.raises(ReleaseError, match=rf"no release 'a\.1'; .*{advice}"):
        site.store.rollback(ADA)
    assert site.store.aliases() == {"champion": "a.2", "previous": "a.1"}
    assert len(site.store.history()) == 2


def test_the_history_says_who_changed_what_and_why(site: Site) -> None:
    site.make("a.1")
    site.make("a.2")
    assert site.store.history() == []
    site.store.promote("a.1", ADA)
    site.store.promote("a.2", ADA)
    site.store.rollback(By("bob", "false alarms"))
    told = site.store.history()
    assert [(one.what, one.who, one.why) for one in told] == [
        ("promote a.1", "ada", "better on piers"),
        ("promote a.2", "ada", "better on piers"),
        ("rollback a.1", "bob", "false alarms"),
    ]
    assert [one.before for one in told[1:]] == [one.after for one in told[:-1]]
    assert told[-1].after == site.store.aliases()


def test_half_a_line_of_a_killed_writer_is_no_history_and_does_not_spoil_the_next_line(site: Site) -> None:
    site.make("a.1")
    site.make("a.2")
    site.store.promote("a.1", ADA)
    path = site.store.folder / "history.jsonl"
    whole = path.read_bytes()
    for cut in (1, 20, len(whole) - 1):
        path.write_bytes(whole + whole[:cut])
        assert len(site.store.history()) == 1
    site.store.promote("a.2", ADA)
    assert [one.what for one in site.store.history()] == ["promote a.1", "promote a.2"]
    path.write_bytes(whole + b"{}\n")
    with pytest.raises(ReleaseError, match=r"history\.jsonl"):
        site.store.history()


def test_an_alias_never_means_a_release_that_is_missing_broken_or_refused(site: Site) -> None:
    site.make("a.1")
    site.make("a.2")
    site.store.promote("a.1", ADA)
    with pytest.raises(ReleaseError, match=r"no release 'a\.9'; there are a\.1, a\.2"):
        site.store.promote("a.9", ADA)
    with pytest.raises(ReleaseError, match=r"golden tiles of a\.2 are off"):
        site.store.promote("a.2", ADA, refuse)
    with pytest.raises(ReleaseError, match=r"golden tiles of a\.2 are off"):
        site.store.point("candidate", "a.2", ADA, refuse)
    with pytest.raises(ReleaseError, match="'best' is no alias"):
        site.store.point("best", "a.2", ADA)
    (site.store.folder / "a.2" / MODEL_FILE).write_bytes(b"")
    for change in (site.store.promote, lambda name, by: site.store.point("shadow", name, by)):
        with pytest.raises(ReleaseError, match="sha256"):
            change("a.2", ADA)
    assert site.store.aliases() == {"champion": "a.1"}
    assert len(site.store.history()) == 1


def test_a_release_in_another_ones_folder_is_refused(site: Site) -> None:
    site.make("a.1").folder.rename(site.store.folder / "b.1")
    with pytest.raises(ReleaseError, match=r"named b\.1, the release a\.1"):
        site.store.open("b.1")


def test_an_empty_store_says_so(site: Site) -> None:
    with pytest.raises(ReleaseError, match="there are none"):
        site.store.open()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"champion": 7}'])
def test_a_spoiled_alias_file_is_named(content: bytes, site: Site) -> None:
    site.make("a.1")
    (site.store.folder / "aliases.json").write_bytes(content)
    with pytest.raises(ReleaseError, match=r"aliases\.json"):
        site.store.open()


def test_a_sites_store_serves_what_ships_until_the_site_promotes_its_own(site: Site) -> None:
    shipped = default_store().open()
    site.make("a.1")
    store = site_store(site.store.folder, site.keys)
    assert store.open().id == shipped.id and store.open().folder == shipped.folder
    assert store.ids() == sorted(["a.1", *default_store().ids()])
    store.promote("a.1", ADA)
    assert store.own_aliases() == {"champion": "a.1", "previous": shipped.id}
    assert store.open().id == "a.1"
    assert store.rollback(ADA).id == shipped.id == store.open().id
    with pytest.raises(ReleaseError, match="never changes"):
        write_release(store, NewRelease(made_facts(shipped.id), made_files), site.key)
    assert default_store().open() == shipped


def test_an_update_that_ships_something_else_takes_no_release_away_from_a_site(site: Site) -> None:
    site.make("a.1")
    store = site_store(site.store.folder, site.keys)
    shipped = store.open()
    store.promote("a.1", ADA)
    store.rollback(ADA)
    updated = ReleaseStore(site.store.folder, store.trusted, ReleaseStore(site.folder / "ships nothing", {}))
    assert updated.open() == msgspec.structs.replace(shipped, folder=site.store.folder / shipped.id)
    assert litter(site.store) == [".lock", "aliases.json", "history.jsonl"]


def test_a_site_that_promotes_what_ships_keeps_it_whatever_ships_next(site: Site) -> None:
    for name in ("a.1", "b.1"):
        site.make(name)
    ships = site.store
    ships.promote("a.1", ADA)
    store = ReleaseStore(site.folder / "own", ships.trusted, fallback=ships)
    for _ in range(2):  # the second time it is already
        store.promote("a.1", By("bob", "keep this one"))
    assert store.own_aliases() == {"champion": "a.1"} and store.own_ids() == ["a.1"]
    assert [one.why for one in store.history()] == ["keep this one"]
    ships.promote("b.1", ADA)
    assert store.open().id == "a.1"


def test_what_ships_gives_no_way_back_that_the_site_has_not_gone(site: Site) -> None:
    for name in ("a.1", "b.1", "b.2"):
        site.make(name)
    ships = site.store
    for name in ("a.1", "b.1"):
        ships.promote(name, ADA)
    store = ReleaseStore(site.folder / "own", ships.trusted, fallback=ships)
    store.promote("b.2", ADA)
    for folder in (store.folder, ships.folder):
        shutil.rmtree(folder / "b.2")
    assert store.rollback(ADA).id == "b.1"
    with pytest.raises(ReleaseError, match="there is no way back"):
        store.rollback(ADA)
    assert store.open().id == "b.1"


@pytest.mark.parametrize("change", ["promote", "rollback"])
def test_what_is_left_of_a_copy_of_what_ships_is_in_nobodys_way(change: str, site: Site) -> None:
    site.make("a.1")
    store = site_store(site.store.folder, site.keys)
    shipped = store.promote("champion", ADA).id
    store.promote("a.1", ADA)
    (site.store.folder / shipped / CONFIG_FILE).unlink()
    store.promote(shipped, ADA) if change == "promote" else store.rollback(ADA)
    assert store.own_aliases() == {"champion": shipped, "previous": "a.1"}
    assert store.open().folder == site.store.folder / shipped
    assert litter(site.store) == [".lock", "aliases.json", "history.jsonl"]


def test_an_alias_of_a_site_leaves_the_champion_to_what_ships(site: Site) -> None:
    site.make("a.1")
    store = site_store(site.store.folder, site.keys)
    store.point("shadow", "a.1", ADA)
    assert store.own_aliases() == {"shadow": "a.1"}
    assert store.open() == default_store().open()


def test_a_champion_of_the_site_that_is_gone_is_not_replaced_in_silence(site: Site) -> None:
    site.make("a.1")
    store = site_store(site.store.folder, site.keys)
    store.promote("a.1", ADA)
    shutil.rmtree(site.store.folder / "a.1")
    with pytest.raises(ReleaseError, match=r"no release 'a\.1'"):
        store.open()
    site.make("a.2")
    store.promote("a.2", ADA)
    assert store.open().id == "a.2"
    assert store.open("previous").id == default_store().open().id


def test_a_store_trusts_the_keys_it_was_given_and_what_ships_only_its_own(site: Site) -> None:
    site.make("a.1")
    with pytest.raises(ReleaseError, match="not trusted here"):
        site_store(site.store.folder).open("a.1")
    assert site.store.signer(site.store.open("a.1")).name == "site"
    assert site_store(site.store.folder, site.keys).signer(default_store().open()).name.startswith("spanwatch")
    assert read_keys(site.keys).keys() == site.store.trusted.keys()


def test_a_change_reads_back_as_it_was_written() -> None:
    one = Change(at="2026-11-01T00:00:00Z", what="promote a", who="ada", why="\n", before={}, after={"champion": "a"})
    line = msgspec.json.encode(one)
    assert b"\n" not in line and msgspec.json.decode(line, type=Change) == one


def test_the_golden_tiles_of_what_ships_are_looked_at(site: Site) -> None:
    def spoiled(folder: Path) -> None:
        made_files(folder)
        np.savez(folder / "golden.npz", tiles=np.zeros(3))

    with pytest.raises(ReleaseError, match=r"golden\.npz"):
        write_release(site.store, NewRelease(made_facts("a.1"), spoiled), site.key)
    assert site.store.ids() == []
