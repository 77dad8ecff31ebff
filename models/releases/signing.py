"""Signatures after OpenSSF Model Signing: who released these files, and are they still the same bytes.

The signature is a Sigstore bundle: an in-toto statement with the sha256 of every file in a DSSE envelope, signed with
an EC key, no network and no transparency log (https://github.com/ossf/model-signing-spec). The library `model-signing`
writes it and is asked again whenever a release is taken in, promoted or verified by hand. Every start of a role only
needs the answer, so `verify` reads the same bundle with `cryptography` alone: a tenth of the processor
time (0.04 s against 0.4 s on a server's core) and a fifth of the memory (10 MB against 50 MB) of importing the library.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from models.release import SIGNATURE_FILE, ReleaseError
from models.releases.bundle import Bundle, Envelope, read_bundle, resources_of
from models.releases.disk import digests

PUBLIC, PRIVATE = ".pub.pem", ".key.pem"


class KeyPair(NamedTuple):
    """Two PEM files; the private one signs and stays where releases are made."""

    private: Path
    public: Path


@dataclass(frozen=True)
class TrustedKey:
    """A public key this installation accepts; `name` is for people, `path` its PEM file."""

    name: str
    path: Path
    key: ec.EllipticCurvePublicKey


Trusted = Mapping[str, TrustedKey]
"""The accepted keys by their fingerprint (sha256 of the PEM text, as a signature names them)."""


def new_key(folder: Path, name: str) -> KeyPair:
    """Make `<name>.key.pem` (readable by its owner only) and `<name>.pub.pem`: EC P-256, PKCS 8, no password.

    Raises ReleaseError if there is a key of that name; a lost key cannot be made again.
    """
    pair = KeyPair(folder / f"{name}{PRIVATE}", folder / f"{name}{PUBLIC}")
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        with open(pair.private, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(secret)
    except FileExistsError as error:
        raise ReleaseError(f"{pair.private}: there is a key already; it is not replaced") from error
    pair.public.write_bytes(_pem(key.public_key()))
    return pair


def key_in(folder: Path, name: str) -> KeyPair:
    """The key pair of that name in a folder, made the first time."""
    pair = KeyPair(folder / f"{name}{PRIVATE}", folder / f"{name}{PUBLIC}")
    return pair if pair.private.exists() else new_key(folder, name)


def read_keys(*folders: Path) -> dict[str, TrustedKey]:
    """The public keys (`*.pub.pem`) of some folders; raises ReleaseError for a folder or key that cannot be read."""
    found = {}
    for folder in folders:
        if not folder.is_dir():
            raise ReleaseError(f"{folder}: no folder of trusted keys")
        for path in sorted(folder.glob(f"*{PUBLIC}")):
            try:
                key = serialization.load_pem_public_key(path.read_bytes())
            except (OSError, ValueError, UnsupportedAlgorithm) as error:
                raise ReleaseError(f"{path}: no public key in PEM: {error}") from error
            if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
                raise ReleaseError(f"{path}: the keys of releases are EC keys on the curve P-256")
            found[fingerprint(key)] = TrustedKey(path.name.removesuffix(PUBLIC), path, key)
    return found


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """sha256 of the PEM text of a public key, in hexadecimal: how a signature names its key."""
    return hashlib.sha256(_pem(key)).hexdigest()


def sign(folder: Path, key: Path) -> None:
    """Sign every file of a folder but `model.sig`, which is replaced at once; `key` is a private EC P-256 key in PEM.

    Raises ReleaseError for a key that cannot be read or a folder that holds more than plain files.
    """
    from model_signing import signing

    library: Any = signing
    digests(folder)  # refuses what a release may not hold before it is signed
    try:
        config = library.Config().use_elliptic_key_signer(private_key=key)
    except (OSError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        raise ReleaseError(f"{key}: no private EC key in PEM without password: {error}") from error
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".signing-") as aside:
        new = Path(aside, SIGNATURE_FILE)
        config.set_hashing_config(_hashing()).sign(folder, new)
        new.chmod(0o644)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(folder / SIGNATURE_FILE)


def verify(folder: Path, trusted: Trusted) -> dict[str, str]:
    """Check the signature and every file; name -> sha256 of the files it covers (all but `model.sig`).

    Raises ReleaseError for a folder without signature, signed by none of the trusted keys, or whose files are not
    exactly those that were signed: a changed byte, a missing file, one too many, a link.
    """
    path = folder / SIGNATURE_FILE
    signed = resources_of(_believed(read_bundle(folder), trusted, path), path)
    found = digests(folder)
    if missing := sorted(signed.keys() - found.keys()):
        raise ReleaseError(f"{folder}: {', '.join(missing)} is missing")
    if extra := sorted(found.keys() - signed.keys()):
        raise ReleaseError(f"{folder}: {', '.join(extra)} is not part of the release that was signed")
    if changed := [name for name, digest in signed.items() if found[name] != digest]:
        raise ReleaseError(f"{folder}: {', '.join(changed)} is not the file that was signed (its sha256 differs)")
    return signed


def verify_with_library(folder: Path, trusted: Trusted) -> dict[str, str]:
    """As `verify`, and the library `model-signing` has to say so too."""
    from model_signing import verifying

    library: Any = verifying
    signed = verify(folder, trusted)
    signer = trusted[signer_of(folder)]
    try:
        config = library.Config().use_elliptic_key_verifier(public_key=signer.path)
        config.set_hashing_config(_hashing()).verify(folder, folder / SIGNATURE_FILE)
    except (ValueError, InvalidSignature) as error:
        raise ReleaseError(f"{folder}: {error}") from error
    return signed


def signer_of(folder: Path) -> str:
    """Fingerprint of the key that a verified folder's signature names."""
    return read_bundle(folder).verification_material.public_key.hint


def _believed(bundle: Bundle, trusted: Trusted, path: Path) -> Envelope:
    """What a bundle holds; raises ReleaseError unless a trusted key has signed it."""
    hint = bundle.verification_material.public_key.hint
    signer = trusted.get(hint)
    if signer is None:
        names = ", ".join(sorted(one.name for one in trusted.values())) or "none"
        raise ReleaseError(
            f"{path}: signed with the key {hint[:16]!r}…, which is not trusted here (trusted: {names}); if it "
            "should be, put the public key into the folder engine.trusted_keys"
        )
    envelope = bundle.dsse_envelope
    kind, payload = envelope.payload_type.encode(), envelope.payload
    # DSSE signs the type with the payload: https://github.com/secure-systems-lab/dsse, "pre-authentication encoding".
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    try:
        signer.key.verify(envelope.signatures[0].sig, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise ReleaseError(f"{path}: not a signature by the key {signer.name}; it was changed or forged") from error
    return envelope


def _hashing() -> Any:
    """Every file counts, also those the library leaves out by itself because git likes them."""
    from model_signing import hashing

    library: Any = hashing
    return library.Config().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)


def _pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
