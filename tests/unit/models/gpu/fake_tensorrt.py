"""TensorRT as its bindings show it in 8.6, 10 and 11, for a card of numpy: ONNX Runtime computes, misuse is refused.

`test_tensorrt_bindings.py` compares every class and signature in here with the real bindings of the three versions. As
in those, whatever fails says so in the log and returns None or False; only wrong arguments raise.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx

from models.engines.gpu.numpy_device import NumpyDevice, NumpyStream
from tests.unit.models.gpu.made_network import run_onnx
from tests.unit.models.made_releases import SIDE

VERSIONS = ("8.6.1", "10.13.3.9", "11.4.0.106")
"""Those whose bindings the Makefile fetches."""
ACTIVATION_BYTES = 1000
"""Of one tile."""


@dataclass
class LibraryTroubles:
    """What goes wrong in the library; `builds` and `runs` are the largest batches there is memory for."""

    builds: int = 1 << 30
    runs: int = 1 << 30
    phases: tuple[str, ...] = ("parse", "tactics", "serialise")
    off: dict[str, float] = field(default_factory=dict)
    """What a kernel that computes wrongly adds to a probability, for each precision."""


def _flags(name: str, *members: str) -> Any:
    return enum.IntEnum(name, {member: number for number, member in enumerate(members)})


def library(version: str, device: NumpyDevice, troubles: LibraryTroubles | None = None) -> Any:
    """The module `tensorrt` of that version."""
    return _Library(version, device, troubles or LibraryTroubles()).module()


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self) -> None:
        pass

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        pass

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IHostMemory:
    def __init__(self, content: bytes) -> None:
        self.content = content

    @property
    def nbytes(self) -> int:
        return len(self.content)

    def __bytes__(self) -> bytes:
        return self.content


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> IHostMemory:
        return IHostMemory(self.content)


class ILayer:
    def __init__(self, kind: Any) -> None:
        self.type = kind


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        if not len(min) == len(opt) == len(max) == 4 or not all(
            a <= b <= c for a, b, c in zip(min, opt, max, strict=True)
        ):
            raise ValueError("an inconsistency was detected")
        self.shapes[input] = max


class _Library:
    def __init__(self, version: str, device: NumpyDevice, troubles: LibraryTroubles) -> None:
        self.version, self.device, self.troubles = version, device, troubles
        self.major = int(version.partition(".")[0])

    def module(self) -> Any:
        lib, trt = self, SimpleNamespace(__version__=self.version)
        trt.ILogger = ILogger
        trt.IHostMemory, trt.ITimingCache, trt.ILayer = IHostMemory, ITimingCache, ILayer
        trt.IOptimizationProfile = IOptimizationProfile
        trt.DataType = _flags("DataType", "FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8")
        trt.LayerType = _flags("LayerType", "NORMALIZATION", "SOFTMAX", "MATRIX_MULTIPLY", "ELEMENTWISE")
        trt.MemoryPoolType = _flags("MemoryPoolType", "WORKSPACE")
        if self.major == 8:
            trt.NetworkDefinitionCreationFlag = _flags("Flag", "EXPLICIT_BATCH")
        elif self.major == 10:
            trt.NetworkDefinitionCreationFlag = _flags("Flag", "EXPLICIT_BATCH", "STRONGLY_TYPED")
        else:
            trt.NetworkDefinitionCreationFlag = _flags("Flag", "STRONGLY_TYPED")
        if self.major < 11:
            trt.TacticSource = _flags(
                "TacticSource", "CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"
            )
            trt.BuilderFlag = _flags("BuilderFlag", "FP16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS")
        else:
            trt.TacticSource = _flags("TacticSource", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
            trt.BuilderFlag = _flags("BuilderFlag", "TF32")
        if self.major > 8:
            trt.IProgressMonitor = IProgressMonitor
            trt.ExecutionContextAllocationStrategy = _flags("Strategy", "STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED")

        class INetworkDefinition:
            def __init__(self, typed: bool) -> None:
                self.typed, self.onnx, self.layers = typed, b"", list[ILayer]()

            @property
            def num_layers(self) -> int:
                return len(self.layers)

            def get_layer(self, index: int) -> ILayer:
                return self.layers[index]

        class IBuilderConfig:
            def __init__(self) -> None:
                self.flags = {"TF32"}
                self.profiles: list[IOptimizationProfile] = []
                self.progress_monitor: Any = None
                self.cache: ITimingCache | None = None

            def set_flag(self, flag: Any) -> None:
                self.flags.add(flag.name)

            def clear_flag(self, flag: Any) -> None:
                self.flags.discard(flag.name)

            def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
                assert pool_size > 0

            def set_tactic_sources(self, tactic_sources: int) -> bool:
                chosen = {one.name for one in trt.TacticSource if tactic_sources & 1 << int(one)}
                assert not chosen & {"CUBLAS", "CUBLAS_LT", "CUDNN"}
                return tactic_sources < 1 << len(trt.TacticSource)

            def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
                self.profiles.append(profile)
                return len(self.profiles) - 1

            def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
                return ITimingCache(serialized_timing_cache)

            def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
                if cache.content and cache.content != lib.timing:
                    return False
                self.cache = cache
                return True

        class Builder:
            def __init__(self, logger: ILogger) -> None:
                self.logger = logger

            def create_network(self, flags: int = 0) -> INetworkDefinition:
                known = trt.NetworkDefinitionCreationFlag
                assert flags < 1 << len(known), "a flag this version does not know"
                if lib.major == 8:
                    assert flags & 1 << int(known.EXPLICIT_BATCH), "ONNX needs an explicit batch"
                    return INetworkDefinition(typed=False)
                return INetworkDefinition(typed=lib.major == 11 or bool(flags & 1 << int(known.STRONGLY_TYPED)))

            def create_builder_config(self) -> IBuilderConfig:
                return IBuilderConfig()

            def create_optimization_profile(self) -> IOptimizationProfile:
                return IOptimizationProfile()

            def build_serialized_network(
                self, network: INetworkDefinition, config: IBuilderConfig
            ) -> IHostMemory | None:
                return lib.build(self.logger, network, config)

        class OnnxParser:
            def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
                self.network, self.errors = network, list[str]()

            def parse(self, model: bytes, path: str | None = None) -> bool:
                try:
                    found = onnx.load_from_string(model)
                except Exception as error:
                    self.errors.append(f"not ONNX: {error}")
                    return False
                if found.opset_import[0].version > 17 and lib.major == 8:
                    self.errors.append(f"opset {found.opset_import[0].version} is not supported")
                    return False
                if {node.op_type for node in found.graph.node if "tiles" in node.input} != {"Cast"}:
                    self.errors.append("UINT8 inputs must directly feed into a cast layer")
                    return False
                kinds = {"LayerNormalization": "NORMALIZATION", "Softmax": "SOFTMAX", "MatMul": "MATRIX_MULTIPLY"}
                self.network.onnx = model
                self.network.layers = [
                    ILayer(trt.LayerType[kinds.get(node.op_type, "ELEMENTWISE")]) for node in found.graph.node
                ]
                return True

            @property
            def num_errors(self) -> int:
                return len(self.errors)

            def get_error(self, index: int) -> str:
                return self.errors[index]

        class Runtime:
            def __init__(self, logger: ILogger) -> None:
                self.logger = logger

            def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
                line, _, graph = serialized_engine.partition(b"\n")
                try:
                    head = json.loads(line)
                except ValueError:
                    head = {}
                if head.get("version") != lib.version:
                    self.logger.log(ILogger.ERROR, f"Serialization assertion stdVersionRead == {lib.version} failed")
                    return None
                return ICudaEngine(self.logger, head, graph)

        class ICudaEngine:
            def __init__(self, logger: ILogger, head: dict[str, Any], graph: bytes) -> None:
                self.logger, self.head, self.graph = logger, head, graph

            @property
            def num_io_tensors(self) -> int:
                return 3

            @property
            def num_optimization_profiles(self) -> int:
                return len(self.head["buckets"])

            def get_tensor_name(self, index: int) -> str:
                return ("tiles", "probabilities", "embeddings")[index]

            def get_tensor_dtype(self, name: str) -> Any:
                return trt.DataType.UINT8 if name == "tiles" else trt.DataType.FLOAT

            def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
                return [(self.head["buckets"][profile_index], SIDE, SIDE, 3)] * 3

        class IExecutionContext:
            def __init__(self, engine: ICudaEngine) -> None:
                self.engine = engine
                self.device_memory = 0
                self.profile: int | None = None
                self.shape: tuple[int, ...] | None = None
                self.addresses: dict[str, int] = {}

            def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
                self.profile = profile_index
                return profile_index < self.engine.num_optimization_profiles

            def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
                if self.profile is None or self.engine.head["buckets"][self.profile] != shape[0]:
                    self.engine.logger.log(ILogger.ERROR, f"shape {shape} is not in profile {self.profile}")
                    return False
                self.shape = shape
                return True

            def set_tensor_address(self, name: str, memory: int) -> bool:
                self.addresses[name] = memory
                return memory % 256 == 0

            def execute_async_v3(self, stream_handle: int) -> bool:
                return lib.execute(self, stream_handle)

        if self.major == 8:
            ICudaEngine.device_memory_size = property(lambda engine: ACTIVATION_BYTES * max(engine.head["buckets"]))
        else:

            def create_execution_context(self: ICudaEngine, strategy: Any = 0) -> IExecutionContext:
                assert strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED, "memory of its own"
                return IExecutionContext(self)

            ICudaEngine.create_execution_context = create_execution_context
            ICudaEngine.get_device_memory_size_for_profile_v2 = _for_profile
            IExecutionContext.set_device_memory = _set_device_memory
        if self.major < 11:

            def without_memory(self: ICudaEngine) -> IExecutionContext:
                return IExecutionContext(self)

            ICudaEngine.create_execution_context_without_device_memory = without_memory
        for one in (INetworkDefinition, IBuilderConfig, Builder, OnnxParser, Runtime, ICudaEngine, IExecutionContext):
            setattr(trt, one.__name__, one)
        return trt

    @property
    def timing(self) -> bytes:
        """What every build of this library times."""
        return f"timed by {self.version}".encode()

    def build(self, logger: ILogger, network: Any, config: Any) -> IHostMemory | None:
        """A plan: what is needed to check that it may run here, and the graph."""
        buckets = [profile.shapes["tiles"][0] for profile in config.profiles]
        for phase in self.troubles.phases:
            if config.progress_monitor is not None:
                config.progress_monitor.phase_start(phase, "", 2)
                for step in range(2):
                    if not config.progress_monitor.step_complete(phase, step):
                        return None
                config.progress_monitor.phase_finish(phase)
        if max(buckets) > self.troubles.builds:
            logger.log(ILogger.WARNING, "skipping a tactic")
            logger.log(ILogger.ERROR, "Requested amount of GPU memory (1 bytes) could not be allocated: out of memory")
            return None
        precision = "int8" if b"QuantizeLinear" in network.onnx else "f16"
        model = onnx.load_from_string(network.onnx)
        eights = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT8E4M3FN]
        assert all(one.raw_data for one in eights), "its parser misreads any other form"
        assert self.major > 8 or max(one.version for one in model.opset_import) <= 17, "newer than its parser"
        if network.typed:
            assert not config.flags - {"TF32"}
            types = {one.data_type for one in model.graph.initializer}
            precision = "fp8" if onnx.TensorProto.FLOAT8E4M3FN in types else precision
            precision = precision if onnx.TensorProto.FLOAT16 in types else "f32"
            assert (precision == "f32") == ("TF32" not in config.flags), "float32 with ten bits"
        elif "FP16" not in config.flags:
            precision = "f32"
            assert "TF32" not in config.flags, "float32 with ten bits"
        else:
            kept = [layer for layer in network.layers if layer.type.name in {"NORMALIZATION", "SOFTMAX"}]
            assert kept and all(layer.precision.name == "FLOAT" for layer in kept)
            assert "OBEY_PRECISION_CONSTRAINTS" in config.flags and ("INT8" in config.flags) == (precision == "int8")
        config.cache.content = self.timing
        head = {"version": self.version, "buckets": buckets, "precision": precision}
        return IHostMemory(json.dumps(head).encode() + b"\n" + network.onnx)

    def execute(self, context: Any, handle: int) -> bool:
        """Queue a batch on the stream of that handle."""
        device, engine, bucket = self.device, context.engine, context.shape[0]
        if len(context.addresses) != 3 or not context.device_memory:
            engine.logger.log(ILogger.ERROR, "an address is missing")
            return False
        if bucket > self.troubles.runs:
            engine.logger.log(ILogger.ERROR, "Cuda failure: out of memory")
            return False
        addresses, scratch = dict(context.addresses), context.device_memory

        def run() -> None:
            device.view(scratch, ACTIVATION_BYTES * bucket)[:] = 0xAA  # what else lies there is lost
            size = bucket * SIDE * SIDE * 3
            pixels = device.view(addresses["tiles"], size).reshape(bucket, SIDE, SIDE, 3)
            probabilities, embeddings = run_onnx(engine.graph, pixels)
            probabilities = probabilities + np.float32(self.troubles.off.get(engine.head["precision"], 0.0))
            for name, values in (("probabilities", probabilities), ("embeddings", embeddings)):
                device.view(addresses[name], values.nbytes).view(np.float32)[:] = values.reshape(-1)

        stream = device.streams[handle - 1]
        assert isinstance(stream, NumpyStream)
        stream.enqueue(run)
        return True


def _for_profile(self: Any, profile_index: int) -> int:
    return int(ACTIVATION_BYTES * self.head["buckets"][profile_index])


def _set_device_memory(self: Any, memory: int, size: int) -> None:
    self.device_memory = memory
