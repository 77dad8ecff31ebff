"""The engine for CPUs: OpenVINO, one single-threaded stream per core, many small requests on their way at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.engines.on_cpu import OnCpu
from models.engines.processor import cores, has_bf16
from models.engines.protocol import EngineError, Pixels, Scores, Tile, gather
from models.release import INT8_FILE, MODEL_FILE, Release, ReleaseError

Precision = Literal["f32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "int8")

# The layers that do the arithmetic. If enough of these run in the precision asked for, the engine does. Of an int8
# network the depthwise layers and the head stay behind on purpose (models/quantizing/quantize.py).
WEIGHTY_LAYERS = ("Convolution", "FullyConnected", "MatMul")
LEAST_SHARE: dict[Precision, float] = {"f32": 0.9, "bf16": 0.9, "int8": 0.5}
RUNTIME_NAMES: dict[Precision, frozenset[str]] = {
    "f32": frozenset({"f32"}),
    "bf16": frozenset({"bf16"}),
    "int8": frozenset({"i8", "u8"}),
}

AT_ONCE = 16  # tiles per call of a loose file: what a call holds in memory grows with them


@dataclass(frozen=True)
class OpenVinoOptions:
    """How to run; the defaults are what measured best (see models/README.md).

    `int8` takes the release's quantised file; what is not quantised in it runs in bf16 where the CPU can, else in f32.
    `streams` is how many requests run at the same time, each on one thread; None is one per core this process may use.
    `batch_sizes` are the compiled shapes, ascending and from 1: a call is cut into the largest that still fit, and
    nothing is padded.
    """

    precision: Precision = "f32"
    streams: int | None = None
    batch_sizes: tuple[int, ...] = (1, 4)
    pin_threads: bool = False


@dataclass
class _Shape:
    """One compiled batch size: its request queue, an input buffer per request, and what each request is working on."""

    size: int
    requests: Any  # openvino.AsyncInferQueue
    inputs: list[Pixels]
    pending: dict[int, slice] = field(default_factory=dict)


class OpenVinoEngine(OnCpu):
    """Runs a release's ONNX files on the CPU; see models/engines/protocol.py for the promises."""

    def __init__(self, release: Release, options: OpenVinoOptions | None = None) -> None:
        self.options = options or OpenVinoOptions()
        super().__init__(release)
        if min(self.options.batch_sizes) != 1:
            raise EngineError(
                f"batch sizes {self.options.batch_sizes} do not add up to every number of tiles without 1"
            )
        self._ov: Any = _import_openvino()
        streams = self.options.streams or cores()
        self._shapes = {size: self._compile(size, streams) for size in self.options.batch_sizes}

    @property
    def precision(self) -> str:
        """As asked for, and checked against the compiled network."""
        return self.options.precision

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The compiled shapes."""
        return self.options.batch_sizes

    def infer(self, tiles: Sequence[Tile]) -> Scores:
        """Cut the tiles into requests; while all streams work on earlier ones, gather the next."""
        scores = self._room(len(tiles))
        if not self._shapes:
            raise EngineError(f"{self.release}: the engine is closed")
        try:
            for rows in _cut(len(tiles), self.batch_sizes):
                self._start(self._shapes[rows.stop - rows.start], rows, tiles[rows], scores)
            for one in self._shapes.values():
                one.requests.wait_all()  # waits without the GIL
                for number in list(one.pending):
                    _collect(one, number, scores)
        except EngineError:
            self._abandon()
            raise
        except RuntimeError as error:
            self._abandon()
            raise EngineError(f"{self.release} in {self.precision}: {error}") from error
        return scores

    def close(self) -> None:
        """Drop the compiled networks and their threads."""
        self._shapes = {}

    def _start(self, shape: _Shape, rows: slice, tiles: Sequence[Tile], scores: Scores) -> None:
        number = shape.requests.get_idle_request_id()  # waits without the GIL
        _collect(shape, number, scores)
        gather(tiles, shape.inputs[number])
        shape.pending[number] = rows
        shape.requests.start_async()

    def _abandon(self) -> None:
        """After a failure no request may still be writing, or be taken for part of the next call."""
        for shape in self._shapes.values():
            try:
                shape.requests.wait_all()
            except RuntimeError:
                continue  # a second request failed the same way; the first one is already on its way up
            finally:
                shape.pending.clear()

    def _compile(self, size: int, streams: int) -> _Shape:
        ov = self._ov
        core = ov.Core()
        side = self.tile_size
        precision = self.options.precision
        in_bf16 = precision == "bf16" or (precision == "int8" and has_bf16())
        try:
            file = self._release.path(INT8_FILE if precision == "int8" else MODEL_FILE)
            model = core.read_model(str(file))
            model.reshape([size, side, side, 3])
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": ov.Type.bf16 if in_bf16 else ov.Type.f32,
                    "NUM_STREAMS": streams,
                    "INFERENCE_NUM_THREADS": streams,
                    "ENABLE_CPU_PINNING": self.options.pin_threads,
                    "EXECUTION_MODE_HINT": "ACCURACY" if precision == "f32" else "PERFORMANCE",
                },
            )
        except (ReleaseError, RuntimeError) as error:
            raise EngineError(f"{self.release} in {precision}: {error}") from error
        self._check_precision(compiled)
        # Twice as many requests as streams: one runs while the next one already waits, filled.
        requests = ov.AsyncInferQueue(compiled, 2 * streams)
        inputs = [np.empty((size, side, side, 3), dtype=np.uint8) for _ in range(len(requests))]
        for request, pixels in zip(requests, inputs, strict=True):
            request.set_input_tensor(ov.Tensor(pixels, shared_memory=True))
        return _Shape(size, requests, inputs)

    def _check_precision(self, compiled: Any) -> None:
        """A hint is only a hint: a CPU without bfloat16 would run float32 and say nothing."""
        asked = self.options.precision
        used = [
            info["runtimePrecision"].astype(str)
            for info in (layer.get_rt_info() for layer in compiled.get_runtime_model().get_ordered_ops())
            if info["layerType"].astype(str) in WEIGHTY_LAYERS
        ]
        share = sum(name in RUNTIME_NAMES[asked] for name in used) / max(1, len(used))
        if share < LEAST_SHARE[asked]:
            raise EngineError(f"{self.release}: {asked} asked for, but only {share:.0%} of {len(used)} layers use it")


def _collect(shape: _Shape, number: int, scores: Scores) -> None:
    """Copy what a finished request found to its rows; nothing to do for a request that was not used yet."""
    rows = shape.pending.pop(number, None)
    if rows is not None:
        request = shape.requests[number]
        scores.probabilities[rows] = request.get_output_tensor(0).data
        if scores.embeddings.shape[1]:  # a model made elsewhere may have none
            scores.embeddings[rows] = request.get_output_tensor(1).data


def _cut(count: int, sizes: Sequence[int]) -> Iterator[slice]:
    """Consecutive slices of the given sizes, largest first, that cover `count` rows exactly; 1 is one of the sizes."""
    start = 0
    for size in sorted(sizes, reverse=True):
        while count - start >= size:
            yield slice(start, start + size)
            start += size


def _import_openvino() -> Any:
    """OpenVINO without its telemetry, which otherwise sends an event over the network on import.

    The package falls back to a stub when its telemetry module cannot be imported; None in sys.modules says just that.
    Raises EngineError if it is not installed.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise EngineError(f"OpenVINO is not installed here ({error})") from error

    return openvino


