"""A plan of TensorRT's as a network of the GPU engine; the library itself is asked through its door alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from models.engines.gpu.device import Device, DeviceError, OutOfDeviceMemory, Stream
from models.engines.gpu.engine import Addresses

if TYPE_CHECKING:
    from models.engines.tensorrt import TensorRt

INPUT, OUTPUTS = "tiles", ("probabilities", "embeddings")


class TensorRtNetwork:
    """See `Network` in models/engines/gpu/engine.py: one execution context for each bucket, one memory for all.

    Batches run one after the other, so their activations may lie in the same place. A bucket whose activations find no
    room is left out.
    """

    def __init__(self, library: TensorRt, plan: tuple[Any, Any], precision: str, device: Device) -> None:
        self._library, self._device, self._precision = library, device, precision
        self._runtime, self._engine = plan
        self._shapes = {shape[0]: (number, shape) for number, shape in enumerate(library.shapes(self._engine))}
        self._contexts: dict[int, Any] = {}
        self._scratch, self._scratch_size, self._fitting = self._memory(sorted(self._shapes))

    @property
    def precision(self) -> str:
        """As the plan was asked for."""
        return self._precision

    @property
    def buckets(self) -> tuple[int, ...]:
        """Those of the plan that fit."""
        return self._fitting

    def enqueue(self, bucket: int, at: Addresses, stream: Stream) -> None:
        """With the bucket's own context."""
        self._library.listen()
        context = self._contexts.get(bucket) or self._context(bucket, stream)
        for name, address in zip((INPUT, *OUTPUTS), at, strict=True):
            self._library.check(context.set_tensor_address(name, address), f"the address of {name} is refused")
        self._library.check(context.execute_async_v3(stream.handle), f"a batch of {bucket} tiles does not start")

    def close(self) -> None:
        """Contexts first, then the engine, then the runtime: each holds on to the one before."""
        self._contexts.clear()
        if self._engine is not None:
            self._engine = None
            self._runtime = None
            self._device.free(self._scratch)

    def _memory(self, buckets: Sequence[int]) -> tuple[int, int, tuple[int, ...]]:
        """Memory for the activations of as many buckets as find any, its size, and those buckets.

        A smaller bucket may need more than a larger one, where another kernel was the fastest.
        """
        refused: OutOfDeviceMemory | None = None
        for count in range(len(buckets), 0, -1):
            size = max(1, *(self._activations(one) for one in buckets[:count]))
            try:
                return self._device.allocate(size), size, tuple(buckets[:count])
            except OutOfDeviceMemory as error:
                refused = error
        raise OutOfDeviceMemory(f"no room for the activations of {min(buckets)} tiles ({refused})") from refused

    def _activations(self, bucket: int) -> int:
        """In bytes; 8.6 knows only what its largest profile needs."""
        engine, profile = self._engine, self._shapes[bucket][0]
        if hasattr(engine, "get_device_memory_size_for_profile_v2"):
            return int(engine.get_device_memory_size_for_profile_v2(profile))
        if hasattr(engine, "get_device_memory_size_for_profile"):
            return int(engine.get_device_memory_size_for_profile(profile))
        return int(engine.device_memory_size)

    def _context(self, bucket: int, stream: Stream) -> Any:
        if bucket not in self._shapes:
            known = ", ".join(map(str, self._shapes))
            raise DeviceError(f"the plan has no profile for batches of {bucket} tiles; there are {known}")
        profile, shape = self._shapes[bucket]
        context = self._library.context(self._engine)
        chosen = context.set_optimization_profile_async(profile, stream.handle)
        self._library.check(chosen, f"the profile for {bucket} tiles is refused")
        self._library.check(context.set_input_shape(INPUT, shape), f"batches of {bucket} tiles are refused")
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(self._scratch, self._scratch_size)
        else:
            context.device_memory = self._scratch
        self._library.check_silence(f"{self._scratch_size} bytes for {bucket} tiles are refused")
        self._contexts[bucket] = context
        return context
