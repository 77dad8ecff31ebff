"""Puts a transformer's linear layers into eight-bit floats, with the ranges that the release's quantised graph knows.

E4M3 has three bits of a fraction and reaches 448 (Micikevicius et al., "FP8 formats for deep learning", arXiv
2209.05433): its steps grow with the number, so one scale does for a whole weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 448.0
"""Of E4M3; what is above becomes it."""
OPSET, FILE_VERSION = 19, 9
"""Of ONNX, the first whose QuantizeLinear knows the type. TensorRT 10 and 11 read it, 8.6 does not."""
CAPABILITY = (8, 9)
"""Of the first cards that multiply it: Ada; Hopper and all later ones do."""


class NothingToQuantise(ValueError):
    """No linear layer of the graph has a range in the quantised one."""


def in_fp8(graph: bytes, quantised: bytes) -> bytes:
    """The same graph with the inputs and weights of its blocks' linear layers in E4M3; all else stays what it is.

    Args:
        graph: in float32.
        quantised: the same network in whole numbers of eight bits: the range of a layer's input there is its range
            here.

    Raises:
        NothingToQuantise: the network has no such layer, as a convolution has none.
    """
    import onnx
    from onnx import helper, numpy_helper, version_converter

    ranges = _ranges(onnx.load_from_string(quantised))
    model = version_converter.convert_version(onnx.load_from_string(graph), OPSET)
    weights = {one.name: one for one in model.graph.initializer}
    rounded, nodes = _Rounded(), []
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[0] in ranges and node.input[1] in weights:
            source, weight = node.input
            nodes += rounded.activation(source, ranges[source])
            nodes += rounded.weight(weight, numpy_helper.to_array(weights[weight]))
            node.input[:] = [rounded.name(source), rounded.name(weight)]
        nodes.append(node)
    if not rounded.constants:
        raise NothingToQuantise("no linear layer of this network has a range to quantise its input by")
    read = {name for node in nodes for name in node.input}
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:], model.opset_import[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([one for name, one in weights.items() if name in read])
    model.graph.initializer.extend(rounded.constants)
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = max(model.ir_version, FILE_VERSION)
    found: bytes = model.SerializeToString()
    return found


def _ranges(model: Any) -> dict[str, float]:
    """The largest magnitude that each quantised activation may have, by its tensor's name."""
    from onnx import numpy_helper

    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[1] in constants and constants[node.input[1]].size == 1:
            zero = constants[node.input[2]]
            ends = np.array([np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max]) - zero.astype(np.int64)
            found[node.input[0]] = float(np.abs(ends).max() * constants[node.input[1]])
    return found


class _Rounded:
    """Tensors that go through E4M3 and back, and the constants that this takes."""

    def __init__(self) -> None:
        self.constants: list[Any] = []
        self._done: set[str] = set()

    def name(self, tensor: str) -> str:
        """Of the tensor once it is back."""
        return f"{tensor}.from_fp8"

    def activation(self, tensor: str, largest: float) -> list[Any]:
        """Down and up again; nothing where that is there already."""
        from onnx import helper

        if tensor in self._done:
            return []
        scale = self._scale(tensor, largest)
        down = helper.make_node("QuantizeLinear", [tensor, *scale], [f"{tensor}.fp8"], name=f"{tensor}.down")
        return [down, self._up(tensor, scale)]

    def weight(self, tensor: str, values: NDArray[np.float32]) -> list[Any]:
        """Up; nothing where that is there already. It lies in the file as it is on the card."""
        if tensor in self._done:
            return []
        largest = float(np.abs(values).max()) or LARGEST
        scale = self._scale(tensor, largest)
        self.constants.append(_eight_bits(f"{tensor}.fp8", values * np.float32(LARGEST / largest)))
        return [self._up(tensor, scale)]

    def _scale(self, tensor: str, largest: float) -> tuple[str, str]:
        """Scale and zero: of a float the second only says which type is meant."""
        from onnx import TensorProto, helper

        self._done.add(tensor)
        names = f"{tensor}.scale", f"{tensor}.zero"
        self.constants.append(helper.make_tensor(names[0], TensorProto.FLOAT, (), [largest / LARGEST]))
        self.constants.append(_eight_bits(names[1], np.zeros((), np.float32)))
        return names

    def _up(self, tensor: str, scale: tuple[str, str]) -> Any:
        from onnx import helper

        words = [f"{tensor}.fp8", *scale]
        return helper.make_node("DequantizeLinear", words, [self.name(tensor)], name=f"{tensor}.up")


def _eight_bits(name: str, values: NDArray[np.float32]) -> Any:
    """A tensor in E4M3, as raw bytes: of any other form TensorRT's parser reads the first quarter as if it were all."""
    from ml_dtypes import float8_e4m3fn
    from onnx import TensorProto, helper

    content = values.astype(float8_e4m3fn).tobytes()
    return helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, values.shape, content, raw=True)
