"""The engine for graphics cards: a photo goes up once, its tiles are gathered there, only scores come down."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from models.engines.gpu.buckets import cut
from models.engines.gpu.device import Bytes, Device, DeviceError, DeviceLost, Event, Graph, OutOfDeviceMemory, Stream
from models.engines.gpu.gather import ENTRY, PlacedImage, PlacedTile, check_side, fill
from models.engines.of_release import OfRelease
from models.engines.protocol import EngineError, Image, Pixels, Scores, Tile, check_image
from models.release import Release

log = logging.getLogger(__name__)

STAGE_BYTES = 8 << 20
"""A photo goes up in pieces of this size: while one crosses the bus, the next is copied to page-locked memory."""
STAGES = 3
SPARE = 4
"""Places of photos that are kept for the next ones: asking the driver for memory stops the card."""
ALIGNMENT = 256
"""Bytes; TensorRT takes no address that is not a multiple."""
SLOTS = 3
"""Batches on their way: one is computed, one is read back, and one is being prepared."""


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


class DeviceImage(PlacedImage):
    """A photo that is on the card once `uploaded` has passed."""

    __slots__ = ("uploaded",)

    def __init__(self, pixels: Pixels, address: int, uploaded: Event) -> None:
        super().__init__(pixels.shape[0], pixels.shape[1], address)
        self.uploaded = uploaded

    @property
    def size(self) -> int:
        """In bytes."""
        return self.height * self.width * 3


class _Layout(NamedTuple):
    """Where the embeddings of a batch are behind its probabilities, and where they end, in bytes."""

    embeddings: int
    size: int


@dataclass
class _Slot:
    """What one batch on its way needs for itself, sized for the largest bucket."""

    table: Bytes
    table_at: int
    outputs: Bytes
    outputs_at: int
    computed: Event
    ready: Event
    graphs: dict[int, Graph] = field(default_factory=dict)
    asked: tuple[slice, int, Scores] | None = None
    """Rows, bucket and the scores they go to; None once they are there."""


class GpuEngine(OfRelease):
    """Runs a network on a card; see models/engines/protocol.py for the promises.

    Three streams: photos go up on one; tiles are gathered and scored on the second; scores come down on the third.
    Events alone hold one up for another, and the host waits only for scores. `graphs` replays each batch as one CUDA
    graph. A bucket for which the card has no memory left is not used again, smaller ones are.
    """

    def __init__(self, release: Release, device: Device, network: Network, graphs: bool = True) -> None:
        check_side(release.tile_size)
        super().__init__(release)
        self._device = device
        self._network: Network | None = network
        self._graphs = graphs
        self._buckets = network.buckets
        self._warm: set[int] = set()
        self._up, self._compute, self._down = device.stream(), device.stream(), device.stream()
        self._tiles = device.allocate(self._buckets[-1] * release.tile_size**2 * 3)
        self._slots = deque(self._slot(self._buckets[-1]) for _ in range(SLOTS))
        self._stages = deque((device.pinned(STAGE_BYTES), device.event()) for _ in range(STAGES))
        self._images: set[DeviceImage] = set()
        self._spare: deque[tuple[int, int]] = deque()

    @property
    def precision(self) -> str:
        """That of the network."""
        return self._open().precision

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The buckets that fit into the card's memory."""
        return self._buckets

    def admit(self, image: Pixels) -> Image:
        """Send a photo up, piece by piece; returns as soon as its last piece is in page-locked memory."""
        self._open()
        check_image(image, self.tile_size)
        admitted = DeviceImage(image, self._place(image.nbytes), self._device.event())
        source = np.ascontiguousarray(image).reshape(-1)
        for start in range(0, source.size, STAGE_BYTES):
            memory, free = self._stages[0]
            self._stages.rotate(-1)
            free.synchronize()
            piece = memory[: min(STAGE_BYTES, source.size - start)]
            piece[:] = source[start : start + piece.size]
            self._up.upload(piece, admitted.address + start)
            self._up.record(free)
        self._up.record(admitted.uploaded)
        self._images.add(admitted)
        return admitted

    def infer(self, tiles: Sequence[Tile]) -> Scores:
        """Queue bucket after bucket; collect each batch's scores when its slot is needed again, and at the end."""
        self._open()
        scores = self._room(len(tiles))
        placed = [PlacedTile(self._mine(image), y, x) for image, y, x in tiles]
        try:
            self._queue_all(placed, scores)
            for slot in self._slots:
                self._take(slot)
        except EngineError:
            self._abandon()
            raise
        return scores

    def evict(self, image: Image) -> None:
        """Keep its place for the next photo of that size."""
        if isinstance(image, DeviceImage) and image in self._images:
            self._images.discard(image)
            self._spare.append((image.size, image.address))
            if len(self._spare) > SPARE:
                self._device.free(self._spare.popleft()[1])

    def close(self) -> None:
        """Give everything back but the device, which is whoever made it."""
        if self._network is None:
            return
        network, self._network = self._network, None
        with contextlib.suppress(DeviceLost):  # a lost card has nothing to give back, and said so already
            self._wait_for_all()
            network.close()
            places = [image.address for image in self._images] + [address for _, address in self._spare]
            for slot in self._slots:
                places += [slot.table_at, slot.outputs_at]
                self._device.unpin(slot.table)
                self._device.unpin(slot.outputs)
            for memory, _ in self._stages:
                self._device.unpin(memory)
            for address in [*places, self._tiles]:
                self._device.free(address)
        self._images.clear()
        self._slots.clear()

    def _mine(self, image: Image) -> DeviceImage:
        if not isinstance(image, DeviceImage) or image not in self._images:
            raise EngineError("the tile's image is not on this card: admitted by another engine, or evicted")
        return image

    def _open(self) -> Network:
        if self._network is None:
            raise EngineError(f"{self.release}: the engine is closed")
        return self._network

    def _place(self, size: int) -> int:
        """Where a photo of so many bytes goes: the place of an evicted one of the same size, else a new one."""
        for number, (spare, address) in enumerate(self._spare):
            if spare == size:
                del self._spare[number]
                return address
        try:
            return self._device.allocate(size)
        except OutOfDeviceMemory:
            while self._spare:
                self._device.free(self._spare.popleft()[1])
        try:
            return self._device.allocate(size)
        except OutOfDeviceMemory as error:
            raise OutOfDeviceMemory(
                f"{self.release}: no room for a photo of {size / 1e6:.0f} MB beside {len(self._images)} others on "
                f"{self._device.card.name}: let fewer bytes be in flight, or give it smaller buckets ({error})"
            ) from error

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
        slot = self._slots[0]
        self._take(slot)
        fill(slot.table.view(ENTRY)[:bucket], tiles, self.tile_size)
        for image in {tile.image for tile in tiles}:
            self._compute.wait(self._mine(image).uploaded)
        self._launch(slot, bucket)
        self._compute.record(slot.computed)
        self._down.wait(slot.computed)
        self._down.download(slot.outputs_at, slot.outputs[: self._layout(bucket).size])
        self._down.record(slot.ready)
        slot.asked = (rows, bucket, scores)
        self._slots.rotate(-1)

    def _launch(self, slot: _Slot, bucket: int) -> None:
        """The first batch of a bucket runs piece by piece, as a network sets itself up then; later ones as a graph."""
        network, layout, stream = self._open(), self._layout(bucket), self._compute
        at = Addresses(self._tiles, slot.outputs_at, slot.outputs_at + layout.embeddings)

        def work() -> None:
            stream.upload(slot.table[: bucket * ENTRY.itemsize], slot.table_at)
            stream.gather(slot.table_at, bucket, self.tile_size, self._tiles)
            network.enqueue(bucket, at, stream)

        if not self._graphs or bucket not in self._warm:
            work()
            self._warm.add(bucket)
            return
        if bucket not in slot.graphs:
            slot.graphs[bucket] = stream.capture(work)
        slot.graphs[bucket].launch()

    def _take(self, slot: _Slot) -> None:
        """Wait for what a slot works on, and copy its scores to whoever asked."""
        if slot.asked is None:
            return
        (rows, bucket, scores), slot.asked = slot.asked, None
        slot.ready.synchronize()
        layout, count = self._layout(bucket), rows.stop - rows.start
        values = slot.outputs[: layout.size].view(np.float32)
        classes, width = scores.probabilities.shape[1], scores.embeddings.shape[1]
        scores.probabilities[rows] = values[: count * classes].reshape(count, classes)
        first = layout.embeddings // 4
        scores.embeddings[rows] = values[first : first + count * width].reshape(count, width)

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

    def _abandon(self) -> None:
        """After a failure no queued copy may still write, or be taken for part of the next call."""
        for slot in self._slots:
            slot.asked = None
        with contextlib.suppress(DeviceError):  # the first one is on its way up already
            self._wait_for_all()

    def _wait_for_all(self) -> None:
        for stream in (self._up, self._compute, self._down):
            event = self._device.event()
            stream.record(event)
            event.synchronize()

    def _layout(self, bucket: int) -> _Layout:
        shape = self._release.architecture
        embeddings = -(-bucket * shape.classes * 4 // ALIGNMENT) * ALIGNMENT
        return _Layout(embeddings, embeddings + bucket * shape.width * 4)

    def _slot(self, largest: int) -> _Slot:
        device, size = self._device, self._layout(largest).size
        return _Slot(
            table=device.pinned(largest * ENTRY.itemsize),
            table_at=device.allocate(largest * ENTRY.itemsize),
            outputs=device.pinned(size),
            outputs_at=device.allocate(size),
            computed=device.event(),
            ready=device.event(),
        )
