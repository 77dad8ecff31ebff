"""Writes into a release's ONNX which numbers a card is to compute in, for runtimes that take that from the graph alone.

TensorRT 10 (strongly typed) and 11 do; 8.6 chooses by itself within what its flags allow, and needs none of this.
"""

from __future__ import annotations

import warnings

KEPT = ("LayerNormalization", "Softmax", "Sigmoid", "QuantizeLinear", "DequantizeLinear")
"""What stays in float32.

Sums of squares overflow half precision (a ViT then answers nonsense), and so may exponentials. Scales of quantised
tensors are as small as half precision's last steps: with half-precision scales the shipped release's probabilities were
off by up to 0.95 (128 tiles, ONNX Runtime 1.32), so a quantised tensor is cast where it comes out.
"""


def in_half(graph: bytes) -> bytes:
    """The same ONNX graph in float16 but for what is KEPT; inputs and outputs stay what they are."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        # It says of every weight below half precision's smallest number that it became that: the gate judges the sum.
        warnings.simplefilter("ignore")
        model = convert_float_to_float16(onnx.load_from_string(graph), keep_io_types=True, op_block_list=list(KEPT))
    found: bytes = model.SerializeToString()
    return found
