"""What ships, with few of its labelled tiles: measuring engines on all of them takes a test a minute."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np

from models.release import EVALUATION_FILE, SIGNATURE_FILE, Release
from models.releases.signing import key_in, read_keys, sign
from models.releases.store import ReleaseStore, default_store

TILES = 24


def with_few_tiles(folder: Path) -> Release:
    """The shipped release in another folder, unsigned."""
    shipped = default_store().open()
    copy = folder / shipped.id
    shutil.copytree(shipped.folder, copy)
    (copy / SIGNATURE_FILE).unlink()
    with np.load(shipped.path(EVALUATION_FILE), allow_pickle=False) as file:
        content = {name: file[name] for name in file.files}
    # Every so many, so that they come from several photos.
    rows = np.arange(0, len(content["ends"]), len(content["ends"]) // TILES)[:TILES]
    starts = np.concatenate([[0], content["ends"][:-1]])
    pieces = [content["jpeg"][starts[row] : content["ends"][row]] for row in rows]
    content["jpeg"], content["ends"] = np.concatenate(pieces), np.cumsum([len(piece) for piece in pieces])
    kept = {name: content[name][rows] for name in ("labels", "probabilities")}
    np.savez(copy / EVALUATION_FILE, **{**content, **kept})
    return msgspec.structs.replace(shipped, folder=copy)


def store_with_few_tiles(folder: Path) -> dict[str, str]:
    """A site's store that holds that release; the variables that name it to a command."""
    release = with_few_tiles(folder / "store")
    sign(release.folder, key_in(folder / "keys", "site").private)
    store = ReleaseStore(folder / "store", read_keys(folder / "keys"))
    assert store.open(release.id).id == release.id
    return {
        "SPANWATCH_ENGINE__STORE": str(folder / "store"),
        "SPANWATCH_ENGINE__TRUSTED_KEYS": str(folder / "keys"),
        "SPANWATCH_ENGINE__RELEASE": release.id,
    }
