"""`spanwatch release` from end to end: a model made elsewhere comes in, runs, travels to another box, and goes back."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from models.release import GOLDEN_FILE, MODEL_FILE, SIGNATURE_FILE
from models.releases.signing import sign
from models.releases.store import default_store
from stream.cli.app import app

FOREIGN = Path(__file__).parents[1] / "data" / "foreign"
SHIPPED = default_store().resolve()
BESIDE = [name for name in default_store().ids() if name != SHIPPED]
runner = CliRunner()


@dataclass(frozen=True)
class Box:
    """A site with its settings."""

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    def __call__(self, *words: str | Path) -> Result:
        settings = {"SPANWATCH_ENGINE__STORE": str(self.store), "SPANWATCH_ENGINE__TRUSTED_KEYS": str(self.keys)}
        return runner.invoke(app, ["release", *map(str, words)], env=settings)

    def json(self, *words: str | Path) -> list[dict[str, Any]]:
        done = self(*words, "--json")
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    def import_small(self) -> None:
        words = ("--onnx", FOREIGN / "small.onnx", "--taxonomy", FOREIGN / "taxonomy.toml", "--id", "small.1")
        assert self.json("import", *words)[0]["people"] == ["dark", "red"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Box:
    """A box that has imported the small model."""
    box = Box(tmp_path_factory.mktemp("first"))
    box.import_small()
    return box


def inverted(folder: Path, key: Path) -> None:
    """The golden tiles of a release say the opposite, and someone who holds the key has signed that."""
    with np.load(folder / GOLDEN_FILE) as golden:
        tiles, expected = golden["tiles"], golden["probabilities"]
    np.savez_compressed(folder / GOLDEN_FILE, tiles=tiles, probabilities=1 - expected)
    sign(folder, key)


@pytest.fixture
def box(first: Box, tmp_path: Path) -> Box:
    """A copy of that box."""
    shutil.copytree(first.folder, tmp_path / "box")
    return Box(tmp_path / "box")


def test_a_model_made_elsewhere_runs_only_after_it_was_promoted_and_can_be_taken_back(box: Box) -> None:
    listed = {one["id"]: one["aliases"] for one in box.json("list")}
    assert listed == {SHIPPED: ["champion"], "small.1": [], **{name: [] for name in BESIDE}}
    assert "never evaluated here" in " ".join(box("show", "small.1").output.split())
    [told] = box.json("promote", "small.1", "--why", "for a test")
    assert told == {"id": "small.1", "aliases": {"champion": "small.1", "previous": SHIPPED}}
    [verified] = box.json("verify")
    assert (verified["id"], verified["verified"], verified["signed_by"]) == ("small.1", True, "site")
    assert box.json("show")[0]["id"] == "small.1"
    assert box.json("rollback")[0]["id"] == SHIPPED
    listed = {one["id"]: one["aliases"] for one in box.json("list")}
    assert listed == {SHIPPED: ["champion"], "small.1": ["previous"], **{name: [] for name in BESIDE}}
    shown = box("list").output
    assert "small.1" in shown and "champion" in shown


def test_a_candidate_has_its_name_and_runs_nothing(box: Box) -> None:
    [told] = box.json("promote", "small.1", "--as", "candidate")
    assert told == {"id": "small.1", "aliases": {"candidate": "small.1", "champion": SHIPPED}}
    assert box.json("show", "candidate")[0]["id"] == "small.1" and box.json("show")[0]["id"] == SHIPPED
    for role in ("candidate", "shadow"):
        said = box("promote", "small.1", "--as", role).output
        assert said == f"small.1 is the {role}; the champion is still {SHIPPED}\n"
    said = box("promote", "small.1").output
    assert said.startswith(f"small.1 is the champion; before it was {SHIPPED}\nRoles that run already go on with")
    refused = box("promote", "small.1", "--as", "previous")
    assert refused.exit_code == 2


def test_a_release_travels_to_a_box_that_trusts_the_key_and_to_no_other(box: Box, tmp_path: Path) -> None:
    [sent] = box.json("export", "small.1", tmp_path / "small.tar")
    other, stranger = Box(tmp_path / "other"), Box(tmp_path / "stranger")
    other.keys.mkdir(parents=True)
    stranger.keys.mkdir(parents=True)
    shutil.copy(box.keys / "site.pub.pem", other.keys / "first-box.pub.pem")
    [arrived] = other.json("import", tmp_path / "small.tar")
    assert (arrived["id"], arrived["digest"]) == ("small.1", sent["digest"])
    assert other.json("verify", "small.1")[0]["signed_by"] == "first-box"
    refused = stranger("import", tmp_path / "small.tar")
    assert refused.exit_code == 2 and "not trusted here" in refused.output
    assert {one["id"] for one in stranger.json("list")} == {SHIPPED, *BESIDE}


@pytest.mark.parametrize("spoiled", ["type", "depth"])
def test_a_spoiled_signature_is_told_by_verify_and_hides_no_other_release(spoiled: str, box: Box) -> None:
    path = box.store / "small.1" / SIGNATURE_FILE
    bundle = json.loads(path.read_bytes())
    bundle["dsseEnvelope"]["payloadType"] = 5
    path.write_text(json.dumps(bundle) if spoiled == "type" else "[" * 100_000)
    verified = box("verify", "small.1", "--json")
    assert verified.exit_code == 1 and json.loads(verified.stdout)["verified"] is False
    refused = {one["id"]: "refused" in one for one in box.json("list")}
    assert refused == {SHIPPED: False, "small.1": True, **dict.fromkeys(BESIDE, False)}
    assert "refused:" in box("list").output


def test_one_changed_byte_is_told_by_verify_shown_by_list_and_stops_everything_else(box: Box, tmp_path: Path) -> None:
    path = box.store / "small.1" / MODEL_FILE
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    verified = box("verify", "small.1", "--json")
    assert verified.exit_code == 1 and json.loads(verified.stdout)["verified"] is False
    refused = {one["id"]: "refused" in one for one in box.json("list")}
    assert refused == {SHIPPED: False, "small.1": True, **dict.fromkeys(BESIDE, False)}
    for words in (("show", "small.1"), ("promote", "small.1"), ("export", "small.1", tmp_path / "a.tar")):
        done = box(*words)
        assert done.exit_code == 2 and "its sha256 differs" in done.output and "Traceback" not in done.output
    assert not (tmp_path / "a.tar").exists() and not (box.store / "aliases.json").exists()


def test_a_release_whose_golden_tiles_are_off_is_neither_imported_nor_promoted(box: Box, tmp_path: Path) -> None:
    folder = shutil.copytree(box.store / "small.1", tmp_path / "small.1")
    inverted(folder, box.keys / "site.key.pem")
    shutil.rmtree(box.store / "small.1")
    refused = box("import", folder)
    assert refused.exit_code == 2 and "differ from the reference" in refused.output
    assert sorted(path.name for path in box.store.iterdir()) == [".lock"]
    shutil.copytree(folder, box.store / "small.1")
    for role in ("champion", "candidate", "shadow"):
        refused = box("promote", "small.1", "--as", role)
        assert refused.exit_code == 2 and "differ from the reference" in refused.output
    assert box("verify", "small.1").exit_code == 1
    assert not (box.store / "aliases.json").exists()


def test_a_rollback_to_a_release_whose_golden_tiles_are_off_changes_nothing_and_says_what_to_do(box: Box) -> None:
    box.json("promote", "small.1")
    [told] = box.json("promote", SHIPPED)
    inverted(box.store / "small.1", box.keys / "site.key.pem")
    refused = box("rollback")
    words = " ".join(refused.output.split())
    assert refused.exit_code == 2 and "differ from the reference" in words
    assert "nothing was changed" in words and "spanwatch release promote RELEASE" in words
    assert json.loads((box.store / "aliases.json").read_bytes()) == told["aliases"]


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("import",), "name a .tar or a folder"),
        (("import", "a.tar", "--onnx", "b.onnx"), "name a .tar or a folder"),
        (("import", "--onnx", "b.onnx"), "--taxonomy FILE"),
        (("import", "--onnx", "b.onnx", "--taxonomy", "nowhere.toml"), "nowhere.toml"),
        (("import", "nowhere.tar"), "No such file"),
        (("promote", "nobody"), "there are"),
        (("rollback",), "no way back"),
        (("show", "nobody"), "there are"),
        (("export", "nobody", "a.tar"), "there are"),
        (("verify", "nobody"), "there are"),
    ],
)
def test_wrong_use_says_what_to_do(words: tuple[str, ...], advice: str, first: Box) -> None:
    done = first(*words)
    assert done.exit_code == 2 and advice in done.output and "Traceback" not in done.output


def test_a_store_that_cannot_be_written_is_a_failure_with_its_reason(box: Box, tmp_path: Path) -> None:
    box.json("export", "small.1", tmp_path / "small.tar")
    shutil.rmtree(box.store)
    box.store.write_bytes(b"no folder")
    done = box("import", tmp_path / "small.tar")
    assert done.exit_code == 1 and "File exists" in done.output and "Traceback" not in done.output


def test_what_ships_is_never_changed() -> None:
    for words in (["promote", "champion"], ["rollback"], ["import", "a.tar"]):
        done = runner.invoke(app, ["release", *words])
        assert done.exit_code == 2 and "SPANWATCH_ENGINE__STORE" in done.output
    done = runner.invoke(app, ["release", "import", "--onnx", "a.onnx", "--taxonomy", str(FOREIGN / "taxonomy.toml")])
    assert done.exit_code == 2 and "SPANWATCH_ENGINE__TRUSTED_KEYS" in done.output
