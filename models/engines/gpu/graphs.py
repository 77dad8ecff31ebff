"""Makes a release's ONNX fit for a card: what is constant is a constant, and types say what is computed in what.

TensorRT 10 (strongly typed) and 11 take the types from the graph alone; 8.6 chooses within what its flags allow.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

IN_FLOAT = ("LayerNormalization", "Softmax", "Sigmoid", "QuantizeLinear", "DequantizeLinear")
"""What stays in float32.

Sums of squares overflow half precision (a ViT then answers nonsense), and so may exponentials. Scales of quantised
tensors are as small as half precision's last steps: with half-precision scales the shipped release's probabilities were
off by up to 0.95 (128 tiles, ONNX Runtime 1.32), so a quantised tensor is cast where it comes out.
"""


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


def in_half(graph: bytes) -> bytes:
    """The same graph in float16 but for what is IN_FLOAT; inputs and outputs stay what they are."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with warnings.catch_warnings():
        # It says of every weight below half precision's smallest number that it became that: the gate judges the sum.
        warnings.simplefilter("ignore")
        model = convert_float_to_float16(onnx.load_from_string(graph), keep_io_types=True, op_block_list=list(IN_FLOAT))
    OnnxModel.graph_topological_sort(model.graph)  # new casts stand at its end; ONNX wants them before what they feed
    found: bytes = model.SerializeToString()
    return found
