"""What batches on their way need on the card and beside it, taken once for the largest of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from models.architecture import Architecture
from models.engines.gpu.device import Bytes, Device, Event, Graph, OutOfDeviceMemory
from models.engines.gpu.gather import ENTRY
from models.engines.protocol import Scores

SLOTS = 3
"""Batches on their way: one is computed, one is read back, and one is being prepared."""
ALIGNMENT = 256
"""Bytes; TensorRT takes no address that is not a multiple."""


class Layout(NamedTuple):
    """Where the embeddings of a batch are behind its probabilities, and where they end, in bytes."""

    embeddings: int
    size: int

    @classmethod
    def of(cls, shape: Architecture, bucket: int) -> Layout:
        """That of a batch of so many tiles."""
        embeddings = -(-bucket * shape.classes * 4 // ALIGNMENT) * ALIGNMENT
        return cls(embeddings, embeddings + bucket * shape.width * 4)


class Asked(NamedTuple):
    """Rows of a call, the bucket they run as, and the scores they go to."""

    rows: slice
    bucket: int
    scores: Scores


@dataclass
class Slot:
    """What one batch on its way needs for itself."""

    table: Bytes
    table_at: int
    outputs: Bytes
    outputs_at: int
    computed: Event
    ready: Event
    graphs: dict[int, Graph] = field(default_factory=dict)
    asked: Asked | None = None
    """None once the scores are there."""

    def take(self, shape: Architecture) -> None:
        """Wait for what it works on, and copy the scores to whoever asked."""
        if self.asked is None:
            return
        rows, bucket, scores = self.asked
        self.ready.synchronize()  # raises, and is asked for still, if the card was lost
        self.asked = None
        layout, count = Layout.of(shape, bucket), rows.stop - rows.start
        values = self.outputs[: layout.size].view(np.float32)
        first = layout.embeddings // 4
        scores.probabilities[rows] = values[: count * shape.classes].reshape(count, shape.classes)
        scores.embeddings[rows] = values[first : first + count * shape.width].reshape(count, shape.width)


class Slots:
    """A ring of slots, and one place for gathered tiles that batches use one after the other.

    Raises OutOfDeviceMemory, and holds nothing, if the card has no room for them.
    """

    def __init__(self, device: Device, shape: Architecture, largest: int) -> None:
        with ExitStack() as taken:
            take = _Taker(device, taken)
            self.tiles = take.on_card(largest * shape.tile_size**2 * 3)
            table, outputs = largest * ENTRY.itemsize, Layout.of(shape, largest).size
            self.ring = deque(
                Slot(
                    table=take.pinned(table),
                    table_at=take.on_card(table),
                    outputs=take.pinned(outputs),
                    outputs_at=take.on_card(outputs),
                    computed=device.event(),
                    ready=device.event(),
                )
                for _ in range(SLOTS)
            )
            self._taken = taken.pop_all()

    def close(self) -> None:
        """Give everything back; nothing that is queued may still use it."""
        self.ring.clear()
        self._taken.close()


class _Taker:
    """Takes memory, and notes on a stack how to give it back."""

    def __init__(self, device: Device, taken: ExitStack) -> None:
        self._device, self._taken = device, taken

    def on_card(self, size: int) -> int:
        address = self._device.allocate(size)
        self._taken.callback(self._device.free, address)
        return address

    def pinned(self, size: int) -> Bytes:
        memory = self._device.pinned(size)
        self._taken.callback(self._device.unpin, memory)
        return memory


def slots_that_fit(device: Device, shape: Architecture, buckets: Sequence[int]) -> tuple[Slots, tuple[int, ...]]:
    """Slots for the largest bucket there is room for, and the buckets up to it, ascending.

    Raises OutOfDeviceMemory if there is no room for the smallest.
    """
    refused: OutOfDeviceMemory | None = None
    for largest in sorted(buckets, reverse=True):
        try:
            return Slots(device, shape, largest), tuple(one for one in sorted(buckets) if one <= largest)
        except OutOfDeviceMemory as error:
            refused = error
    raise OutOfDeviceMemory(
        f"no room for batches of {min(buckets)} tiles beside what else uses {device.card.name}: end that ({refused})"
    ) from refused
