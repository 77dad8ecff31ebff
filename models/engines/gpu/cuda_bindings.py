"""A card of NVIDIA's by way of its own package, cuda-bindings: the only door to it.

Not run on a card yet; a test without one checks that every name used here exists in the package.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from models.engines.gpu.device import Bytes, Card, DeviceError, DeviceLost, Event, Graph, OutOfDeviceMemory, Stream
from models.engines.gpu.driver import driver_obstacle
from models.engines.gpu.gather import SOURCE, THREADS, blocks

STICKY = frozenset({"cudaErrorIllegalAddress", "cudaErrorIllegalInstruction", "cudaErrorMisalignedAddress"}) | {
    "cudaErrorLaunchFailure",
    "cudaErrorLaunchTimeout",
    "cudaErrorECCUncorrectable",
    "cudaErrorHardwareStackError",
    "cudaErrorInvalidAddressSpace",
    "cudaErrorInvalidPc",
    "cudaErrorAssert",
    "cudaErrorDeviceUninitialized",
    "cudaErrorContextIsDestroyed",
    "cudaErrorUnknown",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_DEINITIALIZED",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "CUDA_ERROR_UNKNOWN",
}
"""After these the process can do nothing with the card any more (CUDA, `cudaError_t` of the runtime and `CUresult`)."""


class _Calls:
    """The package's functions return a status first; here a bad one raises, and only what follows it is returned."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import driver, nvrtc, runtime
        except ImportError as error:
            raise DeviceError(f"cuda-bindings is not installed here: install spanwatch[cuda] ({error})") from error
        self.driver, self.nvrtc, self.runtime = driver, nvrtc, runtime

    def __call__(self, function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
        status, *rest = function(*arguments)
        if int(status) != 0:
            raise self._error(function.__name__, status)
        return rest[0] if len(rest) == 1 else tuple(rest)

    @staticmethod
    def _error(call: str, status: Any) -> DeviceError:
        said = f"{call}: {status.name}"
        if status.name in {"cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY"}:
            return OutOfDeviceMemory(said)
        return DeviceLost(f"{said}: the process must end") if status.name in STICKY else DeviceError(said)


class CudaEvent:
    """See `Event`; the host sleeps while it waits, since it has photos to decode."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        runtime = calls.runtime
        self.handle = calls(
            runtime.cudaEventCreateWithFlags, runtime.cudaEventDisableTiming | runtime.cudaEventBlockingSync
        )

    def synchronize(self) -> None:
        """The package gives the GIL away inside."""
        self._calls(self._calls.runtime.cudaEventSynchronize, self.handle)

    def __del__(self) -> None:
        self._calls.runtime.cudaEventDestroy(self.handle)


class CudaGraph:
    """See `Graph`."""

    def __init__(self, calls: _Calls, graph: Any, stream: Any) -> None:
        self._calls, self._stream = calls, stream
        self._executable = calls(calls.runtime.cudaGraphInstantiate, graph, 0)
        calls(calls.runtime.cudaGraphDestroy, graph)

    def launch(self) -> None:
        """In the stream it was captured in."""
        self._calls(self._calls.runtime.cudaGraphLaunch, self._executable, self._stream)

    def __del__(self) -> None:
        if hasattr(self, "_executable"):
            self._calls.runtime.cudaGraphExecDestroy(self._executable)


class CudaStream:
    """See `Stream`."""

    def __init__(self, calls: _Calls, kernel: Any) -> None:
        self._calls, self._kernel = calls, kernel
        runtime = calls.runtime
        self._stream = calls(runtime.cudaStreamCreateWithFlags, runtime.cudaStreamNonBlocking)

    @property
    def handle(self) -> int:
        """As a number."""
        return int(self._stream)

    def close(self) -> None:
        """Wait for what is queued here, and only here: another engine of this process may be capturing its work."""
        self._calls(self._calls.runtime.cudaStreamSynchronize, self._stream)
        self._calls(self._calls.runtime.cudaStreamDestroy, self._stream)

    def upload(self, source: Bytes, target: int) -> None:
        """Asynchronous because the source is page-locked."""
        kind = self._calls.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._calls(self._calls.runtime.cudaMemcpyAsync, target, source.ctypes.data, source.nbytes, kind, self._stream)

    def download(self, source: int, target: Bytes) -> None:
        """Asynchronous because the target is page-locked."""
        kind = self._calls.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._calls(self._calls.runtime.cudaMemcpyAsync, target.ctypes.data, source, target.nbytes, kind, self._stream)

    def gather(self, table: int, tiles: int, side: int, target: int) -> None:
        """One launch of the kernel in `gather.py`."""
        x, y = blocks(tiles, side)
        arguments = ((table, side, target), (ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p))
        launch = self._calls.driver.cuLaunchKernel
        self._calls(launch, self._kernel, x, y, 1, THREADS, 1, 1, 0, self.handle, arguments, 0)

    def record(self, event: Event) -> None:
        """An event of this device."""
        assert isinstance(event, CudaEvent)
        self._calls(self._calls.runtime.cudaEventRecord, event.handle, self._stream)

    def wait(self, event: Event) -> None:
        """On the card; the host goes on."""
        assert isinstance(event, CudaEvent)
        self._calls(self._calls.runtime.cudaStreamWaitEvent, self._stream, event.handle, 0)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Only this thread's calls to this stream are captured; others go on."""
        runtime = self._calls.runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._calls(runtime.cudaStreamBeginCapture, self._stream, mode)
        try:
            work()
        except BaseException:
            with contextlib.suppress(DeviceError):  # a capture that failed must still be ended, and says so again
                self._calls(runtime.cudaStreamEndCapture, self._stream)
            raise
        return CudaGraph(self._calls, self._calls(runtime.cudaStreamEndCapture, self._stream), self._stream)


class CudaDevice:
    """Card number `index`; see `Device` for the promises. Raises DeviceError where there is none."""

    def __init__(self, index: int = 0) -> None:
        if obstacle := driver_obstacle():
            raise DeviceError(obstacle)
        self._calls = calls = _Calls()
        runtime = calls.runtime
        calls(runtime.cudaSetDevice, index)
        calls(runtime.cudaFree, 0)  # makes the card's primary context current in this thread, for the driver's calls
        found = calls(runtime.cudaGetDeviceProperties, index)
        version = int(calls(runtime.cudaDriverGetVersion))
        self._card = Card(
            name=found.name.decode(),
            capability=(int(found.major), int(found.minor)),
            driver=f"{version // 1000}.{version % 1000 // 10}",
            memory=int(found.totalGlobalMem),
        )
        try:
            self._module, self._kernel = self._compiled()
        except RuntimeError as error:  # the package's own, where a library of CUDA's is missing
            raise DeviceError(f"the gather kernel cannot be compiled: {error}") from error
        self._streams: list[CudaStream] = []
        self._blocks: set[int] = set()
        self._pinned: dict[int, int] = {}

    @property
    def card(self) -> Card:
        """As the driver names it."""
        return self._card

    def allocate(self, size: int) -> int:
        """Aligned to 256 bytes, as CUDA promises."""
        address = int(self._calls(self._calls.runtime.cudaMalloc, size))
        self._blocks.add(address)
        return address

    def free(self, address: int) -> None:
        """The driver waits for the card before it does."""
        self._calls(self._calls.runtime.cudaFree, address)
        self._blocks.discard(address)

    def pinned(self, size: int) -> Bytes:
        """As an array that owns nothing: `unpin` frees it."""
        runtime = self._calls.runtime
        address = int(self._calls(runtime.cudaHostAlloc, size, runtime.cudaHostAllocDefault))
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        self._pinned[address] = size
        return memory

    def unpin(self, memory: Bytes) -> None:
        """The array must not be touched afterwards."""
        address = memory.ctypes.data
        self._calls(self._calls.runtime.cudaFreeHost, address)
        del self._pinned[address]

    def stream(self) -> Stream:
        """Apart from the default stream, for which others wait."""
        self._streams.append(CudaStream(self._calls, self._kernel))
        return self._streams[-1]

    def event(self) -> Event:
        """Without timing."""
        return CudaEvent(self._calls)

    def free_memory(self) -> int:
        """As the driver says, whoever uses the rest."""
        free, _ = self._calls(self._calls.runtime.cudaMemGetInfo)
        return int(free)

    def close(self) -> None:
        """The context stays: torch or a second engine may live in it."""
        while self._streams:
            self._streams.pop().close()
        for address in list(self._blocks):
            self.free(address)
        for address in list(self._pinned):
            self._calls(self._calls.runtime.cudaFreeHost, address)
        self._pinned.clear()
        if self._module is not None:
            self._calls(self._calls.driver.cuModuleUnload, self._module)
            self._module = None

    def _compiled(self) -> tuple[Any, Any]:
        """The kernel, compiled for this very card, and the module it is in."""
        calls, nvrtc = self._calls, self._calls.nvrtc
        major, minor = self._card.capability
        program = calls(nvrtc.nvrtcCreateProgram, SOURCE.encode(), b"gather.cu", 0, [], [])
        options = [f"--gpu-architecture=sm_{major}{minor}".encode()]
        try:
            calls(nvrtc.nvrtcCompileProgram, program, len(options), options)
        except DeviceError as error:
            log = b" " * calls(nvrtc.nvrtcGetProgramLogSize, program)
            calls(nvrtc.nvrtcGetProgramLog, program, log)
            raise DeviceError(f"the gather kernel does not compile: {log.decode().strip()}") from error
        code = b" " * calls(nvrtc.nvrtcGetCUBINSize, program)
        calls(nvrtc.nvrtcGetCUBIN, program, code)
        calls(nvrtc.nvrtcDestroyProgram, program)
        module = calls(calls.driver.cuModuleLoadData, np.frombuffer(code, dtype=np.uint8).ctypes.data)
        return module, calls(calls.driver.cuModuleGetFunction, module, b"gather")
