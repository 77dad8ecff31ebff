"""Makes the int8 file of a release, once, at training time: int8 where that gains speed and costs no score."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from models.engines.onnxruntime import import_quantization, run_as_written, write_folded
from models.engines.openvino import run_graph
from models.engines.processor import has_bf16, has_int8
from models.quantizing.graph import (
    Layer,
    check_standard,
    fold_padding,
    hold_in_bf16,
    keep_standard,
    layers_of,
    leave_others_in_float,
    replace_weights,
    scales_of,
    shift_logits,
)
from models.quantizing.rounding import round_weights
from models.quantizing.samples import Samples, sample_inputs

CALIBRATION_STEP = 4  # tiles whose activations are held at once
FINEST_STRIDE = 8  # pixels a cell, of the finest maps that are quantised
SURE = 1e-6  # a probability nearer to 0 or 1 than this says nothing about a shift


class QuantizeError(Exception):
    """A file that cannot be quantised, and why."""


@dataclass(frozen=True)
class Quantized:
    """What came out: names of the layers in int8 and of those that are not, bytes, and what it did to the scores.

    `mean` and `largest` are differences of a probability from the float32 file on the calibration tiles.
    """

    layers: tuple[str, ...]
    kept: tuple[str, ...]
    size: int
    mean: float
    largest: float


def quantize(model: Path, tiles: NDArray[np.uint8], out: Path) -> Quantized:
    """Write `out`, the int8 Q/DQ form of a release's `model.onnx`; `tiles` are real ones, uint8[n, size, size, 3].

    Takes about 300 tiles of all the kinds that the network will see, and a minute or two. Activations are int8 with
    zero point 0 and one scale a tensor, as TensorRT wants them; weights are int8 with one scale an output channel,
    rounded so that outputs stay (models/quantizing/rounding.py). Depthwise convolutions and those on the finest maps
    stay in float: they gain no time and cost most of the scores. So do residual sums, LayerNorm, softmax, the products
    inside attention, and the head. At last each class's logits are moved by what they lost on average on the tiles.

    Raises QuantizeError for a graph without a layer to quantise, GraphError for a result that no engine would take.
    """
    with tempfile.TemporaryDirectory(prefix="spanwatch-quantize-") as name:
        folder = Path(name)
        write_folded(model, folder / "folded.onnx")
        graph = onnx.load(folder / "folded.onnx")
        fold_padding(graph)
        keep_standard(graph)
        onnx.save(graph, folder / "folded.onnx")
        layers = layers_of(graph)
        seen = sample_inputs(graph, layers, tiles, folder) if layers else {}
        largest = max((one.side for one in seen.values() if one.side is not None), default=0)
        chosen = [layer for layer in layers if _gains(layer, seen[layer.name], largest)]
        if not chosen:
            raise QuantizeError(f"{model}: no layer that would gain from int8")
        hold_in_bf16(graph, {one.name: seen[one.name].inputs.mean(axis=0) for one in layers if one not in chosen})
        onnx.save(graph, folder / "folded.onnx")
        _run_quantiser(folder, tiles, graph.graph.input[0].name, chosen)
        made = onnx.load(folder / "quantised.onnx")
    leave_others_in_float(made, {layer.name for layer in chosen})
    replace_weights(
        made,
        {
            layer.name: round_weights(layer.weights, scales_of(made, layer.name), seen[layer.name].inputs)
            for layer in chosen
            if layer.weights is not None
        },
    )
    check_standard(made)
    onnx.save(made, out)
    expected = run_graph(model, tiles)[0]
    found = _shifted(made, out, tiles, expected)
    difference = np.abs(found - expected)
    kept = tuple(layer.name for layer in layers if layer not in chosen)
    names = tuple(layer.name for layer in chosen)
    return Quantized(names, kept, out.stat().st_size, float(difference.mean()), float(difference.max()))


def _gains(layer: Layer, seen: Samples, largest: int) -> bool:
    """Whether int8 gains time at a fair price: not depthwise, not on the finest maps, not on the pixels themselves."""
    return not layer.is_depthwise and (seen.side is None or seen.side * FINEST_STRIDE <= largest)


def _shifted(
    made: onnx.ModelProto, out: Path, tiles: NDArray[np.uint8], expected: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Write `out` once more with the mean shift of each class's logits taken back; what it says then.

    The shift is that of the file where it will run: with exact whole numbers, which this CPU may not have, and
    rounded to bfloat16 where this CPU has it.
    """
    found = _served(out, tiles)
    if shift_logits(made, (_logits(expected) - _logits(found)).mean(axis=0)):
        onnx.save(made, out)
        found = _served(out, tiles)
    return found


def _served(path: Path, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    if not has_int8():
        return run_as_written(path, tiles)
    return run_graph(path, tiles, "bf16" if has_bf16() else "f32")[0]


def _logits(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    inside = np.clip(probabilities, SURE, 1.0 - SURE)
    return np.asarray(np.log(inside / (1.0 - inside)), dtype=np.float32)


class _Batches:
    """The tiles, a few at a time, the way the quantiser asks for them."""

    def __init__(self, name: str, tiles: NDArray[np.uint8]) -> None:
        self._rest = iter(
            [{name: tiles[start : start + CALIBRATION_STEP]} for start in range(0, len(tiles), CALIBRATION_STEP)]
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next few, None after the last."""
        return next(self._rest, None)


def _run_quantiser(folder: Path, tiles: NDArray[np.uint8], name: str, chosen: Sequence[Layer]) -> None:
    """From `folded.onnx` to `quantised.onnx` by ONNX Runtime's static quantisation: ranges, scales, Q/DQ pairs."""
    tools: Any = import_quantization()
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a preparation that has been done
    try:
        tools.quantize_static(
            str(folder / "folded.onnx"),
            str(folder / "quantised.onnx"),
            _Batches(name, tiles),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul"],
            nodes_to_quantize=[layer.name for layer in chosen],
            per_channel=True,
            activation_type=tools.QuantType.QInt8,
            weight_type=tools.QuantType.QInt8,
            calibrate_method=tools.CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                # What leaves a layer goes on in float: it is a summand of a residual or enters a normalisation.
                "OpTypesToExcludeOutputQuantization": ["Conv", "MatMul"],
                "QuantizeBias": False,
                "QDQKeepRemovableActivations": True,
            },
        )
    finally:
        root.setLevel(level)
