"""Makes a release's ONNX fit for a card: what is constant is a constant, and types say what is computed in what.

TensorRT 10 (strongly typed) and 11 take the types from the graph alone; 8.6 chooses within what its flags allow.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

IN_FLOAT = ("LayerNormalization", "Softmax", "Sigmoid")
"""What stays in float32: sums of squares overflow half precision (a ViT then answers nonsense), exponentials may."""
SCALING = ("QuantizeLinear", "DequantizeLinear")
"""What stays in float32 where it makes whole numbers.

Their scales are as small as half precision's last steps: with half-precision scales (opset 19) the shipped release's
probabilities were off by up to 0.95 (128 tiles, ONNX Runtime 1.32).
"""
PRODUCTS = ("Conv", "MatMul", "Gemm")


def folded(graph: bytes) -> bytes:
    """The same graph without arithmetic on constants: paddings and shapes that an exporter writes out step by step.

    TensorRT's parsers want constants where ONNX allows anything. Standard operators only, same opset.
    """
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(file)
        InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return file.read_bytes()


def cast_first(graph: bytes) -> bytes:
    """The same graph with bytes cast to floats before they are moved about.

    TensorRT takes a byte input only if a cast is what it feeds, not even a transposition (its DataType.UINT8 says so).
    A graph of ours casts first by itself since 2026-11d; older releases and models made elsewhere may not.
    """
    import onnx

    model = onnx.load_from_string(graph)
    (pixels,) = (one.name for one in model.graph.input)
    readers = [node for node in model.graph.node if pixels in node.input]
    if len(readers) == 1 and readers[0].op_type == "Transpose":
        moved = readers[0]
        casts = [node for node in model.graph.node if moved.output[0] in node.input]
        if len(casts) == 1 and casts[0].op_type == "Cast":
            (cast,) = casts
            cast.input[0], moved.input[0] = pixels, moved.output[0]
            cast.output[0], moved.output[0] = moved.output[0], cast.output[0]
            first, second = sorted(index for index, node in enumerate(model.graph.node) if node in (moved, cast))
            nodes = list(model.graph.node)
            nodes[first], nodes[second] = cast, moved
            del model.graph.node[:], model.graph.value_info[:]
            model.graph.node.extend(nodes)
    found: bytes = model.SerializeToString()
    return found


def in_half(graph: bytes) -> bytes:
    """The same graph in float16 but for what is IN_FLOAT; inputs and outputs stay what they are.

    What a tensor of whole numbers is multiplied by stays in float32 too: a cast between the two would part what
    TensorRT makes one kernel of. Eight-bit floats have scales that half precision holds, and are scaled in it.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load_from_string(graph)
    constants = {one.name: one.data_type for one in model.graph.initializer}
    scaling = [node for node in model.graph.node if node.op_type in SCALING]
    whole = [one for one in scaling if onnx.TensorProto.FLOAT8E4M3FN not in map(constants.get, one.input)]
    quantised = {name for node in whole for name in node.output}
    kept = [node for node in model.graph.node if node.op_type in PRODUCTS and quantised & set(node.input)]
    names = [node.name for node in (*whole, *kept)]
    with warnings.catch_warnings():
        # It says of every weight below half precision's smallest number that it became that: the gate judges the sum.
        warnings.simplefilter("ignore")
        model = convert_float_to_float16(model, keep_io_types=True, op_block_list=list(IN_FLOAT), node_block_list=names)
    _without_round_trips(model.graph)
    OnnxModel.graph_topological_sort(model.graph)  # new casts stand at its end; ONNX wants them before what they feed
    found: bytes = model.SerializeToString()
    return found


def _without_round_trips(graph: Any) -> None:
    """Between two operations in float32 the converter casts down and up again: take what was there before."""
    from onnx import TensorProto

    def kind(node: Any) -> int:
        return int(node.attribute[0].i) if node.op_type == "Cast" else 0

    down = {node.output[0]: node.input[0] for node in graph.node if kind(node) == TensorProto.FLOAT16}
    up = [node for node in graph.node if kind(node) == TensorProto.FLOAT and node.input[0] in down]
    before = {node.output[0]: down[node.input[0]] for node in up}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in before:
                node.input[place] = before[name]
    outputs = {one.name for one in graph.output}
    for node in up:
        if node.output[0] in outputs:
            node.input[0] = before[node.output[0]]  # it carries the output's name
        else:
            graph.node.remove(node)
    read = {name for node in graph.node for name in node.input} | outputs
    for node in [node for node in graph.node if kind(node) == TensorProto.FLOAT16 and node.output[0] not in read]:
        graph.node.remove(node)
