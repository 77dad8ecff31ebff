"""Opens a release on this machine's card: with the plan made here before, or with one that is compiled now."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from models.engines.gpu.device import Device, DeviceError, DeviceLost, NotHere, OutOfDeviceMemory
from models.engines.gpu.engine import OwningEngine
from models.engines.gpu.fp8 import CAPABILITY
from models.engines.gpu.planned import TensorRtNetwork
from models.engines.gpu.plans import PlanKey, Plans
from models.engines.gpu.watch import Heed
from models.engines.protocol import EngineError
from models.engines.tensorrt import Order, TensorRt, TensorRtPrecision
from models.release import INT8_FILE, MODEL_FILE, Release, ReleaseError

log = logging.getLogger(__name__)

BUCKETS = (8, 32, 64, 128, 192)
"""The tiles of a request or of a photo, roughly; each is compiled by itself, so that nothing is padded for long."""


class OnCard(NamedTuple):
    """What engines on a card are made with; tests make it of numpy."""

    library: TensorRt
    device: Callable[[], Device]


class TensorRtEngine(OwningEngine):
    """A release on a card by way of TensorRT; see models/engines/protocol.py."""


def this_device() -> Device:
    """The card of this machine, by the library that is installed; raises EngineError, with what is missing."""
    if find_spec("cuda") is None and find_spec("pycuda") is not None:
        from models.engines.gpu.pycuda import PycudaDevice

        return PycudaDevice()
    from models.engines.gpu.cuda_bindings import CudaDevice

    return CudaDevice()


@cache
def this_library() -> TensorRt:
    """TensorRT, once for the process: it goes on telling its first logger what happens to objects of later ones."""
    return TensorRt()


def this_card() -> OnCard:
    """TensorRT and the card of this machine; raises EngineError, with what is missing."""
    return OnCard(this_library(), this_device)


def open_tensorrt(
    release: Release,
    precision: TensorRtPrecision,
    folder: Path,
    card: OnCard | None = None,
    *,
    heed: Heed | None = None,
    buckets: tuple[int, ...] = BUCKETS,
) -> TensorRtEngine:
    """Open a verified release on the card (None: this machine's); plans are kept in `folder`.

    Where the memory for the largest bucket is missing, to compile it or to run it, the next smaller one is the largest.
    `heed` hears how far a compilation is and may end it; without, the log does. Its scores are nobody's business here:
    whoever opens an engine holds it against the golden tiles.

    Raises:
        EngineError: there is no card, or no TensorRT, or the release has no such file, or nothing fits.
    """
    workshop = _Workshop(card or this_card(), Plans(folder), heed or _logged(release))
    try:
        graph = release.path(INT8_FILE if precision == "int8" else MODEL_FILE).read_bytes()
        ranges = release.path(INT8_FILE).read_bytes() if precision == "fp8" else b""
    except ReleaseError as error:
        raise EngineError(f"{release.id} in {precision}: {error}") from error
    refused: OutOfDeviceMemory | None = None
    for count in range(len(buckets), 0, -1):
        order = Order(graph, precision, buckets[:count], release.tile_size, ranges)
        try:
            return workshop.open(release, order)
        except OutOfDeviceMemory as error:
            log.warning(
                "gpu bucket given up release=%s bucket=%d reason=%r", release.id, buckets[count - 1], str(error)
            )
            refused = error.with_traceback(None)  # whose frames hold what was begun
    raise OutOfDeviceMemory(f"{release.id} in {precision}: {refused}") from refused


class _Workshop(NamedTuple):
    """Where an order becomes an engine."""

    card: OnCard
    plans: Plans
    heed: Heed

    def open(self, release: Release, order: Order) -> TensorRtEngine:
        """With all that the order asks for; raises EngineError, and then nothing is left on the card."""
        return TensorRtEngine.opened(release, self.card.device(), partial(self._network, order))

    def _network(self, order: Order, device: Device) -> TensorRtNetwork:
        library, name = f"tensorrt {self.card.library.version}", device.card.name
        if order.precision == "fp8" and device.card.capability < CAPABILITY:
            raise NotHere(f"{name} has no arithmetic for eight-bit floats, which came with capability 8.9")
        key = PlanKey.of(device.card, library, order.graph + order.ranges, order.precision, order.buckets)
        return self._kept(key, order, device) or self._compiled(key, order, device)

    def _kept(self, key: PlanKey, order: Order, device: Device) -> TensorRtNetwork | None:
        """The network of a plan made before; None if there is none, or the library does not take it after all."""
        plan = self.plans.read(key)
        if plan is None:
            return None
        try:
            return self.card.library.open(plan, order.precision, device)
        except (OutOfDeviceMemory, DeviceLost):
            raise
        except DeviceError as error:
            log.warning("gpu plan does not load reason=%r; compiling anew", str(error))
            return None

    def _compiled(self, key: PlanKey, order: Order, device: Device) -> TensorRtNetwork:
        log.info("gpu compiling precision=%s buckets=%s: once, it takes minutes", order.precision, order.buckets)
        built = self.card.library.build(order, self.plans.timing(key), self.heed)
        network = self.card.library.open(built.plan, order.precision, device)
        try:
            self.plans.write(key, built.plan)
            self.plans.write_timing(key, built.timing)
        except OSError as error:
            log.warning("gpu plan cannot be kept reason=%r", str(error))
        return network


def _logged(release: Release) -> Heed:
    """Says every ten seconds how far a compilation is."""
    last = time.monotonic()

    def heed(phase: str, done: int, steps: int) -> bool:
        nonlocal last
        if (now := time.monotonic()) - last >= 10.0:
            last = now
            log.info("gpu compiling release=%s phase=%r step=%d of=%d", release.id, phase, done, steps)
        return True

    return heed
