"""What ships is fit for TensorRT: old operators, nothing dynamic but the batch, types that keep the scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
from models.engines.gate import SANITY, Evidence, judge
from models.engines.gpu.fp8 import LARGEST, NothingToQuantise, in_fp8
from models.engines.gpu.graphs import cast_first, folded, in_half
from models.engines.trial import evidence
from models.release import CONFIG_FILE, INT8_FILE, MODEL_FILE, Release
from models.releases.folder import draft
from tests.unit.models.gpu.made_network import made_onnx, run_onnx

ZOO = Path(models.__file__).parent / "zoo"
NEWEST_OPSET = {"fp8": 19}
"""The first that knows the type; the others have 17, the newest that TensorRT 8.6's parser reads."""
TILES = 64
PRODUCTS = ("Conv", "MatMul", "Gemm")
SCALING = {"QuantizeLinear", "DequantizeLinear"}
IN_FLOAT = {"LayerNormalization", "Softmax", "Sigmoid"} | SCALING
"""Said here again: what the code leaves out of its own list must be missed."""


@pytest.fixture(scope="module")
def release() -> Release:
    """The transformer that ships, as it lies there: whether its signature holds is asked elsewhere."""
    found = (draft(folder) for folder in sorted(ZOO.glob("*")) if (folder / CONFIG_FILE).is_file())
    return next(one for one in found if one.architecture.kind == "transformer")


@pytest.fixture(scope="module")
def seen(release: Release) -> Evidence:
    """Every so many of the labelled tiles: all of them take minutes in half precision on a CPU."""
    everything = evidence(release)
    chosen = slice(None, None, len(everything.tiles) // TILES)
    return Evidence(everything.tiles[chosen], everything.expected[chosen], everything.labels[chosen])


def variants(release: Release) -> dict[str, bytes]:
    """What TensorRT is given, for each precision: by flags (8.6), then by types (10, 11)."""
    plain = cast_first(folded(release.path(MODEL_FILE).read_bytes()))
    quantised = cast_first(release.path(INT8_FILE).read_bytes())
    typed = {"f16": in_half(plain), "int8 typed": in_half(quantised), "fp8": in_half(in_fp8(plain, quantised))}
    return {"f32": plain, "int8": quantised} | typed


@pytest.fixture(scope="module")
def graphs(release: Release) -> dict[str, bytes]:
    return variants(release)


NAMES = ("f32", "f16", "int8", "int8 typed", "fp8")


@pytest.mark.parametrize("name", NAMES)
def test_operators_are_standard_and_old_enough_and_norms_are_one_node(graphs: dict[str, bytes], name: str) -> None:
    model = onnx.load_from_string(graphs[name])
    onnx.checker.check_model(model)
    (standard,) = [one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}]
    assert standard <= NEWEST_OPSET.get(name, 17)
    assert not {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("LayerNormalization") == 5  # two in each of two blocks, and one behind them
    assert not {"Pow", "ReduceSum"} & set(kinds)
    assert kinds.count("ReduceMean") == 1  # the mean over tokens, and none of a norm taken apart


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_dynamic_but_the_batch_and_pixels_go_in_as_bytes(graphs: dict[str, bytes], name: str) -> None:
    model = onnx.load_from_string(graphs[name])
    (tiles,) = model.graph.input
    assert [node.op_type for node in model.graph.node if tiles.name in node.input] == ["Cast"]
    assert tiles.type.tensor_type.elem_type == TensorProto.UINT8
    first, *others = tiles.type.tensor_type.shape.dim
    assert first.dim_param and [one.dim_value for one in others] == [256, 256, 3]
    first.dim_value = 8
    del model.graph.value_info[:]
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    known = {one.name: one.type.tensor_type.shape.dim for one in (*found.value_info, *found.output)}
    for node in found.node:
        for output in node.output:
            assert all(one.HasField("dim_value") for one in known[output]), f"{node.op_type} {output}"


def types(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, set[int]]]:
    """Each operation with the types of its inputs and outputs that are floating-point numbers."""
    known: dict[str, int] = {one.name: one.data_type for one in model.graph.initializer}
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    known |= {one.name: one.type.tensor_type.elem_type for one in (*found.value_info, *found.input, *found.output)}
    floating = {TensorProto.FLOAT, TensorProto.FLOAT16}
    for node in model.graph.node:
        yield node, {known[name] for name in (*node.input, *node.output) if name} & floating


