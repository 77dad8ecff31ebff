"""The mean of two networks is taken where they began alike, and kept where the validation part likes it better."""

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from models.architecture import Architecture  # noqa: E402
from models.dataset import Manifest  # noqa: E402
from models.training.mean import begin_alike, better_of, loss_on, mean_of  # noqa: E402
from models.vit import DefectNetwork  # noqa: E402

TINY = Architecture(tile_size=64, width=32, depth=1, heads=2, classes=2)


@pytest.fixture
def student() -> DefectNetwork:
    """It knows nothing: each class is as likely as not."""
    torch.manual_seed(0)
    network = DefectNetwork(TINY).eval()
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    return network


@pytest.fixture
def validation(tmp_path: Path) -> Manifest:
    """Two tiles that show the first class; nobody has said whether they show the second."""
    images = tuple(tmp_path / f"{number}.png" for number in range(2))
    for image in images:
        cv2.imwrite(str(image), np.full((64, 64, 3), 90, np.uint8))
    labels = np.array([[1.0, np.nan], [1.0, np.nan]], dtype=np.float32)
    return Manifest(("crack", "spalling"), images, ("photo/0", "photo/1"), labels)


def leaning(network: DefectNetwork, *logits: float) -> DefectNetwork:
    """The same network, which says these logits of every tile."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.head.bias.copy_(torch.tensor(logits))
    return other


def test_networks_that_differ_in_their_heads_alone_began_alike(student: DefectNetwork) -> None:
    torch.manual_seed(1)
    assert begin_alike(student, leaning(student, 1.0, 2.0))
    assert not begin_alike(student, DefectNetwork(TINY))


def test_the_mean_has_the_mean_of_every_weight_and_statistic(student: DefectNetwork) -> None:
    torch.manual_seed(1)
    other = DefectNetwork(TINY)
    for statistic in (value for name, value in other.state_dict().items() if name.endswith("running_mean")):
        statistic.fill_(3.0)
    theirs, before = other.state_dict(), copy.deepcopy(student.state_dict())
    for name, value in mean_of(student, other).state_dict().items():
        if value.dtype.is_floating_point:
            torch.testing.assert_close(value, (before[name] + theirs[name]) / 2)
        assert torch.equal(student.state_dict()[name], before[name])


def test_an_unknown_label_has_no_part_in_the_loss(student: DefectNetwork, validation: Manifest) -> None:
    assert loss_on(student, validation) == pytest.approx(np.log(2))
    assert loss_on(leaning(student, 0.0, 9.0), validation) == pytest.approx(np.log(2))


@pytest.mark.parametrize(("logit", "kept", "why"), [(4.0, 2.0, "the mean of"), (-4.0, 0.0, "the student; its mean")])
def test_what_is_nearer_to_the_validation_labels_is_kept(
    student: DefectNetwork, validation: Manifest, logit: float, kept: float, why: str
) -> None:
    network, words = better_of(student, leaning(student, logit, 0.0), validation)
    assert network.head.bias[0].item() == pytest.approx(kept)
    assert words.startswith(why)
    for loss in (np.log1p(np.exp(-logit / 2)), np.log(2)):
        assert f"{loss:.4f}" in words
