"""Which release a role runs: the settings' alias or id, looked up once and verified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from models.release import Release, ReleaseError, ReleaseStore, default_store
from stream.config import EngineSection
from stream.errors import Misuse
from stream.messages import Severity


def release_store(section: EngineSection) -> ReleaseStore:
    """Where the settings look for releases; by default, those that ship with spanwatch."""
    return ReleaseStore(Path(section.store)) if section.store else default_store()


def open_release(section: EngineSection, name: str | None = None) -> Release:
    """The verified release of the given name; None: the one that the settings name.

    Raises:
        Misuse: there is none, or its files are not the ones that were released; the message lists what there is.
    """
    try:
        return release_store(section).open(name or section.release)
    except ReleaseError as error:
        raise Misuse(str(error)) from error


def severities_of(release: Release) -> Mapping[str, Severity]:
    """Defect -> severity, for every class, trained or not."""
    return {one.name: one.severity for one in release.classes}