@pytest.mark.parametrize("name", ["f16", "int8 typed", "fp8"])
def test_a_typed_graph_multiplies_in_half_precision_and_keeps_norms_and_scales(
    graphs: dict[str, bytes], name: str
) -> None:
    model = onnx.load_from_string(graphs[name])
    whole = {"DequantizeLinear"} if name == "int8 typed" else set[str]()
    quantised = {one for node in model.graph.node if node.op_type in whole for one in node.output}
    kinds: dict[str, list[set[int]]] = {}
    for node, one in types(model):
        kind = f"quantised {node.op_type}" if quantised & set(node.input) else node.op_type
        kinds.setdefault(kind, []).append(one)
    for kind in (*PRODUCTS, "Add"):
        assert all(one == {TensorProto.FLOAT16} for one in kinds.get(kind, [])), kind
        if kind in PRODUCTS:  # whole numbers in, float32 out, no cast between that would part the two
            assert all(one == {TensorProto.FLOAT} for one in kinds.get(f"quantised {kind}", [])), kind
    assert ("quantised Conv" in kinds) == ("quantised MatMul" in kinds) == (name == "int8 typed")
    # Scales of eight-bit floats are as large as half precision likes them: another test looks at those.
    for kind in IN_FLOAT & set(kinds) - (SCALING if name == "fp8" else set()):
        assert all(one == {TensorProto.FLOAT} for one in kinds[kind]), kind


def test_the_linear_layers_of_blocks_and_nothing_else_are_in_eight_bit_floats(graphs: dict[str, bytes]) -> None:
    model = onnx.load_from_string(graphs["fp8"])
    constants = {one.name: one for one in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    scaled = [[makers[name] for name in node.input if name in makers] for node in model.graph.node]
    layers = {
        node.name: [one for one in above if one.op_type == "DequantizeLinear"]
        for node, above in zip(model.graph.node, scaled, strict=True)
        if node.op_type in PRODUCTS
    }
    through = {name for name, above in layers.items() if above}
    # Queries, keys and values; what comes out of attention; both layers of the perceptron: in each of two blocks.
    assert len(through) == 8 and all(len(layers[name]) == 2 for name in through)
    assert {kind for name in through for kind in PRODUCTS if f"/{kind}" in name} == {"MatMul"}
    weights = [constants[one.input[0]] for name in through for one in layers[name] if one.input[0] in constants]
    assert len(weights) == 8 and {one.data_type for one in weights} == {TensorProto.FLOAT8E4M3FN}
    assert model.ir_version >= 9 and all(len(one.raw_data) == np.prod(one.dims) for one in weights)
    for one in weights:  # the largest of each weight is the largest that there is: none of the eight bits is wasted
        assert np.abs(numpy_helper.to_array(one).astype(np.float32)).max() == LARGEST
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            assert constants[node.input[1]].data_type == TensorProto.FLOAT16
            assert constants[node.input[2]].data_type == TensorProto.FLOAT8E4M3FN


def test_without_ranges_nothing_can_be_put_in_eight_bits() -> None:
    with pytest.raises(NothingToQuantise, match="no linear layer"):
        in_fp8(made_onnx(), made_onnx())


def test_tensors_that_two_layers_read_are_rounded_once() -> None:
    """Both layers the same weight; one input for two of them, and the weight read elsewhere as well."""
    names = {"x": np.array([[1.0, -2.0]], np.float32), "w": np.array([[0.5, 1.0], [2.0, 7.0]], np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["x", "w"], ["b"], name="second"),
        helper.make_node("Add", ["a", "w"], ["c"], name="other"),
        helper.make_node("Add", ["b", "c"], ["y"], name="sum"),
    ]
    down = helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"], name="down")
    put_in = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])]
    constants = {"w": names["w"], "step": np.float32(2 / 127), "zero": np.int8(0)}
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    opset = [helper.make_opsetid("", 17)]
    plain, ranged = (
        helper.make_model(helper.make_graph(made, "two", put_in, out, held), opset_imports=opset, ir_version=8)
        for made in (nodes, [down, *nodes])
    )
    model = onnx.load_from_string(in_fp8(plain.SerializeToString(), ranged.SerializeToString()))
    onnx.checker.check_model(model)
    kinds = [node.op_type for node in model.graph.node]
    assert (kinds.count("QuantizeLinear"), kinds.count("DequantizeLinear")) == (1, 2)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"x": names["x"]})
    np.testing.assert_allclose(found, 2 * names["x"] @ names["w"] + names["w"], rtol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_scores_stay_within_what_the_gate_allows(
    graphs: dict[str, bytes], release: Release, seen: Evidence, name: str
) -> None:
    precision = name.partition(" ")[0]
    parts = [run_onnx(graphs[name], seen.tiles[at : at + 8]).probabilities for at in range(0, len(seen.tiles), 8)]
    verdict = judge(np.concatenate(parts), seen, release.classes, precision)
    assert verdict.sane and verdict.mean <= SANITY[precision].mean / 2, verdict
