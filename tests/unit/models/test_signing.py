"""What was signed is what runs: any other byte, file or key is refused, by our own check and by the library."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from model_signing import hashing, verifying

from models.release import ReleaseError
from models.releases.signing import KeyPair, Trusted, new_key, read_keys, sign, verify, verify_with_library

FILES = {"config.json": b"{}", "model.onnx": bytes(range(256)), "golden.npz": b"PK"}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return new_key(tmp_path_factory.mktemp("keys"), "ours")


@pytest.fixture(scope="module")
def trusted(key: KeyPair) -> Trusted:
    return read_keys(key.public.parent)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, key: KeyPair) -> Path:
    folder = tmp_path_factory.mktemp("signed") / "a.1"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    sign(folder, key.private)
    return folder


def library_accepts(folder: Path, public: Path) -> bool:
    """The verdict of model-signing by itself, told to look at every file."""
    config = verifying.Config().use_elliptic_key_verifier(public_key=public)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=["model.sig"], ignore_git_paths=False))
    try:
        config.verify(folder, folder / "model.sig")
    except (ValueError, InvalidSignature, KeyError, TypeError, RecursionError, OSError):
        return False
    return True


def test_every_file_is_covered_and_the_library_says_the_same(signed: Path, key: KeyPair, trusted: Trusted) -> None:
    assert verify(signed, trusted).keys() == FILES.keys()
    assert verify_with_library(signed, trusted) == verify(signed, trusted)
    assert library_accepts(signed, key.public)


def change_bundle(folder: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    path = folder / "model.sig"
    bundle = json.loads(path.read_bytes())
    change(bundle)
    path.write_text(json.dumps(bundle))


def other_payload(bundle: dict) -> None:  # type: ignore[type-arg]
    envelope = bundle["dsseEnvelope"]
    text = base64.b64decode(envelope["payload"]).replace(b"model.onnx", b"model.onny")
    envelope["payload"] = base64.b64encode(text).decode()


def other_signature(bundle: dict) -> None:  # type: ignore[type-arg]
    one = bundle["dsseEnvelope"]["signatures"][0]
    raw = bytearray(base64.b64decode(one["sig"]))
    raw[-1] ^= 1
    one["sig"] = base64.b64encode(raw).decode()


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed byte": (lambda f: (f / "model.onnx").write_bytes(bytes(256)), r"model\.onnx is not the file that was"),
    "extra file": (lambda f: (f / "more.txt").write_bytes(b""), r"more\.txt is not part"),
    "extra file that git likes": (lambda f: (f / ".gitattributes").write_bytes(b""), r"\.gitattributes is not part"),
    "missing file": (lambda f: (f / "golden.npz").unlink(), r"golden\.npz is missing"),
    "renamed file": (lambda f: (f / "golden.npz").rename(f / "gold.npz"), r"golden\.npz is missing"),
    "unsigned": (lambda f: (f / "model.sig").unlink(), "is not signed"),
    "empty signature": (lambda f: (f / "model.sig").write_bytes(b""), r"model\.sig"),
    "another statement": (lambda f: change_bundle(f, other_payload), "not a signature by the key ours"),
    "another signature": (lambda f: change_bundle(f, other_signature), "not a signature by the key ours"),
    "no signature inside": (lambda f: change_bundle(f, lambda b: b["dsseEnvelope"].pop("signatures")), "no signature"),
    "another form": (
        lambda f: change_bundle(f, lambda b: b.update(mediaType="text/plain")),
        "of the form 'text/plain'",
    ),
    "no key named": (
        lambda f: change_bundle(f, lambda b: b["verificationMaterial"]["publicKey"].update(hint="")),
        "not trusted here",
    ),
    "nested too deep": (lambda f: (f / "model.sig").write_bytes(b"[" * 100_000), "no signature of a model"),
    "nested too deep in a field": (
        lambda f: (f / "model.sig").write_bytes(b'{"more":' * 100_000),
        "no signature of a model",
    ),
    "a payload of type 5": (
        lambda f: change_bundle(f, lambda b: b["dsseEnvelope"].update(payloadType=5)),
        "no signature of a model: Expected `str`",
    ),
    "two signatures": (
        lambda f: change_bundle(f, lambda b: b["dsseEnvelope"].update(signatures=2 * b["dsseEnvelope"]["signatures"])),
        "no signature of a model: Expected `array` of length 1",
    ),
    "a field more": (
        lambda f: change_bundle(f, lambda b: b["verificationMaterial"].update(more=[])),
        "no signature of a model: Object contains unknown field `more`",
    ),
    "no text": (lambda f: (f / "model.sig").write_bytes(b'{"\xff": 1}'), "no signature of a model"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_whatever_was_tampered_with_is_refused_by_us_and_by_the_library(
    how: str, signed: Path, key: KeyPair, trusted: Trusted, tmp_path: Path
) -> None:
    tamper, complaint = TAMPERED[how]
    folder = shutil.copytree(signed, tmp_path / "a.1")
    tamper(folder)
    with pytest.raises(ReleaseError, match=complaint):
        verify(folder, trusted)
    # The library would take a signature that names no key, with a warning on standard output, and one beside others.
    assert library_accepts(folder, key.public) == (how in {"no key named", "two signatures"})


def test_links_and_folders_are_refused_even_when_they_hold_the_right_bytes(
    signed: Path, key: KeyPair, trusted: Trusted, tmp_path: Path
) -> None:
    folder = shutil.copytree(signed, tmp_path / "linked")
    (folder / "golden.npz").unlink()
    (folder / "golden.npz").symlink_to(signed / "golden.npz")
    nested = shutil.copytree(signed, tmp_path / "nested")
    (nested / "more").mkdir()
    for wrong in (folder, nested):
        with pytest.raises(ReleaseError, match="a folder of plain files"):
            verify(wrong, trusted)
        with pytest.raises(ReleaseError, match="a folder of plain files"):
            sign(wrong, key.private)


def test_a_signature_by_a_key_nobody_here_trusts_is_refused_and_says_what_to_do(
    signed: Path, key: KeyPair, trusted: Trusted, tmp_path: Path
) -> None:
    stranger = new_key(tmp_path / "keys", "stranger")
    folder = shutil.copytree(signed, tmp_path / "a.1")
    sign(folder, stranger.private)
    with pytest.raises(ReleaseError, match=r"not trusted here \(trusted: ours\).*engine\.trusted_keys"):
        verify(folder, trusted)
    assert verify(folder, read_keys(key.public.parent, tmp_path / "keys")).keys() == FILES.keys()
    with pytest.raises(ReleaseError, match=r"trusted: none"):
        verify(folder, {})


@given(st.sampled_from(sorted(FILES)), st.data())
@settings(max_examples=60, deadline=None)
def test_any_other_content_of_any_file_is_refused(
    signed: Path, trusted: Trusted, name: str, data: st.DataObject
) -> None:
    content = data.draw(st.binary(max_size=300).filter(lambda drawn: drawn != FILES[name]))
    (signed / name).write_bytes(content)
    try:
        with pytest.raises(ReleaseError, match=name):
            verify(signed, trusted)
    finally:
        (signed / name).write_bytes(FILES[name])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value inside a JSON value."""
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [(value, key) for key, _ in pairs] + [place for _, inner in pairs for place in places(inner)]


