"""What enters a network's layers when it looks at real tiles: a few positions of each tile, and how fine the map is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from models.engines.onnxruntime import open_session
from models.quantizing.graph import Layer

POSITIONS = 32  # of each tile


@dataclass(frozen=True)
class Samples:
    """`inputs` float32[n, channels], one row a position; `side` of the map they come from, None for tokens."""

    inputs: NDArray[np.float32]
    side: int | None


def sample_inputs(
    graph: onnx.ModelProto, layers: Sequence[Layer], tiles: NDArray[np.uint8], folder: Path
) -> dict[str, Samples]:
    """Layer name -> what entered it; `tiles` uint8[n, size, size, 3] are run one by one, in float32.

    `folder` holds the graph with more outputs while it runs. The same tiles give the same samples.
    """
    names = list(dict.fromkeys(layer.source for layer in layers))
    wider = onnx.ModelProto()
    wider.CopyFrom(graph)
    for name in names:
        wider.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    onnx.save(wider, folder / "wider.onnx")
    session = open_session(folder / "wider.onnx")
    random = np.random.default_rng(0)
    rows: dict[str, list[NDArray[np.float32]]] = {layer.name: [] for layer in layers}
    sides: dict[str, int | None] = {}
    for tile in tiles:
        found = dict(zip(names, session.run(names, {graph.graph.input[0].name: tile[None]}), strict=True))
        for layer in layers:
            value = found[layer.source]
            sides[layer.name] = value.shape[2] if layer.is_convolution else None
            rows[layer.name].append(_some(value, layer.is_convolution, random))
    return {layer.name: Samples(np.concatenate(rows[layer.name]), sides[layer.name]) for layer in layers}


def _some(value: Any, is_convolution: bool, random: np.random.Generator) -> NDArray[np.float32]:
    """A few positions of one tile: of a map [1, channels, y, x], or of anything with the channels last."""
    channels_last = np.moveaxis(value, 1, -1) if is_convolution else value
    flat = channels_last.reshape(-1, channels_last.shape[-1])
    return np.asarray(flat[random.integers(0, len(flat), POSITIONS)], dtype=np.float32)
