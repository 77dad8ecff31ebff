"""A store under SIGKILL at every file operation, and under many writers at once: never half a release, no alias lost.

Run as a script it is those writers: `test_release_kills.py FOLDER write | promote | race | end`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from models.release import ReleaseError
from models.releases.disk import aside
from models.releases.store import By, ReleaseStore
from tests.unit.models.made_releases import Site

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
ALIASES = ("candidate", "shadow", "champion", "previous")
TURNS = 12
WRITERS = ("w", "x", "y")
GIVEN_UP = 100  # a writer that is refused is quick: these meet often


def in_child(work: Callable[[], object]) -> int:
    """The id of a process that does the work; this one has no threads, so that it may fork."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
    return child


def ended(child: int) -> int:
    """How a process ended: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying(folder: Path, count: int, work: Callable[[], object]) -> Callable[[], object]:
    """The work, killed before its operation number `count` on a path in the folder."""

    def until_killed() -> object:
        left = itertools.count(count, -1)

        def watch(_: str, arguments: tuple[object, ...]) -> None:
            if arguments and str(arguments[0]).startswith(str(folder)) and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)  # Python tells it of every open, rename, removal, change of mode
        return work()

    return until_killed


def state(store: ReleaseStore, name: str) -> str:
    try:
        return "whole" if store.open(name).id == name else "another"
    except ReleaseError as error:
        return "absent" if f"no release {name!r}" in str(error) else str(error)


def left_behind(store: ReleaseStore) -> int:
    return len(list(store.folder.glob(".*"))) - 1  # the lock stays


def write(site: Site) -> list[dict[str, object]]:
    """For every operation of a write: how the writer ended, what is there of its release, what it left behind."""
    site.make("first")
    told = []
    for count in itertools.count():
        code = ended(in_child(dying(site.folder, count, lambda count=count: site.make(f"a.{count}"))))
        told.append({"code": code, "found": state(site.store, f"a.{count}"), "left": left_behind(site.store)})
        if code == 0:
            return told
    raise AssertionError("unreachable")


def promote(site: Site) -> list[dict[str, object]]:
    """For every operation of a promotion: how it ended, who is champion, whether the next change follows from it."""
    for name in ("a.0", "a.1"):
        site.make(name)
    site.store.promote("a.0", By("ada", "before"))
    told = []
    for count in itertools.count():
        code = ended(in_child(dying(site.folder, count, lambda: site.store.promote("a.1", By("ada", "dies")))))
        aliases = site.store.aliases()
        site.store.promote("a.1", By("ada", "again"))  # changes nothing if it is already
        site.store.promote("a.0", By("ada", "back"))
        follows = site.store.history()[-2].after == site.store.history()[-1].before
        told.append({"code": code, "champion": aliases["champion"], "follows": follows})
        if code == 0:
            return told
    raise AssertionError("unreachable")


def race(site: Site) -> list[int]:
    """Each process moves its own alias back and forth or writes its own releases, all at once."""
    for name in ("a.0", "a.1"):
        site.make(name)

    def move(alias: str) -> None:
        for turn in range(TURNS):
            site.store.point(alias, f"a.{turn % 2}", By(alias, f"turn {turn}"))

    def fill(writer: str) -> None:
        for turn in range(TURNS):
            site.make(f"{writer}.{turn}")
            for _ in range(GIVEN_UP):
                with aside(site.store.folder):
                    pass

    works = [*(partial(move, alias) for alias in ALIASES), *(partial(fill, writer) for writer in WRITERS)]
    return [ended(child) for child in [in_child(work) for work in works]]


def end(site: Site) -> list[str]:
    """For every operation of a writer: what it meets if another one ends just before that; "" if nothing."""
    other, left = contextlib.ExitStack(), itertools.count(-1, -1)

    def watch(_: str, __: tuple[object, ...]) -> None:
        if next(left) == 0:
            other.close()

    sys.addaudithook(watch)
    told, ends = [], True
    while ends:
        other.enter_context(aside(site.folder))
        left = itertools.count(len(told), -1)
        met = ""
        try:
            with aside(site.folder):
                pass
        except OSError as error:
            met = repr(error)
        ends = next(left) < 0
        told.append(met)
        other.close()
    return told


def script(folder: Path, what: str) -> list[Any]:
    words = [sys.executable, __file__, str(folder), what]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_writer_killed_at_any_operation_leaves_a_whole_release_or_none(tmp_path: Path) -> None:
    *killed, last = script(tmp_path, "write")
    assert len(killed) > 50 and last == {"code": 0, "found": "whole", "left": 0}
    assert {one["code"] for one in killed} == {-signal.SIGKILL}
    assert [one for one in killed if one["found"] not in {"absent", "whole"}] == []
    assert {one["found"] for one in killed} == {"absent", "whole"}
    assert all(one["left"] in (0, 1) for one in killed)  # the next writer removes what the one before it left


@pytest.mark.slow
def test_a_promotion_killed_at_any_operation_spoils_neither_aliases_nor_history(tmp_path: Path) -> None:
    *killed, last = script(tmp_path, "promote")
    assert len(killed) > 20 and last == {"code": 0, "champion": "a.1", "follows": True}
    assert {one["code"] for one in killed} == {-signal.SIGKILL}
    assert {one["champion"] for one in killed} == {"a.0", "a.1"}
    assert all(one["follows"] for one in killed)


@pytest.mark.slow
def test_processes_that_write_releases_and_change_aliases_at_once_lose_none(tmp_path: Path) -> None:
    assert script(tmp_path, "race") == [0] * (len(ALIASES) + len(WRITERS))
    store = Site(tmp_path).store
    assert set(store.ids()) == {"a.0", "a.1", *(f"{writer}.{turn}" for writer in WRITERS for turn in range(TURNS))}
    assert {state(store, name) for name in store.ids()} == {"whole"}
    assert left_behind(store) == 0
    assert store.aliases() == dict.fromkeys(ALIASES, f"a.{(TURNS - 1) % 2}")
    told = store.history()
    assert len(told) == TURNS * len(ALIASES)
    assert [one.before for one in told[1:]] == [one.after for one in told[:-1]]
    for alias in ALIASES:
        assert [one.why for one in told if one.who == alias] == [f"turn {turn}" for turn in range(TURNS)]


@pytest.mark.slow
def test_a_writer_may_end_at_any_operation_of_another_one(tmp_path: Path) -> None:
    told = script(tmp_path, "end")
    assert len(told) > 10 and set(told) == {""}
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


if __name__ == "__main__":
    works: dict[str, Callable[[Site], object]] = {"write": write, "promote": promote, "race": race, "end": end}
    work = works[sys.argv[2]]
    sys.stdout.write(json.dumps(work(Site(Path(sys.argv[1])))))