@given(
    st.binary(max_size=300)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.builds(lambda start, depth: start * depth, st.sampled_from([b"[", b'{"mediaType":']), st.integers(0, 100_000))
)
@settings(max_examples=100, deadline=None)
def test_any_bytes_for_a_signature_are_refused(signed: Path, trusted: Trusted, content: bytes) -> None:
    path = signed / "model.sig"
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        for check in (verify, verify_with_library):
            with pytest.raises(ReleaseError, match=r"model\.sig"):
                check(signed, trusted)
    finally:
        path.write_bytes(before)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_value_at_any_place_of_a_signature_is_refused_or_harmless(
    signed: Path, trusted: Trusted, data: st.DataObject
) -> None:
    path = signed / "model.sig"
    before = path.read_bytes()
    bundle = json.loads(before)
    container, place = data.draw(st.sampled_from(places(bundle)))
    container[place] = data.draw(JSON)
    path.write_text(json.dumps(bundle))
    try:
        with contextlib.suppress(ReleaseError):
            assert verify_with_library(signed, trusted).keys() == FILES.keys()
    finally:
        path.write_bytes(before)


def test_a_private_key_is_its_owners_alone_and_is_never_replaced(tmp_path: Path) -> None:
    pair = new_key(tmp_path / "keys", "site")
    assert stat.S_IMODE(pair.private.stat().st_mode) == 0o600
    assert b"PRIVATE" not in pair.public.read_bytes()
    before = pair.private.read_bytes()
    with pytest.raises(ReleaseError, match="is not replaced"):
        new_key(tmp_path / "keys", "site")
    assert pair.private.read_bytes() == before


def test_keys_of_another_kind_are_refused_by_name(tmp_path: Path, signed: Path) -> None:
    other = {
        "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key(),
        "p384": ec.generate_private_key(ec.SECP384R1()).public_key(),
    }
    for name, public in other.items():
        (tmp_path / name).mkdir()
        text = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / name / "key.pub.pem").write_bytes(text)
        with pytest.raises(ReleaseError, match=r"key\.pub\.pem: .*P-256"):
            read_keys(tmp_path / name)
    (tmp_path / "rsa" / "key.pub.pem").write_bytes(b"ssh-ed25519 AAAA")
    with pytest.raises(ReleaseError, match="no public key in PEM"):
        read_keys(tmp_path / "rsa")
    with pytest.raises(ReleaseError, match="no folder of trusted keys"):
        read_keys(tmp_path / "nowhere")
    for not_a_key in (tmp_path / "nowhere.pem", tmp_path / "rsa" / "key.pub.pem"):
        with pytest.raises(ReleaseError, match="no private EC key"):
            sign(signed, not_a_key)


def test_signing_and_verifying_open_no_connection(signed: Path, key: KeyPair, tmp_path: Path) -> None:
    """In a process of its own in which the first attempt raises: the library could do more than we ask it for."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "def refuse(event, arguments):\n"
        "    if event in {'socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto'}:\n"
        "        raise AssertionError(event)\n"
        "sys.addaudithook(refuse)\n"
        "from models.releases.signing import read_keys, sign, verify_with_library\n"
        "folder, private = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "sign(folder, private)\n"
        "verify_with_library(folder, read_keys(private.parent))\n"
    )
    folder = shutil.copytree(signed, tmp_path / "a.1")
    subprocess.run([sys.executable, "-c", program, str(folder), str(key.private)], check=True)
    assert (folder / "model.sig").read_bytes() != (signed / "model.sig").read_bytes()
