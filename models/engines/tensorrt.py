"""The only door to TensorRT 8.6, 10 and 11: compiles ONNX into a plan, and runs a plan as a network of the GPU engine.

What the three have in common is used (tensor names, profiles, `execute_async_v3`). Where they differ, what the library
has decides, never its version's number. Not run on a card yet: tests drive it against a library made to the signatures
of the real bindings of 8.6, 10 and 11, which are checked one by one.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any, Literal, NamedTuple

from models.engines.gpu.device import Device, DeviceError, NotHere, OutOfDeviceMemory
from models.engines.gpu.driver import driver_obstacle
from models.engines.gpu.fp8 import NothingToQuantise, in_fp8
from models.engines.gpu.graphs import cast_first, folded, in_half
from models.engines.gpu.planned import INPUT, OUTPUTS, TensorRtNetwork
from models.engines.gpu.watch import Heed, Watch, monitor

log = logging.getLogger(__name__)

TensorRtPrecision = Literal["f32", "f16", "int8", "fp8"]
TENSORRT_PRECISIONS: tuple[TensorRtPrecision, ...] = ("fp8", "int8", "f16", "f32")
WORKSPACE = 2 << 30
"""Bytes that a kernel may use for itself while it is tried; more is not asked for by networks of this size."""
NO_MEMORY = ("out of memory", "OutOfMemory", "insufficient memory")


class Order(NamedTuple):
    """What to compile: a release's ONNX, for batches of exactly these sizes of tiles of `side` px.

    `ranges`: for fp8, the quantised ONNX of the same network.
    """

    graph: bytes
    precision: TensorRtPrecision
    buckets: tuple[int, ...]
    side: int
    ranges: bytes = b""


class Built(NamedTuple):
    """A plan, and what was timed to make it."""

    plan: bytes
    timing: bytes


class TensorRt:
    """The library as it is installed here; `module` is for tests."""

    def __init__(self, module: Any = None) -> None:
        if module is None:
            if obstacle := driver_obstacle():
                raise DeviceError(obstacle)
            try:
                module = importlib.import_module("tensorrt")
            except ImportError as error:
                raise DeviceError(f"TensorRT is not installed here ({error})") from error
        self._trt = module
        self._said: list[str] = []
        self._logger = self._made_logger()

    @property
    def version(self) -> str:
        """As the library says it; plans of another one do not load."""
        return str(self._trt.__version__)

    @property
    def typed(self) -> bool:
        """Whether the graph alone says what is computed in which numbers (10 and 11)."""
        return hasattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    def build(self, order: Order, timing: bytes = b"", heed: Heed | None = None) -> Built:
        """Compile; takes seconds to minutes.

        Raises OutOfDeviceMemory if the card has too little free, BuildStopped if `heed` said so (with 8.6 it is only
        asked before and after), DeviceError with the library's own words for anything else. What `heed` raises comes
        through.
        """
        trt = self._trt
        self._said.clear()
        builder = trt.Builder(self._logger)
        network = builder.create_network(self._network_flags())
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(self.fitted(order)):
            raise DeviceError("; ".join(str(parser.get_error(number)) for number in range(parser.num_errors)))
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
        # Neither cuBLAS nor cuDNN: a box has a gigabyte more room without, and 11 knows them no longer.
        sources = trt.TacticSource
        config.set_tactic_sources(1 << int(sources.EDGE_MASK_CONVOLUTIONS) | 1 << int(sources.JIT_CONVOLUTIONS))
        if order.precision == "f32":
            config.clear_flag(trt.BuilderFlag.TF32)  # ten bits of a factor are no float32
        elif not self.typed:
            self._allow(config, network, order.precision)
        for bucket in order.buckets:
            profile, shape = builder.create_optimization_profile(), (bucket, order.side, order.side, 3)
            profile.set_shape(INPUT, shape, shape, shape)
            config.add_optimization_profile(profile)
        cache = self._timing_cache(config, timing)
        watch = self._watch(config, heed)
        plan = builder.build_serialized_network(network, config)
        watch.raise_if_stopped()
        if plan is None:
            raise self._failure(f"a plan for batches of {order.buckets} tiles in {order.precision} cannot be built")
        return Built(bytes(plan), bytes(cache.serialize()))

    def fitted(self, order: Order) -> bytes:
        """The graph as this library is given it; raises DeviceError if it is none, NotHere if it is none for this."""
        if order.precision == "fp8" and not self.typed:
            raise NotHere(f"TensorRT {self.version} reads no eight-bit floats from ONNX, 10 is the first that does")
        try:
            # A quantised release is folded already, and must not be again: its weights would come back as floats.
            graph = cast_first(order.graph if order.precision == "int8" else folded(order.graph))
            graph = in_fp8(graph, order.ranges) if order.precision == "fp8" else graph
            return in_half(graph) if self.typed and order.precision != "f32" else graph
        except ImportError as error:
            raise DeviceError(
                f"a plan is made with onnx and onnxruntime: install spanwatch[tensorrt] ({error})"
            ) from error
        except NothingToQuantise as error:
            raise NotHere(f"no graph for {order.precision}: {error}") from error
        except Exception as error:  # both libraries raise classes of their own that are derived from nothing else
            raise DeviceError(f"no ONNX graph for {order.precision}: {error}") from error

    def open(self, plan: bytes, precision: TensorRtPrecision, device: Device) -> TensorRtNetwork:
        """A plan as a network; raises OutOfDeviceMemory, or DeviceError for a plan that does not load here."""
        self._said.clear()
        runtime = self._trt.Runtime(self._logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._failure("a plan does not load")
        return TensorRtNetwork(self, (runtime, engine), precision, device)

    def listen(self) -> None:
        """Forget what was said before: what follows is about the next call."""
        self._said.clear()

    def context(self, engine: Any) -> Any:
        """Room for one batch on its way, without memory of its own; raises DeviceError."""
        trt = self._trt
        if hasattr(engine, "create_execution_context_without_device_memory"):
            made = engine.create_execution_context_without_device_memory()
        else:
            made = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if made is None:
            raise self._failure("no execution context can be made")
        return made

    def check(self, done: bool, what: str) -> None:
        """Raise what the library has said if a call of it came to nothing."""
        if not done:
            raise self._failure(what)

    def check_silence(self, what: str) -> None:
        """The same for calls that return nothing and only say that they refuse."""
        self.check(not self._said, what)

    def shapes(self, engine: Any) -> tuple[tuple[int, ...], ...]:
        """The input's shape in each profile; raises DeviceError for a plan that is none of ours."""
        trt = self._trt
        found = {engine.get_tensor_name(number): number for number in range(engine.num_io_tensors)}
        types = {INPUT: trt.DataType.UINT8, **dict.fromkeys(OUTPUTS, trt.DataType.FLOAT)}
        if set(found) != set(types) or any(engine.get_tensor_dtype(name) != one for name, one in types.items()):
            raise DeviceError(f"a plan with the tensors {', '.join(sorted(found))} is none of a release's")
        profiles = range(engine.num_optimization_profiles)
        return tuple(tuple(engine.get_tensor_profile_shape(INPUT, number)[2]) for number in profiles)

    def _failure(self, what: str) -> DeviceError:
        """An error of the kind that the library's own words say it is."""
        said = "; ".join(self._said[-3:]) or "it does not say why"
        kind = OutOfDeviceMemory if any(words in said for words in NO_MEMORY) else DeviceError
        return kind(f"TensorRT {self.version}: {what}: {said}")

    def _network_flags(self) -> int:
        flags = self._trt.NetworkDefinitionCreationFlag
        if not self.typed:
            return 1 << int(flags.EXPLICIT_BATCH)
        # 10 has both and needs this one said; 11 has only this one, and it is always so.
        return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "EXPLICIT_BATCH") else 0

    def _allow(self, config: Any, network: Any, precision: TensorRtPrecision) -> None:
        """8.6: what it may compute in, and which layers it may not touch (`graphs.py` says why)."""
        trt = self._trt
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        if precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)
        for number in range(network.num_layers):
            layer = network.get_layer(number)
            if layer.type in {trt.LayerType.NORMALIZATION, trt.LayerType.SOFTMAX}:
                layer.precision = trt.DataType.FLOAT

    def _timing_cache(self, config: Any, timing: bytes) -> Any:
        """The timings of before, or none if the library does not take them."""
        cache = config.create_timing_cache(timing)
        if cache is None or not config.set_timing_cache(cache, False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
        return cache

    def _watch(self, config: Any, heed: Heed | None) -> Watch:
        watch = Watch(heed)
        if hasattr(self._trt, "IProgressMonitor"):
            config.progress_monitor = monitor(self._trt, watch)
        else:
            watch.step("build", 0, 1)
            watch.raise_if_stopped()
        return watch

    def _made_logger(self) -> Any:
        """The library's words go to the log; its errors are kept for the message of what fails next."""
        trt, said = self._trt, self._said
        levels = {
            trt.ILogger.INTERNAL_ERROR: logging.ERROR,
            trt.ILogger.ERROR: logging.ERROR,
            trt.ILogger.WARNING: logging.WARNING,
            trt.ILogger.INFO: logging.DEBUG,
        }

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, words: str) -> None:
                level = levels.get(severity, logging.NOTSET)
                if level == logging.ERROR:
                    said.append(words)
                if level > logging.NOTSET:
                    log.log(level, "tensorrt %s", words)

        return Logger()
