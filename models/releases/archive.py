"""Releases on the move: one .tar file out of a store, and a .tar or a folder from anywhere into one."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from models.release import Release, ReleaseError
from models.releases.disk import sync
from models.releases.store import Check, ReleaseStore
from models.releases.writing import check_size, copy_files, enter

CHUNK = 1 << 20


def export_release(release: Release, target: Path) -> None:
    """Write a release to one uncompressed .tar, `<id>/<file>`: the same bytes wherever and whenever it is done.

    Raises ReleaseError if `target` exists or cannot be written; then there is no half of it either.
    """
    if target.exists():
        raise ReleaseError(f"{target}: there is a file already; it is not replaced")
    part = target.with_name(f".{target.name}.part")
    try:
        with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
            for path in sorted(release.folder.iterdir()):
                entry = tarfile.TarInfo(f"{release.id}/{path.name}")
                entry.size = path.stat().st_size
                with path.open("rb") as content:
                    tar.addfile(entry, content)
        sync(part)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ReleaseError(f"{target}: {error.strerror}") from error


def import_release(store: ReleaseStore, source: Path, check: Check = lambda _: None) -> Release:
    """Take in a release from a .tar that `export_release` wrote, or from a folder: verified first, whole or not at all.

    `check` has the last word (an engine looks at the golden tiles); a sentence from it refuses. Raises ReleaseError,
    and then the store is as it was.
    """
    if source.is_dir():
        fill: Callable[[Path], None] = partial(copy_files, source)
        return enter(store, source.resolve().name, fill, check)
    return enter(store, _id_in(source), partial(_unpack, source), check)


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except (tarfile.TarError, EOFError) as error:
        raise ReleaseError(f"{path}: no release, neither a folder nor an uncompressed .tar: {error}") from error
    except OSError as error:
        raise ReleaseError(f"{error.filename or path}: {error.strerror or error}") from error


def _id_in(path: Path) -> str:
    with _opened(path) as tar:
        for entry in tar:
            return _place(path, entry)[0]
    raise ReleaseError(f"{path}: an empty archive")


def _unpack(path: Path, folder: Path) -> None:
    """Write a .tar's files into an empty folder: plain files of one release, one level deep, within the limits."""
    total = 0
    with _opened(path) as tar:
        for number, entry in enumerate(tar):
            release_id, name = _place(path, entry)
            if release_id != folder.name:
                raise ReleaseError(f"{path}: holds {release_id} beside {folder.name}; an archive holds one release")
            total += entry.size
            check_size(number + 1, total, path)
            content = tar.extractfile(entry)
            if content is None or (folder / name).exists():
                raise ReleaseError(f"{path}: {entry.name!r} is there twice or is no file")
            with (folder / name).open("xb") as file:
                while part := content.read(CHUNK):
                    file.write(part)


def _place(path: Path, entry: tarfile.TarInfo) -> tuple[str, str]:
    """(release id, file name) of an entry; raises ReleaseError for any entry that is not `<id>/<file>` and a file."""
    parts = PurePosixPath(entry.name).parts
    if not entry.isreg() or len(parts) != 2 or {"..", "/"} & set(parts) or entry.name != "/".join(parts):
        raise ReleaseError(
            f"{path}: {entry.name!r} is not ID/FILE; a release is a folder of plain files, without links or folders"
        )
    return parts[0], parts[1]
