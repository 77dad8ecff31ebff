"""Training learns from what is known, leaves alone what is not, and goes on after a kill as if there had been none."""

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

from models.architecture import Architecture  # noqa: E402
from models.dataset import Manifest, read_manifest, write_manifest  # noqa: E402
from models.train import TrainConfig, learning_rate, masked_loss, sampling_weights, train  # noqa: E402

TINY = Architecture(tile_size=64, width=32, depth=1, heads=2, classes=2)
QUICK = TrainConfig(steps=6, batch=4, early_size=48, save_every=1, image_trained_stem=False, threads=1)


def tiny_manifest(folder: Path, count: int = 12) -> Path:
    """Bright tiles have the first defect; of the second nothing is known."""
    random = np.random.default_rng(0)
    images = []
    for number in range(count):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), random.integers(0, 100, (64, 64, 3), np.uint8) + np.uint8(150 * (number % 2)))
        images.append(path)
    labels = np.stack([np.arange(count) % 2, np.full(count, np.nan)], axis=1).astype(np.float32)
    manifest = Manifest(("bright", "other"), tuple(images), tuple(f"s/{i}" for i in range(count)), labels)
    write_manifest(folder / "manifest.csv", manifest)
    return folder / "manifest.csv"


def weights_of(checkpoint: Path) -> dict[str, "torch.Tensor"]:
    words = torch.load(checkpoint, weights_only=True)
    return {f"{part}.{name}": value for part in ("network", "average") for name, value in words[part].items()}


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_unknown_labels_add_nothing_to_the_loss_when_their_weight_is_zero() -> None:
    logits = torch.tensor([[2.0, 5.0], [-1.0, -5.0]])
    labels = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
    alone = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels[:, 0])
    assert masked_loss(logits, labels, torch.zeros(2)).item() == pytest.approx(alone.item())


def test_an_unknown_label_pulls_gently_towards_absent_and_a_masked_class_not_at_all() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    labels = torch.tensor([[1.0, float("nan"), float("nan")]])
    masked_loss(logits, labels, torch.tensor([0.05, 0.05, 0.0])).backward()
    known, weak, masked = logits.grad[0].tolist()
    assert known < 0.0 < weak < -known and masked == 0.0


def test_a_batch_without_any_label_has_a_finite_loss() -> None:
    loss = masked_loss(torch.zeros(2, 2), torch.full((2, 2), float("nan")), torch.zeros(2))
    assert loss.item() == 0.0


def test_the_rate_rises_once_and_falls_to_almost_nothing() -> None:
    config = TrainConfig(steps=100)
    rates = [learning_rate(step, config) for step in range(100)]
    peak = rates.index(max(rates))
    assert peak == 9
    assert rates == sorted(rates[: peak + 1]) + sorted(rates[peak + 1 :], reverse=True)
    assert max(rates) == 1.0 and rates[-1] < 0.01


def test_a_small_source_is_heard_beside_a_large_one_and_half_of_its_draws_show_a_defect() -> None:
    groups = tuple(f"large/{i}" for i in range(1000)) + tuple(f"small/{i}" for i in range(8))
    labels = np.zeros((1008, 1), np.float32)
    labels[:10] = 1
    labels[1000:1002] = 1
    weights = sampling_weights(Manifest(("crack",), tuple(Path(g) for g in groups), groups, labels))
    assert weights[1000:].sum() == pytest.approx(2 / 12)  # cube roots: 10 and 2
    assert weights[:10].sum() == pytest.approx(weights[10:1000].sum())
    assert weights[1000:1002].sum() == pytest.approx(weights[1002:].sum())


def test_a_network_from_nothing_learns_what_is_plain_to_see(tmp_path: Path) -> None:
    manifest = read_manifest(tiny_manifest(tmp_path), ("bright", "other"))
    config = TrainConfig(steps=40, batch=8, early_size=64, image_trained_stem=False, threads=1)
    losses = [loss for _, loss in train(manifest, TINY, config, tmp_path / "c.pt")]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_a_run_taken_up_again_ends_with_the_same_weights_as_one_that_ran_through(tmp_path: Path) -> None:
    manifest = read_manifest(tiny_manifest(tmp_path), ("bright", "other"))
    list(train(manifest, TINY, QUICK, tmp_path / "through.pt"))
    first = train(manifest, TINY, QUICK, tmp_path / "broken.pt")
    for step, _ in first:
        if step == 3:
            break
    assert [step for step, _ in train(manifest, TINY, QUICK, tmp_path / "broken.pt")] == [4, 5, 6]
    assert_same_weights(tmp_path / "through.pt", tmp_path / "broken.pt")


PROGRAM = """
import sys
from pathlib import Path
from models.architecture import Architecture
from models.dataset import read_manifest
from models.train import TrainConfig, train
shape = Architecture(tile_size=64, width=32, depth=1, heads=2, classes=2)
config = TrainConfig(steps=6, batch=4, early_size=48, save_every=1, image_trained_stem=False, threads=1)
manifest = read_manifest(Path(sys.argv[1]), ("bright", "other"))
for step, _ in train(manifest, shape, config, Path(sys.argv[2])):
    print(step, flush=True)
"""


def test_a_killed_process_goes_on_exactly_where_its_checkpoint_was(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path)
    list(train(read_manifest(manifest, ("bright", "other")), TINY, QUICK, tmp_path / "through.pt"))
    command = [sys.executable, "-c", PROGRAM, str(manifest), str(tmp_path / "killed.pt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        for line in victim.stdout:
            if line.strip() == "2":
                os.kill(victim.pid, signal.SIGKILL)
                break
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "6"
    assert_same_weights(tmp_path / "through.pt", tmp_path / "killed.pt")
