"""The store: releases side by side, four aliases that say which of them is which, and a history of who moved them."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import msgspec

from models.release import ALIASES, CHAMPION, CONFIG_FILE, Release, ReleaseError
from models.releases.disk import append_line, aside, locked, replace_file, settle
from models.releases.folder import check_golden, load
from models.releases.signing import Trusted, TrustedKey, read_keys, signer_of, verify_with_library

ZOO = Path(__file__).parents[1] / "zoo"
KEYS = ZOO / "keys"
ALIASES_FILE, HISTORY_FILE = "aliases.json", "history.jsonl"
PREVIOUS = "previous"

Check: TypeAlias = Callable[[Release], "str | None"]
"""What else must hold before a release enters a store: None is good, a sentence is why not."""


@dataclass(frozen=True)
class By:
    """Who changes an alias, and why."""

    who: str
    why: str


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of `history.jsonl`, written before the change: the aliases before it and after it, and who wanted it.

    A change that a kill kept from happening shows: the next line starts from the same `before`.
    """

    at: str
    what: str
    who: str
    why: str
    before: dict[str, str]
    after: dict[str, str]


class ReleaseStore:
    """A folder of releases, one folder each, and one file that says which alias means which.

    `fallback` is asked for every name this store does not know: a site's own store starts out empty, and what ships
    serves until the site promotes something else. What an alias of this store means lies in this store, copied if need
    be: an update of spanwatch takes nothing away from under it.

    Rule: whoever needs "the current release" resolves an alias once and keeps the id. Trap: resolving again for the
    next tile may give another release in the middle of a photo.
    """

    def __init__(self, folder: Path, trusted: Trusted | None = None, fallback: ReleaseStore | None = None) -> None:
        self.folder = folder
        self.trusted = read_keys(KEYS) if trusted is None else trusted
        self.fallback = fallback

    def own_ids(self) -> list[str]:
        """Ids of the releases in this folder, sorted."""
        found = self.folder.glob(f"*/{CONFIG_FILE}")
        return sorted(path.parent.name for path in found if not path.parent.name.startswith("."))

    def ids(self) -> list[str]:
        """Ids of all releases that can be opened, sorted."""
        return sorted({*self.own_ids(), *(self.fallback.ids() if self.fallback else ())})

    def own_aliases(self) -> dict[str, str]:
        """alias -> id as set in this store; empty before the first change."""
        path = self.folder / ALIASES_FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise ReleaseError(f"{path}: {error}") from error

    def aliases(self) -> dict[str, str]:
        """alias -> id; what this store says wins over the fallback."""
        return {**(self.fallback.aliases() if self.fallback else {}), **self.own_aliases()}

    def history(self) -> list[Change]:
        """Every change of an alias in this store, oldest first."""
        path = self.folder / HISTORY_FILE
        try:
            *lines, _ = path.read_bytes().split(b"\n")  # after the last newline: nothing, or a killed writer's half
            return [msgspec.json.decode(line, type=Change) for line in lines]
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            raise ReleaseError(f"{path}: {error}") from error

    def resolve(self, name: str = CHAMPION) -> str:
        """The id an alias or an id stands for; raises ReleaseError if neither store has it."""
        known = self.ids()
        wanted = self.aliases().get(name, name)
        if wanted not in known:
            raise ReleaseError(f"{self.folder}: no release {wanted!r}; there are {', '.join(known) or 'none'}")
        return wanted

    def folder_of(self, name: str) -> Path:
        """Where the release behind an alias or an id lies; raises ReleaseError if neither store has it."""
        wanted = self.resolve(name)
        if self.fallback and wanted not in self.own_ids():
            return self.fallback.folder_of(wanted)
        return self.folder / wanted

    def open(self, name: str = CHAMPION) -> Release:
        """The verified release behind an alias or an id; raises ReleaseError."""
        return _named(load(self.folder_of(name), self.trusted))

    def audit(self, name: str = CHAMPION, check: Check = lambda _: None) -> Release:
        """As `open`, and the signing library agrees, the golden tiles are sound, `check` is content."""
        release = audited(self.folder_of(name), self.trusted)
        if problem := check(release):
            raise ReleaseError(f"{release.id}: {problem}")
        return release

    def signer(self, release: Release) -> TrustedKey:
        """The trusted key that signed a verified release."""
        return self.trusted[signer_of(release.folder)]

    def point(self, alias: str, name: str, by: By, check: Check = lambda _: None) -> Release:
        """Let an alias mean a release, at once and for every later reader; the release is audited first."""
        if alias not in ALIASES:
            raise ReleaseError(f"{alias!r} is no alias of a release; there are {', '.join(ALIASES)}")
        release = self.audit(name, check)
        with locked(self.folder):
            self._change(f"{alias} {release.id}", {alias: release.id}, by)
        return release

    def promote(self, name: str, by: By, check: Check = lambda _: None) -> Release:
        """Make a release the champion, and what was the champion `previous`.

        Promoting this store's champion changes nothing. Promoting the fallback's keeps it, whatever that ships next.
        """
        release = self.audit(name, check)
        with locked(self.folder):
            if self.own_aliases().get(CHAMPION) != release.id:
                old = self.aliases().get(CHAMPION)
                back = {PREVIOUS: old} if old != release.id and old in self.ids() else {}  # else it is no way back
                self._change(f"promote {release.id}", {CHAMPION: release.id, **back}, by)
        return release

    def rollback(self, by: By, check: Check = lambda _: None) -> Release:
        """Swap champion and previous; a champion that is gone becomes nothing's previous.

        Raises ReleaseError if nothing was champion before, or if it would be refused as a champion now: roles that
        start would refuse it too, and the one that runs, however bad, is better than none.
        """
        with locked(self.folder):
            # What was champion here: the fallback may ship a `previous` of its own.
            old, back = self.aliases().get(CHAMPION), self.own_aliases().get(PREVIOUS)
            if old is None or back is None:
                raise ReleaseError(f"{self.folder}: no release was champion before this one; there is no way back")
            try:
                release = self.audit(back, check)
            except ReleaseError as error:
                raise ReleaseError(
                    f"{error}; nothing was changed; make another one champion, `spanwatch release list` names them: "
                    "spanwatch release promote RELEASE"
                ) from error
            moved = {CHAMPION: release.id, PREVIOUS: old if old in self.ids() else None}
            self._change(f"rollback {release.id}", moved, by)
        return release

    def _change(self, what: str, moved: Mapping[str, str | None], by: By) -> None:
        """Move some aliases, and drop those that mean None from now on; the caller holds the lock."""
        for release_id in moved.values():
            if release_id is not None and release_id not in self.own_ids():
                self._adopt(release_id)
        before = self.own_aliases()
        wanted = sorted({**before, **moved}.items())
        after = {alias: release_id for alias, release_id in wanted if release_id is not None}
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        change = Change(at=now, what=what, who=by.who, why=by.why, before=before, after=after)
        append_line(self.folder / HISTORY_FILE, msgspec.json.encode(change))
        replace_file(self.folder / ALIASES_FILE, msgspec.json.format(msgspec.json.encode(after), indent=1) + b"\n")

    def _adopt(self, release_id: str) -> None:
        """Copy a release of the fallback into this store: the next version of spanwatch may no longer ship it."""
        with aside(self.folder, held=True) as place:
            copy = shutil.copytree(self.folder_of(release_id), place / release_id)
            load(copy, self.trusted)
            final = self.folder / release_id
            if final.exists():  # what is left of an earlier copy: without its config.json it is no release any more
                final.rename(place / f"{release_id}.left")
            settle(copy, final)


def default_store(*keys: Path) -> ReleaseStore:
    """The releases the project ships, in a folder that may be read-only; `keys` as in `site_store`."""
    return ReleaseStore(ZOO, read_keys(KEYS, *keys))


def site_store(folder: Path, *keys: Path) -> ReleaseStore:
    """A site's own store over what ships; `keys` are folders of public keys trusted beside those that ship."""
    trusted = read_keys(KEYS, *keys)
    return ReleaseStore(folder, trusted, fallback=ReleaseStore(ZOO, trusted))


def audited(folder: Path, trusted: Trusted) -> Release:
    """A release that the signing library has verified too, with sound golden tiles; raises ReleaseError."""
    verify_with_library(folder, trusted)
    release = _named(load(folder, trusted))
    check_golden(release)
    return release


def _named(release: Release) -> Release:
    if release.id != release.folder.name:
        raise ReleaseError(f"{release.folder}: the folder is named {release.folder.name}, the release {release.id}")
    return release
