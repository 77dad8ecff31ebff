"""`model.sig` as types: a Sigstore bundle around a signed statement. Until it is verified, it may come from anybody."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from models.release import SIGNATURE_FILE, ReleaseError

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
T = TypeVar("T")


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A part of a bundle; a field more is refused, so that the library is shown nothing that was not looked at here."""


class KeyName(_Part, frozen=True):
    """`hint` is the fingerprint of the key that is said to have signed."""

    hint: str


class Material(_Part, frozen=True):
    """What a signature is verified with: a key known from elsewhere, no transparency log."""

    public_key: KeyName
    tlog_entries: tuple[()] = ()


class Signature(_Part, frozen=True):
    """`sig` is base64 in the file, decoded here."""

    sig: bytes
    keyid: str = ""


class Envelope(_Part, frozen=True):
    """What was signed, base64 in the file, decoded here, and one signature of it."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature]


class Bundle(_Part, frozen=True):
    """All of `model.sig`."""

    media_type: str
    verification_material: Material
    dsse_envelope: Envelope


class _Serialization(msgspec.Struct, frozen=True):
    method: str
    hash_type: str


class _Resource(msgspec.Struct, frozen=True):
    name: str
    digest: str


class _Predicate(msgspec.Struct, frozen=True):
    serialization: _Serialization
    resources: tuple[_Resource, ...]


class _Statement(msgspec.Struct, frozen=True, rename="camel"):
    """What is signed; by the specification, a field that is not known is no reason to refuse it."""

    kind: str = msgspec.field(name="_type")
    predicate_type: str
    predicate: _Predicate


def read_bundle(folder: Path) -> Bundle:
    """The signature of a folder, not verified yet; raises ReleaseError if it has none, or one of another form."""
    path = folder / SIGNATURE_FILE
    try:
        bundle = _decoded(path.read_bytes(), Bundle, path)
    except FileNotFoundError as error:
        raise ReleaseError(f"{folder}: the release is not signed (it has no {SIGNATURE_FILE})") from error
    except OSError as error:
        raise ReleaseError(f"{path}: {error}") from error
    if bundle.media_type != BUNDLE:
        raise ReleaseError(f"{path}: a signature of the form {bundle.media_type!r}; this code knows {BUNDLE}")
    return bundle


def resources_of(envelope: Envelope, path: Path) -> dict[str, str]:
    """name -> sha256 of what an envelope's statement covers; `path`, for messages, is the file it stands in.

    Raises ReleaseError for a statement about something else than the whole files of a model.
    """
    if envelope.payload_type != PAYLOAD:
        raise ReleaseError(f"{path}: it signs {envelope.payload_type!r}, not a model")
    statement = _decoded(envelope.payload, _Statement, path)
    if (statement.kind, statement.predicate_type) != (STATEMENT, PREDICATE):
        raise ReleaseError(f"{path}: it signs {statement.predicate_type!r}, not a model")
    form = statement.predicate.serialization
    if (form.method, form.hash_type) != ("files", "sha256"):
        raise ReleaseError(f"{path}: this code checks whole files by sha256; sign the release with spanwatch")
    return {one.name: one.digest for one in statement.predicate.resources}


def _decoded(content: bytes, kind: type[T], path: Path) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:  # no JSON, of another form, no text; nested without end
        raise ReleaseError(f"{path}: no signature of a model: {error}") from error
