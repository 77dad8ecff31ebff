"""The one way into a store: written aside, signed, verified, on the disk, and only then under its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.evaluation.card import card
from models.release import CARD_FILE, Release, ReleaseError, ReleaseFacts
from models.releases.disk import aside, settle
from models.releases.folder import draft, write_facts
from models.releases.signing import sign
from models.releases.store import Check, ReleaseStore, audited

MAX_FILES = 32
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class NewRelease:
    """What `write_release` needs: the facts, and the model's files.

    `files` is a folder whose files are copied, or a function that writes them into the empty folder it is given.
    `check` has the last word before the release is signed.
    """

    facts: ReleaseFacts
    files: Path | Callable[[Path], None]
    check: Check = lambda _: None


def write_release(store: ReleaseStore, new: NewRelease, key: Path) -> Release:
    """Write a release into a store: aside, signed, verified, and only then under its name.

    `key` is the private key to sign with; the store must trust its public half. Raises ReleaseError, and then the store
    is as it was.
    """

    def fill(folder: Path) -> None:
        if isinstance(new.files, Path):
            copy_files(new.files, folder)
        else:
            new.files(folder)
        write_facts(folder, new.facts)
        (folder / CARD_FILE).write_text(card(new.facts), encoding="utf-8")
        if problem := new.check(draft(folder)):
            raise ReleaseError(f"{new.facts.id}: {problem}")
        sign(folder, key)

    return enter(store, new.facts.id, fill)


def enter(
    store: ReleaseStore,
    release_id: str,
    fill: Callable[[Path], None],
    check: Check = lambda _: None,
) -> Release:
    """Let `fill` write a signed release into an empty folder, verify it, and give it its name in one rename."""
    if release_id in store.ids():
        raise ReleaseError(f"{store.folder_of(release_id)}: there is a release of that name; a release never changes")
    with aside(store.folder) as place:
        folder = place / release_id
        folder.mkdir()
        fill(folder)
        release = audited(folder, store.trusted)
        if problem := check(release):
            raise ReleaseError(f"{release_id}: {problem}")
        settle(folder, store.folder / release_id)
    return msgspec.structs.replace(release, folder=store.folder / release_id)


def copy_files(source: Path, folder: Path) -> None:
    """Copy a folder's plain files; raises ReleaseError for anything else, and beyond MAX_FILES or MAX_BYTES."""
    total = 0
    for number, path in enumerate(sorted(source.iterdir())):
        if path.is_symlink() or not path.is_file():
            raise ReleaseError(f"{path}: a release is a folder of plain files")
        total += path.stat().st_size
        check_size(number + 1, total, source)
        shutil.copyfile(path, folder / path.name)


def check_size(files: int, size: int, source: Path) -> None:
    """Raise ReleaseError for more files or bytes than any release has."""
    if files > MAX_FILES or size > MAX_BYTES:
        raise ReleaseError(f"{source}: a release has at most {MAX_FILES} files and {MAX_BYTES >> 20} MiB")
