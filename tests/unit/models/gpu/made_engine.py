"""A GPU engine of numpy parts: its network says of a tile what the scripted engine says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from models.architecture import Architecture
from models.engines.gpu.device import OutOfDeviceMemory, Stream
from models.engines.gpu.engine import Addresses, GpuEngine
from models.engines.gpu.numpy_device import NumpyDevice, NumpyStream
from models.engines.protocol import Scores, Tile
from models.engines.scripted import Script, ScriptedEngine
from models.release import Release
from tests.unit.models.made_releases import SIDE, made_class, made_facts, made_files, unsigned

CLASSES = ("crack", "spalling", "exposed_rebar")
SCRIPT = Script(classes=CLASSES, tile_size=SIDE)
BUCKETS = (2, 5, 8)


def made_release(folder: Path, script: Script = SCRIPT) -> Release:
    shape = Architecture(classes=len(script.classes), tile_size=SIDE, width=6)
    facts = made_facts("small.1", classes=tuple(map(made_class, script.classes)), architecture=shape)
    made = unsigned(folder / "small.1", facts, partial(made_files, classes=len(script.classes)))
    shape = msgspec.structs.replace(shape, tile_size=script.tile_size)  # its golden tiles are smaller: nobody looks
    return msgspec.structs.replace(made, architecture=shape)


class MeansNetwork:
    """The scripted engine's arithmetic, queued; buckets of more than `fits` tiles find no memory."""

    precision = "f32"

    def __init__(
        self, device: NumpyDevice, buckets: Sequence[int] = BUCKETS, fits: int = 1 << 30, script: Script = SCRIPT
    ) -> None:
        self.device, self.fits, self.buckets, self.script = device, fits, tuple(buckets), script
        self.enqueued: list[int] = []
        self.closed = False

    def enqueue(self, bucket: int, at: Addresses, stream: Stream) -> None:
        assert isinstance(stream, NumpyStream)
        if bucket > self.fits:
            raise OutOfDeviceMemory("no memory for the activations")
        self.enqueued.append(bucket)
        stream.enqueue(self._work(bucket, at))

    def close(self) -> None:
        self.closed = True

    def _work(self, bucket: int, at: Addresses) -> Callable[[], None]:
        def run() -> None:
            side = self.script.tile_size
            pixels = self.device.view(at.tiles, bucket * side * side * 3).reshape(bucket, side, side, 3)
            found = scripted(pixels, self.script)
            for address, values in zip(at[1:], found, strict=True):
                self.device.view(address, values.nbytes).view(np.float32)[:] = values.reshape(-1)

        return run


def scripted(pixels: np.ndarray, script: Script = SCRIPT) -> Scores:
    """What the scripted engine says of loose tiles."""
    engine = ScriptedEngine(script)
    return engine.infer([Tile(engine.admit(one), 0, 0) for one in pixels])


def made_engine(
    release: Release, device: NumpyDevice, network: MeansNetwork | None = None, graphs: bool = True
) -> GpuEngine:
    return GpuEngine(release, device, network or MeansNetwork(device), graphs)
