"""Makes names in a folder survive power loss: a file that was fsynced is still lost when its folder was not."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def fsync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk: call it after creating or renaming something in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create one folder durably; its parent must exist, and being there already is fine.

    The parent is synced even then: another process may have made the folder a moment ago and not have synced it yet.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    fsync_folder(folder.parent)
