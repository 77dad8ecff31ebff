"""The engine for graphics cards: a photo goes up once, its tiles are gathered there, only scores come down."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import ClassVar, NamedTuple, Protocol, Self

import numpy as np

from models.architecture import Architecture
from models.engines.gpu.buckets import cut
from models.engines.gpu.device import Device, DeviceError, DeviceLost, OutOfDeviceMemory, Stream
from models.engines.gpu.gather import ENTRY, PlacedTile, check_side, fill
from models.engines.gpu.photos import Photos
from models.engines.gpu.slots import SLOTS, Asked, Layout, Slot, Slots, slots_that_fit
from models.engines.of_release import OfRelease
from models.engines.protocol import EngineError, Image, Pending, Pixels, Scores, Tile, check_image
from models.release import Release

log = logging.getLogger(__name__)


class Addresses(NamedTuple):
    """Where a network finds its input and puts its outputs, on the card: uint8[n, side, side, 3], float32[n, classes],
    float32[n, dim]."""

    tiles: int
    probabilities: int
    embeddings: int


class Network(Protocol):
    """A release compiled for a card."""

    @property
    def precision(self) -> str:
        """What the bulk of the arithmetic runs in."""

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes it is compiled for, ascending."""

    def enqueue(self, bucket: int, at: Addresses, stream: Stream) -> None:
        """Queue one batch of exactly `bucket` tiles.

        Raises OutOfDeviceMemory if it needs more than there is, another DeviceError if the card refuses.
        """

    def close(self) -> None:
        """Give its memory back; closing twice is allowed."""


