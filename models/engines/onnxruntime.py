"""The second opinion: ONNX Runtime on the CPU, on the same files as OpenVINO; the one door to that library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.engines.on_cpu import OnCpu
from models.engines.protocol import EngineError, Pixels, Scores, Tile
from models.release import INT8_FILE, MODEL_FILE, Release, ReleaseError

OrtPrecision = Literal["f32", "int8"]
BATCH = 4
QUIET = 3  # errors only: it warns of every tensor its own optimiser has made superfluous


class OnnxRuntimeEngine(OnCpu):
    """Runs a release's ONNX files in float32 or int8; see models/engines/protocol.py for the promises."""

    def __init__(self, release: Release, precision: OrtPrecision = "f32", threads: int | None = None) -> None:
        super().__init__(release)
        self._precision = precision
        try:
            file = release.path(INT8_FILE if precision == "int8" else MODEL_FILE)
        except ReleaseError as error:
            raise EngineError(f"{release.id} in {precision}: {error}") from error
        self._session: Any = open_session(file, threads)

    @property
    def precision(self) -> str:
        """As asked for."""
        return self._precision

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Longer calls are cut; shorter ones are run as they are."""
        return (BATCH,)

    def infer(self, tiles: Sequence[Tile]) -> Scores:
        """One batch after the other, each on all threads."""
        if self._session is None:
            raise EngineError(f"{self.release}: the engine is closed")
        scores = self._room(len(tiles))
        for rows, pixels in self._batches(tiles, BATCH):
            outputs = self._run(pixels)
            scores.probabilities[rows] = outputs[0]
            if self._release.architecture.width:  # a model made elsewhere may have no embeddings
                scores.embeddings[rows] = outputs[1]
        return scores

    def close(self) -> None:
        """Drop the session and its threads."""
        self._session = None

    def _run(self, pixels: Pixels) -> Any:
        try:
            return self._session.run(None, {self._session.get_inputs()[0].name: pixels})
        except Exception as error:  # the library's own exceptions share no base class but this one
            raise EngineError(f"{self.release} in {self.precision}: {error}") from error


def run_as_written(path: Path, tiles: Pixels) -> NDArray[np.float32]:
    """The first output of a model file for uint8[n, size, size, 3], every node by itself: a quantised layer computes in
    float32 on the rounded numbers, the same on every processor. Slow; raises EngineError.
    """
    session = open_session(path, as_written=True)
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: tiles[start : start + BATCH]})[0] for start in range(0, len(tiles), BATCH)]
    return np.concatenate(parts).astype(np.float32)


def open_session(path: Path, threads: int | None = None, as_written: bool = False) -> Any:
    """An onnxruntime.InferenceSession of a file; raises EngineError if it cannot be opened.

    `threads` None: all cores. `as_written`: no node is replaced by a faster one.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads = threads or 0
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's own exceptions share no base class but this one
        raise EngineError(f"{path}: {error}") from error


def import_onnxruntime() -> Any:
    """The library with its telemetry off (it only exists in builds for Windows, and costs nothing to refuse).

    Raises EngineError if it is not installed: the running edge does not need it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError("ONNX Runtime is not installed; pip install 'spanwatch[bench]' brings it") from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def import_quantization() -> Any:
    """Its quantisation tools, which need the package `onnx` too; for models/quantizing/quantize.py."""
    import_onnxruntime()
    import onnxruntime.quantization

    return onnxruntime.quantization


def write_folded(model: Path, out: Path) -> None:
    """Write the graph with constants and normalisations folded; only operators of the ONNX standard are used."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = QUIET
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(out)
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
