"""The int8 file is small, standard, symmetric, and says nearly what the float32 file says; weights are rounded well."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from models.engines.onnxruntime import open_session, run_as_written  # noqa: E402
from models.engines.openvino import run_graph  # noqa: E402
from models.engines.processor import has_int8  # noqa: E402
from models.engines.trial import golden  # noqa: E402
from models.quantizing.graph import GraphError, check_standard, shift_logits  # noqa: E402
from models.quantizing.quantize import Quantized, QuantizeError, quantize  # noqa: E402
from models.quantizing.rounding import round_to_bf16, round_weights  # noqa: E402
from models.release import MODEL_FILE  # noqa: E402
from models.releases.store import default_store  # noqa: E402


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Quantized]:
    release = default_store().open()
    out = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    return out, quantize(release.path(MODEL_FILE), golden(release).tiles[:16], out)


def test_it_is_a_standard_graph_of_the_size_of_its_weights(made: tuple[Path, Quantized]) -> None:
    path, quantized = made
    model = onnx.load(path)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    entry = model.graph.input[0].type.tensor_type
    sizes = [one.dim_param or one.dim_value for one in entry.shape.dim]
    assert entry.elem_type == onnx.TensorProto.UINT8 and sizes[1:] == [256, 256, 3] and isinstance(sizes[0], str)
    kinds = Counter(node.op_type for node in model.graph.node)
    release = default_store().open()
    norms = 2 * release.architecture.depth + 1 if release.architecture.kind == "transformer" else 0
    assert kinds["LayerNormalization"] == norms and kinds["Pad"] == 0
    assert kinds["QuantizeLinear"] >= 1 and kinds["DequantizeLinear"] >= len(quantized.layers)
    assert quantized.size == path.stat().st_size < 0.65 * release.path(MODEL_FILE).stat().st_size  # that has two bytes


def test_only_what_gains_is_quantised(made: tuple[Path, Quantized]) -> None:
    path, quantized = made
    model = onnx.load(path)
    makers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        quantised = any(getattr(makers.get(name), "op_type", "") == "DequantizeLinear" for name in node.input)
        if node.op_type in {"Add", "LayerNormalization", "Softmax", "Gemm"}:
            assert not quantised, node.name
        if node.name in quantized.kept:
            assert not quantised, node.name
    assert all("conv_dw" not in name for name in quantized.layers)
    assert any("conv_dw" in name for name in quantized.kept)
    blocks = default_store().open().architecture.depth
    assert sum("/attn/" in name or "/mlp/" in name for name in quantized.layers) == 4 * blocks


def by_onnxruntime(path: Path, tiles: Any) -> Any:
    session = open_session(path, 1)
    return session.run(None, {session.get_inputs()[0].name: tiles})[0]


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(
            lambda path, tiles: run_graph(path, tiles)[0],
            id="openvino",
            marks=pytest.mark.skipif(not has_int8(), reason="OpenVINO cuts sums of int8 off on this processor"),
        ),
        pytest.param(by_onnxruntime, id="onnxruntime"),
        pytest.param(run_as_written, id="as written"),
    ],
)
def test_both_engines_say_nearly_what_the_float32_file_says(made: tuple[Path, Quantized], run: Any) -> None:
    path, quantized = made
    release = default_store().open()
    known = golden(release)
    assert quantized.mean < 0.01
    trained = np.asarray(release.trained)
    assert np.abs(run(path, known.tiles) - known.expected)[:, trained].mean() < 0.01


def test_the_mean_of_each_logit_is_kept_in_exact_numbers_on_whatever_processor(made: tuple[Path, Quantized]) -> None:
    release = default_store().open()
    known = golden(release)
    expected, found = known.expected[:16], run_as_written(made[0], known.tiles[:16])
    shift = np.log(expected / (1 - expected)) - np.log(found / (1 - found))
    assert np.abs(shift.mean(axis=0)).max() < 0.1


def test_a_graph_without_such_layers_is_refused(tmp_path: Path) -> None:
    tiles = onnx.helper.make_tensor_value_info("tiles", onnx.TensorProto.UINT8, ["n", 8, 8, 3])
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, ["n", 8, 8, 3])
    cast = onnx.helper.make_node("Cast", ["tiles"], ["out"], to=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph([cast], "empty", [tiles], [out])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "empty.onnx",
    )
    with pytest.raises(QuantizeError, match="no layer"):
        quantize(tmp_path / "empty.onnx", np.zeros((4, 8, 8, 3), np.uint8), tmp_path / "out.onnx")


def test_a_zero_point_that_tensorrt_refuses_is_refused(made: tuple[Path, Quantized]) -> None:
    model = onnx.load(made[0])
    check_standard(model)
    point = next(node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear")
    tensor = next(one for one in model.graph.initializer if one.name == point)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(3, dtype=np.int8), point))
    with pytest.raises(GraphError, match="TensorRT"):
        check_standard(model)


def test_a_shift_moves_the_logits_by_just_so_much(made: tuple[Path, Quantized], tmp_path: Path) -> None:
    model, tiles = onnx.load(made[0]), golden(default_store().open()).tiles[:4]
    before = run_graph(made[0], tiles)[0]
    shift = np.linspace(-0.5, 0.5, before.shape[1], dtype=np.float32)
    assert shift_logits(model, shift)
    onnx.save(model, tmp_path / "shifted.onnx")
    after = run_graph(tmp_path / "shifted.onnx", tiles)[0]
    odds = [np.log(values / (1 - values)) for values in (before, after)]
    np.testing.assert_allclose(odds[1] - odds[0], np.broadcast_to(shift, before.shape), atol=2e-3)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 24), st.integers(1, 8))
def test_rounding_by_outputs_is_never_worse_than_rounding_by_weights(seed: int, inputs: int, outputs: int) -> None:
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(inputs, inputs))
    samples = (np.maximum(random.normal(size=(400, inputs)) @ mixing, 0.0) + 1.0).astype(np.float32)
    weights = random.normal(size=(outputs, inputs)).astype(np.float32)
    scales = np.abs(weights).max(axis=1) / 7.0  # coarse, so that there is something to lose
    ours = round_weights(weights, scales, samples)
    nearest = np.round(weights / scales[:, None])
    errors = [(((q * scales[:, None] - weights) @ samples.T) ** 2).mean() for q in (ours, nearest)]
    assert np.abs(ours).max() <= 127 and ours.dtype == np.int8
    assert errors[0] <= errors[1] * 1.2 + 1e-9


@given(st.integers(0, 1000))
def test_bfloat16_weights_are_exact_and_the_bias_keeps_the_mean(seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.normal(size=(5, 1, 3, 3)).astype(np.float32)
    means = random.normal(3.0, 1.0, size=(5, 1)).astype(np.float32)
    rounded, correction = round_to_bf16(weights, means)
    assert not (rounded.view(np.uint32) & 0xFFFF).any()
    assert np.abs(rounded - weights).max() <= np.abs(weights).max() * 2.0**-8
    before, after = ((one.sum(axis=(2, 3)) * means).sum(axis=1) for one in (weights, rounded))
    np.testing.assert_allclose(after + correction, before, atol=1e-4)
