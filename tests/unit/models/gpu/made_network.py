"""A small network as a release holds one: ONNX with LayerNormalization and Softmax, in float32 and with Q/DQ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from models.architecture import Architecture
from models.engines.protocol import Scores
from models.release import GOLDEN_FILE, INT8_FILE, MODEL_FILE, Release
from tests.unit.models.made_releases import SIDE, made_class, made_facts, unsigned

CLASSES = ("crack", "spalling", "exposed_rebar")
WIDTH = 8
OPSET = 17


def made_onnx(quantised: bool = False, off: float = 0.0) -> bytes:
    """uint8[n, 4, 4, 3] to float32[n, 3] and float32[n, 8]; `off` is added to what goes into the sigmoid."""
    random = np.random.default_rng(8)
    pixels = SIDE * SIDE * 3
    constants = {
        "scale": np.float32(1 / 255),
        "rows": np.array([-1, pixels], np.int64),
        "weights": random.normal(size=(pixels, WIDTH)).astype(np.float32),
        "gain": np.ones(WIDTH, np.float32),
        "bias": np.zeros(WIDTH, np.float32),
        "head": random.normal(size=(WIDTH, len(CLASSES))).astype(np.float32),
        "off": np.float32(off),
    }
    nodes = [
        helper.make_node("Transpose", ["tiles"], ["turned"], perm=[0, 3, 1, 2]),  # as an exporter of images begins
        helper.make_node("Cast", ["turned"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["small"]),
        helper.make_node("Reshape", ["small", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["mixed"]),
        helper.make_node("LayerNormalization", ["mixed", "gain", "bias"], ["even"], axis=-1),
        helper.make_node("Softmax", ["even"], ["shares"], axis=-1),
        helper.make_node("Add", ["even", "shares"], ["embeddings"]),
        helper.make_node("MatMul", ["embeddings", "head"], ["seen"]),
        helper.make_node("Add", ["seen", "off"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    if quantised:
        nodes[4:5] = [
            *_quantised("flat", 1 / 127, constants),
            helper.make_node("DequantizeLinear", ["weights.q", "weights.step", "zero"], ["weights.dq"]),
            helper.make_node("MatMul", ["flat.dq", "weights.dq"], ["mixed"]),
        ]
        step = np.float32(np.abs(constants["weights"]).max() / 127)
        constants["weights.q"] = np.round(constants["weights"] / step).astype(np.int8)
        constants["weights.step"] = step
        del constants["weights"]
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}_{number}"
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(CLASSES)]),
            helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", WIDTH]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _quantised(name: str, step: float, constants: dict[str, object]) -> list[onnx.NodeProto]:
    constants[f"{name}.step"], constants["zero"] = np.float32(step), np.int8(0)
    return [
        helper.make_node("QuantizeLinear", [name, f"{name}.step", "zero"], [f"{name}.q"]),
        helper.make_node("DequantizeLinear", [f"{name}.q", f"{name}.step", "zero"], [f"{name}.dq"]),
    ]


def run_onnx(graph: bytes, pixels: np.ndarray) -> Scores:
    """What ONNX Runtime computes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return Scores(*session.run(["probabilities", "embeddings"], {"tiles": pixels}))


def made_release(folder: Path, off: float = 0.0) -> Release:
    """A release of that network, in the folder `small.1`."""
    tiles = np.random.default_rng(3).integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)

    def files(where: Path) -> None:
        (where / MODEL_FILE).write_bytes(made_onnx(off=off))
        (where / INT8_FILE).write_bytes(made_onnx(quantised=True, off=off))
        np.savez(where / GOLDEN_FILE, tiles=tiles, probabilities=run_onnx(made_onnx(off=off), tiles).probabilities)

    shape = Architecture(classes=len(CLASSES), tile_size=SIDE, width=WIDTH)
    facts = made_facts("small.1", classes=tuple(map(made_class, CLASSES)), architecture=shape)
    return unsigned(folder / "small.1", facts, files)
