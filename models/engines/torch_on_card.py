"""PyTorch on a graphics card: the GPU engine's network where TensorRT is missing, and what TensorRT is compared with.

Not run on a card yet; `make gpu-check` does.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from models.architecture import Architecture
from models.engines.gpu.device import Device, DeviceError, DeviceLost, OutOfDeviceMemory, Stream
from models.engines.gpu.engine import Addresses, OwningEngine
from models.engines.gpu.opening import BUCKETS, this_device
from models.engines.torch import load_network
from models.release import Release
from models.vit import DefectNetwork

TorchPrecision = Literal["f32", "f16", "bf16"]
TORCH_PRECISIONS: tuple[TorchPrecision, ...] = ("f16", "bf16", "f32")
TYPES = {"f16": torch.float16, "bf16": torch.bfloat16}
RECOMPILED = 256
"""Graphs of all buckets, precisions and networks that one process may compile."""
WARM = 3
"""Runs of a bucket before it is captured: PyTorch compiles and chooses kernels in them."""
STICKY = ("illegal memory access", "device-side assert", "unspecified launch failure", "misaligned address")


class TorchNetwork:
    """See `Network` in models/engines/gpu/engine.py: each bucket compiled, and captured as a graph of PyTorch's own.

    PyTorch keeps its memory apart from the device's. Matrix products and convolutions run in the precision asked for;
    norms, softmax and what autocast keeps in float32 do there.
    """

    def __init__(
        self,
        network: DefectNetwork,
        precision: TorchPrecision = "f16",
        buckets: tuple[int, ...] = BUCKETS,
        compiled: bool = True,
    ) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        # A graph for each bucket of each network: past the limit it would silently run uncompiled.
        torch._dynamo.config.recompile_limit = RECOMPILED
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        self._precision, self._buckets = precision, tuple(sorted(buckets))
        self._shape: Architecture = network.shape
        with _errors():
            on_card = in_precision(copy.deepcopy(network), precision).to("cuda", memory_format=torch.channels_last)
            mode = "max-autotune-no-cudagraphs"
            self._run: Any = torch.compile(on_card, mode=mode, dynamic=False) if compiled else on_card
        self._graphs: dict[int, tuple[Any, torch.Tensor, torch.Tensor]] = {}
        self._streams: dict[int, Any] = {}

    @property
    def precision(self) -> str:
        """As asked for."""
        return self._precision

    @property
    def buckets(self) -> tuple[int, ...]:
        """As asked for."""
        return self._buckets

    def enqueue(self, bucket: int, at: Addresses, stream: Stream) -> None:
        """Replay the bucket's graph and copy its outputs; the first batch captures it."""
        with _errors(), torch.cuda.stream(self._on(stream)), torch.inference_mode():
            if bucket not in self._graphs:
                self._graphs[bucket] = self._captured(bucket, at)
            graph, probabilities, embeddings = self._graphs[bucket]
            graph.replay()
            shape = self._shape
            _view(at.probabilities, (bucket, shape.classes), "<f4").copy_(probabilities)
            _view(at.embeddings, (bucket, shape.width), "<f4").copy_(embeddings)

    def close(self) -> None:
        """Its memory goes back to the card."""
        if self._run is not None:
            self._run = None
            self._graphs.clear()
            gc.collect()
            torch.cuda.empty_cache()

    def _captured(self, bucket: int, at: Addresses) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """The graph reads the engine's tiles where they always lie, and writes where it always does."""
        side = self._shape.tile_size
        tiles = _view(at.tiles, (bucket, side, side, 3), "|u1")
        stream = torch.cuda.current_stream()
        for _ in range(WARM):
            self._forward(tiles)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads go on: one may serve with another engine of this card.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            probabilities, embeddings = self._forward(tiles)
        return graph, probabilities, embeddings

    def _forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        enabled = self._precision != "f32"
        with torch.autocast("cuda", dtype=TYPES.get(self._precision), enabled=enabled):
            probabilities, embeddings = self._run(tiles)
        return probabilities.float(), embeddings.float()

    def _on(self, stream: Stream) -> Any:
        return self._streams.setdefault(stream.handle, torch.cuda.ExternalStream(stream.handle))


def in_precision(network: DefectNetwork, precision: TorchPrecision) -> DefectNetwork:
    """The network with the weights of its products in that precision: once, and not by autocast at every replay."""
    if precision in TYPES:
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.to(TYPES[precision])
    network.eval()
    return network


class TorchOnCard(OwningEngine):
    """A release on a card by way of PyTorch; see models/engines/protocol.py."""

    GRAPHS = False


def open_torch(release: Release, precision: TorchPrecision, buckets: tuple[int, ...] = BUCKETS) -> TorchOnCard:
    """Open a verified release on this machine's card.

    Raises EngineError where there is none, and for whatever else PyTorch finds missing, a compiler for one.
    """

    def network(_: Device) -> TorchNetwork:
        return TorchNetwork(load_network(release), precision, buckets)

    try:
        return TorchOnCard.opened(release, this_device(), network)
    except RuntimeError as error:
        raise DeviceError(f"{release.id} in {precision} by PyTorch: {error}") from error


class _View:
    """Memory of the device's that PyTorch is to see as a tensor, without a copy."""

    def __init__(self, address: int, shape: tuple[int, ...], kind: str) -> None:
        self.__cuda_array_interface__ = {"data": (address, False), "shape": shape, "typestr": kind, "version": 3}


def _view(address: int, shape: tuple[int, ...], kind: str) -> torch.Tensor:
    return torch.as_tensor(_View(address, shape, kind), device="cuda")


@contextmanager
def _errors() -> Iterator[None]:
    """In here, an error of PyTorch's on the card is one of ours."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfDeviceMemory(str(error).partition("\n")[0]) from error
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        if "CUDA" not in said:
            raise
        raise (DeviceLost if any(one in said for one in STICKY) else DeviceError)(said) from error