class Port(NamedTuple):
    """An input or output of a graph: `kind` as OpenVINO names it (`u8`, `f32`), None in `shape` where any size goes."""

    name: str
    kind: str
    shape: tuple[int | None, ...]


class Graph(NamedTuple):
    """What goes into a model file and what comes out, in its order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def read_graph(path: Path) -> Graph:
    """What a model file made elsewhere takes and gives; raises EngineError if OpenVINO cannot read it."""
    try:
        model = _import_openvino().Core().read_model(str(path))
    except RuntimeError as error:
        raise EngineError(f"no ONNX model that OpenVINO reads, in one file ({_reason(error)})") from error
    return Graph(tuple(map(_port, model.inputs)), tuple(map(_port, model.outputs)))


def run_graph(path: Path, tiles: Pixels, hint: Literal["f32", "bf16"] = "f32") -> tuple[NDArray[np.float32], ...]:
    """Every output of a model file for uint8[n, size, size, 3]; raises EngineError if it does not run.

    `hint` is what everything runs in that the file leaves open; a quantised layer stays quantised.
    """
    ov = _import_openvino()
    hints = {
        "INFERENCE_PRECISION_HINT": ov.Type.bf16 if hint == "bf16" else ov.Type.f32,
        "EXECUTION_MODE_HINT": "ACCURACY" if hint == "f32" else "PERFORMANCE",
    }
    try:
        compiled = ov.Core().compile_model(str(path), "CPU", hints)
        parts = [compiled(tiles[start : start + AT_ONCE]) for start in range(0, len(tiles), AT_ONCE)]
    except RuntimeError as error:
        raise EngineError(f"{path.name}: {_reason(error)}") from error
    count = len(compiled.outputs)
    return tuple(np.concatenate([np.asarray(part[i], dtype=np.float32) for part in parts]) for i in range(count))


def _reason(error: RuntimeError) -> str:
    """What OpenVINO says at the end, without the places in its own source code that it puts in front."""
    return str(error).strip().splitlines()[-1].strip()


def _port(one: Any) -> Port:
    shape = tuple(None if size.is_dynamic else int(size.get_length()) for size in one.partial_shape)
    return Port(one.any_name if one.names else "", one.element_type.get_type_name(), shape)


def run_file(path: Path, tiles: Pixels) -> Scores:
    """Scores of uint8[n, size, size, 3] in float32 by an ONNX file that is no release yet."""
    ov = _import_openvino()
    hints = {"INFERENCE_PRECISION_HINT": ov.Type.f32, "EXECUTION_MODE_HINT": "ACCURACY"}
    outputs = ov.Core().compile_model(str(path), "CPU", hints)(tiles)
    return Scores(outputs[0], outputs[1])


def telemetry_is_off() -> bool:
    """Whether OpenVINO's telemetry module is kept out of this process."""
    return sys.modules.get("openvino_telemetry") is None


def openvino_version() -> str:
    """For reports."""
    return str(_import_openvino().get_version())
