"""From a trained network to the files of a release: half-precision weights, an ONNX graph, and a check of both."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from models.engines.openvino import run_file
from models.quantizing.snapping import snap_to_bf16
from models.release import FOLDED, GOLDEN_FILE, MODEL_FILE, WEIGHTS_FILE
from models.vit import DefectNetwork

# The first opset with LayerNormalization as one node; taken apart, it overflows in half precision on some hardware.
OPSET = 17
# Tensors of at least so many numbers are stored in half precision; the small ones are not worth the error.
HALVED = 1024
# Largest allowed difference of a probability between the ONNX file and PyTorch, both in float32.
PARITY = 1e-4


class ExportError(Exception):
    """An export that does not compute what the network computes."""


def round_weights(network: DefectNetwork, tiles: NDArray[np.uint8] | None = None) -> DefectNetwork:
    """A copy with folded preprocessing whose large weights half precision can hold: it is exported bit for bit.

    With `tiles` (real ones, uint8[n, size, size, 3]) its convolutions are moved onto numbers that bfloat16 holds too.
    """
    rounded: DefectNetwork = copy.deepcopy(network)
    rounded.eval()
    rounded.fold_preprocessing(True)
    if tiles is not None:
        snap_to_bf16(rounded, tiles)
    with torch.no_grad():
        for tensor in rounded.state_dict().values():
            if _halved(tensor):
                tensor.copy_(tensor.half().float())
    return rounded


def write_weights(rounded: DefectNetwork, folder: Path) -> None:
    """`model.safetensors`, large tensors in half precision; it says whether its preprocessing is folded."""
    tensors = {
        name: (tensor.half() if _halved(tensor) else tensor).contiguous()
        for name, tensor in rounded.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(tensors, folder / WEIGHTS_FILE, {FOLDED: str(rounded.folded).lower()})
    (folder / WEIGHTS_FILE).chmod(0o644)


def _halved(tensor: torch.Tensor) -> bool:
    return bool(tensor.dtype == torch.float32 and tensor.numel() >= HALVED)


def write_onnx(rounded: DefectNetwork, folder: Path, tiles: NDArray[np.uint8]) -> None:
    """`model.onnx` with any number of tiles per call; raises ExportError if it disagrees with PyTorch on `tiles`.

    Input `tiles` uint8[n, size, size, 3]; outputs `probabilities` float32[n, classes], `embeddings` float32[n, width].
    Weights are stored as float16 behind a Cast: half the bytes, and the arithmetic is whatever the engine chooses.
    """
    model = onnx.load_from_string(traced(rounded, tiles[:2]))
    _halve_initializers(model)
    onnx.checker.check_model(model)
    onnx.save(model, folder / MODEL_FILE)
    check_parity(rounded, folder / MODEL_FILE, tiles)


def traced(network: DefectNetwork, tiles: NDArray[np.uint8]) -> bytes:
    """ONNX of a network in float32, as it is, with any number of tiles per call; `tiles` are any two."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter is announced as old; the new one needs another package and writes no smaller a graph.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.from_numpy(tiles),),
            file,
            opset_version=OPSET,
            dynamo=False,
            input_names=["tiles"],
            output_names=["probabilities", "embeddings"],
            dynamic_axes={name: {0: "n"} for name in ("tiles", "probabilities", "embeddings")},
            # PRESERVE leaves batch norm to the engine: folded here, the weights would be rounded a second time.
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    return file.getvalue()


def _halve_initializers(model: onnx.ModelProto) -> None:
    graph = model.graph
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < HALVED:
            continue
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), tensor.name + ".half"))
        graph.node.insert(0, helper.make_node("Cast", [tensor.name + ".half"], [tensor.name], to=TensorProto.FLOAT))


def check_parity(network: DefectNetwork, path: Path, tiles: NDArray[np.uint8]) -> None:
    """Raise ExportError if a probability of the file and one of PyTorch differ by more than PARITY, or are no numbers.

    Both run in float32, once with one tile and once with all of them.
    """
    for batch in (tiles[:1], tiles):
        found = float(np.abs(run_file(path, batch).probabilities - reference(network, batch)).max())
        if not found <= PARITY:  # nor is NaN
            raise ExportError(f"{path.name} differs from the network by {found:.6f}, more than {PARITY}")


def reference(network: DefectNetwork, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32[n, classes] in PyTorch, sixteen tiles at a time."""
    with torch.inference_mode():
        parts = [network(torch.from_numpy(tiles[i : i + 16]))[0].numpy() for i in range(0, len(tiles), 16)]
    return np.concatenate(parts).astype(np.float32)


def write_golden(rounded: DefectNetwork, folder: Path, tiles: NDArray[np.uint8]) -> None:
    """`golden.npz`: real tiles and what the float32 reference says of them, to check any engine without PyTorch."""
    np.savez_compressed(folder / GOLDEN_FILE, tiles=tiles, probabilities=reference(rounded, tiles))
