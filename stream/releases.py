"""Which release a role runs: the settings' alias or id, looked up once and verified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from models.engines.autopilot import open_engine
from models.engines.candidates import Conditions
from models.engines.protocol import EngineError
from models.release import Release, ReleaseError
from models.releases.signing import key_in
from models.releases.store import ReleaseStore, default_store, site_store
from stream.config import EngineSection
from stream.errors import Broken, Misuse
from stream.messages import Severity


@contextmanager
def refusals() -> Iterator[None]:
    """In here, a release that is refused is a `Misuse` with the same sentence, and a disk that fails is `Broken`."""
    try:
        yield
    except ReleaseError as error:
        raise Misuse(str(error)) from error
    except OSError as error:
        raise Broken(f"{error.filename or 'the store of releases'}: {error.strerror or error}") from error


def release_store(section: EngineSection) -> ReleaseStore:
    """Where the settings look for releases: the site's own store, over those that ship with spanwatch.

    Raises:
        Misuse: the folder of trusted keys is missing or holds something else.
    """
    with refusals():
        keys = [Path(section.trusted_keys)] if section.trusted_keys else []
        return site_store(Path(section.store), *keys) if section.store else default_store(*keys)


def writable_store(section: EngineSection) -> ReleaseStore:
    """The site's own store, to change it; what ships is never changed.

    Raises:
        Misuse: the settings name none.
    """
    if not section.store:
        raise Misuse(
            "what ships with spanwatch is never changed: name a folder for this site's releases, store = under "
            "[engine] or SPANWATCH_ENGINE__STORE"
        )
    return release_store(section)


def site_key(section: EngineSection) -> Path:
    """The private key of this site, `site.key.pem` in the folder of trusted keys; made the first time.

    Raises:
        Misuse: the settings name no such folder.
    """
    if not section.trusted_keys:
        raise Misuse(
            "a release is signed with this site's key: name the folder for it, trusted_keys = under [engine] or "
            "SPANWATCH_ENGINE__TRUSTED_KEYS (or give a key with --key)"
        )
    folder = Path(section.trusted_keys)
    with refusals():
        return key_in(folder, "site").private


def engine_agrees(release: Release) -> str | None:
    """Why this machine does not compute what the release's golden tiles say; None: it does.

    The processor is asked where it can be: a graphics card would compile for minutes what nobody will run.
    """
    try:
        open_engine(release, "f32", Conditions(backend="openvino" if find_spec("openvino") else None)).close()
    except EngineError as error:
        return str(error)
    return None


def open_release(section: EngineSection, name: str | None = None) -> Release:
    """The verified release of the given name; None: the one that the settings name.

    Raises:
        Misuse: there is none, or its files are not the ones that were released; the message lists what there is.
    """
    store = release_store(section)
    with refusals():
        return store.open(name or section.release)


def severities_of(release: Release) -> Mapping[str, Severity]:
    """Defect -> severity, for every class, trained or not."""
    return {one.name: one.severity for one in release.classes}