class GpuEngine(OfRelease):
    """Runs a network on a card; see models/engines/protocol.py for the promises.

    Three streams: photos go up on one; tiles are gathered and scored on the second; scores come down on the third.
    Events alone hold one up for another, and the host waits only for scores. `graphs` replays each batch as one CUDA
    graph, where the network can be captured. A bucket for which the card has no memory left is not used again, smaller
    ones are.
    """

    def __init__(self, release: Release, device: Device, network: Network, graphs: bool = True) -> None:
        check_side(release.tile_size)
        super().__init__(release)
        self._device = device
        self._network: Network | None = network
        self._graphs = graphs
        self._warm: set[int] = set()
        self._compute, self._down = device.stream(), device.stream()
        self._slots, self._buckets = slots_that_fit(device, release.architecture, network.buckets)
        for bucket in network.buckets[len(self._buckets) :]:
            log.warning("gpu bucket given up release=%s bucket=%d reason='no room at the start'", release.id, bucket)
        self._photos = Photos(device)

    @property
    def precision(self) -> str:
        """That of the network."""
        return self._open().precision

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The buckets that fit into the card's memory."""
        return self._buckets

    def warm(self) -> None:
        """Run every bucket, so that no photo waits for what happens once; one that finds no memory is given up here."""
        image = self.admit(np.zeros((self.tile_size, self.tile_size, 3), dtype=np.uint8))
        for bucket in self._buckets:
            for _ in range(1 + SLOTS):  # piece by piece, and then each slot's graph
                self.infer([Tile(image, 0, 0)] * bucket)
        self.evict(image)

    def admit(self, image: Pixels) -> Image:
        """Send a photo up; returns as soon as its last piece is in page-locked memory."""
        self._open()
        check_image(image, self.tile_size)
        try:
            return self._photos.send(image)
        except OutOfDeviceMemory as error:
            raise OutOfDeviceMemory(f"{self.release}: {error}") from error

    def infer(self, tiles: Sequence[Tile]) -> Scores:
        """Begin, and wait."""
        return self.start(tiles).wait()

    def start(self, tiles: Sequence[Tile]) -> Pending:
        """Queue bucket after bucket; scores are collected when their slot is needed again, or when waited for."""
        self._open()
        placed = [PlacedTile(self._photos.find(image), y, x) for image, y, x in tiles]
        scores = self._room(len(tiles))
        self._queue_all(placed, scores)
        return _OnCard(self._slots, self._release.architecture, scores)

    def evict(self, image: Image) -> None:
        """Its place is for the next photo of that size."""
        self._photos.evict(image)

    def close(self) -> None:
        """Give everything back but the device, which is whoever made it."""
        if self._network is None:
            return
        network, self._network = self._network, None
        with contextlib.suppress(DeviceLost):  # a lost card has nothing to give back, and said so already
            for slot in self._slots.ring:
                slot.take(self._release.architecture)
                slot.graphs.clear()  # before what they replay
            self._wait_for_all()
            network.close()
            self._slots.close()
            self._photos.close()

    def _open(self) -> Network:
        if self._network is None:
            raise EngineError(f"{self.release}: the engine is closed")
        return self._network

    def _queue_all(self, tiles: Sequence[PlacedTile], scores: Scores) -> None:
        start = 0
        while start < len(tiles):
            part = next(cut(len(tiles) - start, self._buckets))
            rows = slice(start, start + part.stop)
            try:
                self._queue(part.bucket, tiles[rows], rows, scores)
            except OutOfDeviceMemory as error:
                self._retire(part.bucket, error)
                continue
            start = rows.stop

    def _queue(self, bucket: int, tiles: Sequence[PlacedTile], rows: slice, scores: Scores) -> None:
        """One batch: 1. its table, 2. tiles and network behind the photos' uploads, 3. the scores behind both."""
        slot = self._slots.ring[0]
        slot.take(self._release.architecture)
        fill(slot.table.view(ENTRY)[:bucket], tiles, self.tile_size)
        for image in {tile.image for tile in tiles}:
            self._compute.wait(self._photos.find(image).uploaded)
        self._launch(slot, bucket)
        self._compute.record(slot.computed)
        self._down.wait(slot.computed)
        self._down.download(slot.outputs_at, slot.outputs[: self._layout(bucket).size])
        self._down.record(slot.ready)
        slot.asked = Asked(rows, bucket, scores)
        self._slots.ring.rotate(-1)

    def _launch(self, slot: Slot, bucket: int) -> None:
        """The first batch of a bucket runs piece by piece, as a network sets itself up then; later ones as a graph."""
        network, stream = self._open(), self._compute
        at = Addresses(self._slots.tiles, slot.outputs_at, slot.outputs_at + self._layout(bucket).embeddings)

        def work() -> None:
            stream.upload(slot.table[: bucket * ENTRY.itemsize], slot.table_at)
            stream.gather(slot.table_at, bucket, self.tile_size, self._slots.tiles)
            network.enqueue(bucket, at, stream)

        if self._graphs and bucket in self._warm and bucket not in slot.graphs:
            try:
                slot.graphs[bucket] = stream.capture(work)
            except DeviceLost:
                raise
            except DeviceError as error:
                self._graphs = False
                log.warning("gpu graphs given up release=%s bucket=%d reason=%r", self.release, bucket, str(error))
        if self._graphs and bucket in self._warm:
            slot.graphs[bucket].launch()
        else:
            work()
            self._warm.add(bucket)

    def _retire(self, bucket: int, error: OutOfDeviceMemory) -> None:
        """Go on with smaller buckets; raises OutOfDeviceMemory if there is none."""
        smaller = tuple(one for one in self._buckets if one < bucket)
        if not smaller:
            raise OutOfDeviceMemory(
                f"{self.release}: not even {bucket} tiles fit into what is free on {self._device.card.name}: "
                f"end what else uses the card, or let fewer bytes be in flight ({error})"
            ) from error
        log.warning("gpu bucket given up release=%s bucket=%d reason=%r", self.release, bucket, str(error))
        self._buckets = smaller

    def _wait_for_all(self) -> None:
        for stream in (self._photos.stream, self._compute, self._down):
            event = self._device.event()
            stream.record(event)
            event.synchronize()

    def _layout(self, bucket: int) -> Layout:
        return Layout.of(self._release.architecture, bucket)


class OwningEngine(GpuEngine):
    """One with a device of its own, which closes with it."""

    GRAPHS: ClassVar[bool] = True
    """Whether its batches are captured here; a network may bring graphs of its own."""

    @classmethod
    def opened(cls, release: Release, device: Device, make: Callable[[Device], Network]) -> Self:
        """Ready to serve, every bucket warm; if that fails nothing is left on the card, and the error goes on."""
        with ExitStack() as undo:
            undo.callback(_close, device)
            network = make(device)
            undo.callback(network.close)
            engine = cls(release, device, network, cls.GRAPHS)
            undo.pop_all()
            undo.callback(engine.close)
            engine.warm()
            undo.pop_all()
        return engine

    def close(self) -> None:
        """And the device with it."""
        super().close()
        _close(self._device)


def _close(device: Device) -> None:
    """A card that was lost has said so already, and has nothing to give back."""
    with contextlib.suppress(DeviceLost):
        device.close()


class _OnCard(NamedTuple):
    """A call whose last batches may still be on their way."""

    slots: Slots
    shape: Architecture
    scores: Scores

    @property
    def done(self) -> bool:
        """Whether no slot works for it any more."""
        return not any(slot.asked is not None and slot.asked.scores is self.scores for slot in self.slots.ring)

    def wait(self) -> Scores:
        """Collect what slots still hold of it, in the order they were queued."""
        for slot in self.slots.ring:
            if slot.asked is not None and slot.asked.scores is self.scores:
                slot.take(self.shape)
        return self.scores
