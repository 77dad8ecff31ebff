"""The ONNX graph of a network: its weighty layers, and the few changes that quantising makes to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from models.quantizing.rounding import round_to_bf16

OPSET = 17


class GraphError(Exception):
    """A graph that our engines would not take, and why."""


@dataclass(frozen=True)
class Layer:
    """A convolution or a product with constant weights; `source` names the tensor that enters it.

    `weights` float32[outputs, inputs] of a convolution with a 1 x 1 kernel or of a product; None for larger kernels.
    """

    name: str
    source: str
    is_convolution: bool
    is_depthwise: bool
    weights: NDArray[np.float32] | None


def layers_of(model: onnx.ModelProto) -> list[Layer]:
    """The weighty layers in the order they run; the head is none of them (it is a Gemm)."""
    constants = _constants(model)
    found = []
    for node in model.graph.node:
        if node.op_type not in {"Conv", "MatMul"} or node.input[1] not in constants:
            continue
        weights, conv = numpy_helper.to_array(constants[node.input[1]]), node.op_type == "Conv"
        groups = _attribute(node, "group").i if conv else 1
        matrix = None
        if not conv:
            matrix = weights.T
        elif weights.shape[2:] == (1, 1) and groups <= 1:
            matrix = weights[:, :, 0, 0]
        found.append(Layer(node.name, node.input[0], conv, groups > 1, matrix))
    return found


def replace_weights(model: onnx.ModelProto, rounded: Mapping[str, NDArray[np.int8]]) -> None:
    """Put other int8 weights, int8[outputs, inputs], into the named layers of a quantised graph; the scales stay."""
    constants = _constants(model)
    makers = _makers(model)
    for node in model.graph.node:
        if node.name in rounded:
            tensor = constants[makers[node.input[1]].input[0]]
            values = rounded[node.name].T if node.op_type == "MatMul" else rounded[node.name]
            shaped = np.ascontiguousarray(values).reshape(tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(shaped, tensor.name))


def leave_others_in_float(model: onnx.ModelProto, quantised: Collection[str]) -> None:
    """Let only the `quantised` layers read whole numbers; a residual sum beside one reads what was there before."""
    makers = _makers(model)
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} or node.name in quantised:
            continue
        for place, name in enumerate(node.input):
            up = makers.get(name)
            down = makers.get(up.input[0]) if up is not None and up.op_type == "DequantizeLinear" else None
            if down is not None:
                node.input[place] = down.input[0]


def hold_in_bf16(model: onnx.ModelProto, means: Mapping[str, NDArray[np.float32]]) -> None:
    """Round the weights of the named convolutions to bfloat16 and correct their biases; `means` float32[channels]."""
    constants = _constants(model)
    for node in model.graph.node:
        if node.name not in means or node.op_type != "Conv" or len(node.input) < 3:
            continue
        weights, bias = constants[node.input[1]], constants[node.input[2]]
        values, mean = numpy_helper.to_array(weights), means[node.name]
        groups = max(1, _attribute(node, "group").i)
        # Of a depthwise convolution each output has one input of its own.
        entering = mean.reshape(groups, -1).repeat(len(values) // groups, axis=0)
        rounded, correction = round_to_bf16(values, entering)
        weights.CopyFrom(numpy_helper.from_array(rounded, weights.name))
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + correction, bias.name))


def scales_of(model: onnx.ModelProto, layer: str) -> NDArray[np.float32]:
    """float32[outputs]: the steps of a quantised layer's weights."""
    node = next(one for one in model.graph.node if one.name == layer)
    return np.asarray(numpy_helper.to_array(_constants(model)[_makers(model)[node.input[1]].input[1]]))


def shift_logits(model: onnx.ModelProto, shift: NDArray[np.float32]) -> bool:
    """Add `shift`, float32[classes], in front of the sigmoid that ends the graph; False if it does not end in one."""
    makers, constants = _makers(model), _constants(model)
    last = makers.get(model.graph.output[0].name)
    total = makers.get(last.input[0]) if last is not None and last.op_type == "Sigmoid" else None
    if total is None or total.op_type != "Add" or total.input[1] not in constants:
        return False
    bias = constants[total.input[1]]
    bias.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(bias) + shift).astype(np.float32), bias.name))
    return True


def fold_padding(model: onnx.ModelProto) -> None:
    """Move constant zero padding into the convolution behind it; as a layer of its own it costs time in int8."""
    graph, constants, makers = model.graph, _constants(model), _makers(model)
    uses = [name for node in graph.node for name in node.input]
    for node in list(graph.node):
        padding = makers.get(node.input[0]) if node.op_type == "Conv" else None
        if padding is None or padding.op_type != "Pad" or padding.input[1] not in constants:
            continue
        if uses.count(padding.output[0]) == 1:
            sizes = [int(size) for size in numpy_helper.to_array(constants[padding.input[1]])]
            pads = _attribute(node, "pads")
            more = [sizes[2], sizes[3], sizes[6], sizes[7]]  # of [n, c, y, x] before, then after
            pads.ints[:] = [old + extra for old, extra in zip(pads.ints, more, strict=True)]
            node.input[0] = padding.input[0]
            graph.node.remove(padding)
    _drop_unused(graph)


def keep_standard(model: onnx.ModelProto) -> None:
    """Drop the names of operator sets that an optimiser lists and nobody uses."""
    used = {node.domain for node in model.graph.node}
    kept = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def check_standard(model: onnx.ModelProto) -> None:
    """Raise GraphError unless every engine of ours would take the quantised graph."""
    onnx.checker.check_model(model)
    versions = {one.domain: one.version for one in model.opset_import}
    if set(versions) != {""} or versions[""] > OPSET:
        raise GraphError(f"the graph needs {versions}, more than opset {OPSET} of the standard")
    points = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for name, tensor in _constants(model).items():
        if name in points and np.any(numpy_helper.to_array(tensor) != 0):
            raise GraphError(f"{name} is a zero point other than 0, which TensorRT refuses")


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _constants(model: onnx.ModelProto) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _makers(model: onnx.ModelProto) -> dict[str, Any]:
    return {output: node for node in model.graph.node for output in node.output}


def _attribute(node: Any, name: str) -> Any:
    return next((one for one in node.attribute if one.name == name), onnx.AttributeProto())
