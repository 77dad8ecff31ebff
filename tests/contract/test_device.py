"""What every device promises, the card of numpy and the real one by way of each of its libraries."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

from models.engines.gpu.device import Device, OutOfDeviceMemory
from models.engines.gpu.driver import driver_obstacle
from models.engines.gpu.gather import ENTRY, PlacedImage, PlacedTile, fill
from models.engines.gpu.numpy_device import NumpyDevice, Troubles

SIDE = 64


def opened(kind: str) -> Device:
    if kind == "numpy":
        return NumpyDevice(seed=4, troubles=Troubles(memory=1 << 26))
    if obstacle := driver_obstacle():
        pytest.skip(f"needs a graphics card: {obstacle}")
    if kind == "pycuda":
        if find_spec("pycuda") is None:
            pytest.skip("pycuda is not installed: pip install spanwatch[pycuda], with NVIDIA's toolkit")
        from models.engines.gpu.pycuda import PycudaDevice

        return PycudaDevice()
    from models.engines.gpu.cuda_bindings import CudaDevice

    return CudaDevice()


@pytest.fixture(params=["numpy", "cuda-bindings", "pycuda"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    one = opened(request.param)
    yield one
    one.close()
    one.close()


def pinned(device: Device, content: np.ndarray) -> np.ndarray:
    memory = device.pinned(content.nbytes)
    memory[:] = content.view(np.uint8).reshape(-1)
    return memory


def wait(device: Device, stream) -> None:  # type: ignore[no-untyped-def]
    event = device.event()
    stream.record(event)
    event.synchronize()


def test_bytes_go_up_and_come_down_as_they_were(device: Device) -> None:
    sent = np.random.default_rng(0).integers(0, 256, 100_003, dtype=np.uint8)
    source, target, stream = pinned(device, sent), device.pinned(sent.nbytes), device.stream()
    address = device.allocate(sent.nbytes)
    assert address % 256 == 0
    stream.upload(source, address)
    stream.download(address + 3, target[3:])
    wait(device, stream)
    np.testing.assert_array_equal(target[3:], sent[3:])


def test_an_event_never_recorded_has_passed(device: Device) -> None:
    event, stream = device.event(), device.stream()
    event.synchronize()
    stream.wait(event)
    wait(device, stream)


def test_one_stream_waits_for_a_mark_in_another(device: Device) -> None:
    first, second = device.stream(), device.stream()
    address, target = device.allocate(1 << 20), device.pinned(1 << 20)
    for number in range(20):
        source, mark = pinned(device, np.full(1 << 20, number, np.uint8)), device.event()
        first.upload(source, address)
        first.record(mark)
        second.wait(mark)
        second.download(address, target)
        wait(device, second)
        assert (target == number).all()
        device.unpin(source)


def photos(device: Device) -> tuple[list[np.ndarray], list[PlacedImage]]:
    random, stream = np.random.default_rng(1), device.stream()
    arrays = [random.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((200, 301), (97, 64))]
    placed = []
    for one in arrays:
        address = device.allocate(one.nbytes)
        stream.upload(pinned(device, one), address)
        placed.append(PlacedImage(one.shape[0], one.shape[1], address))
    wait(device, stream)
    return arrays, placed


PLACES = [(0, 0, 0), (0, 136, 237), (1, 33, 0), (0, 5, 7), (1, 0, 0), (0, 100, 3), (0, 1, 1)]
"""Photo, y, x: corners, and bytes that no word begins at."""


def expected(arrays: list[np.ndarray], places: list[tuple[int, int, int]]) -> np.ndarray:
    return np.stack([arrays[number][y : y + SIDE, x : x + SIDE] for number, y, x in places])


def test_tiles_are_gathered_from_anywhere_in_any_photo(device: Device) -> None:
    arrays, placed = photos(device)
    stream, size = device.stream(), len(PLACES) * SIDE * SIDE * 3
    table, target = device.pinned(len(PLACES) * ENTRY.itemsize), device.pinned(size)
    table_at, tiles_at = device.allocate(table.nbytes), device.allocate(size)
    fill(table.view(ENTRY), [PlacedTile(placed[number], y, x) for number, y, x in PLACES], SIDE)
    stream.upload(table, table_at)
    stream.gather(table_at, len(PLACES), SIDE, tiles_at)
    stream.download(tiles_at, target)
    wait(device, stream)
    np.testing.assert_array_equal(target.reshape(-1, SIDE, SIDE, 3), expected(arrays, PLACES))


def test_captured_work_is_replayed_on_what_its_memory_holds_then(device: Device) -> None:
    arrays, placed = photos(device)
    stream, size = device.stream(), 2 * SIDE * SIDE * 3
    table, target = device.pinned(2 * ENTRY.itemsize), device.pinned(size)
    table_at, tiles_at = device.allocate(table.nbytes), device.allocate(size)

    def work() -> None:
        stream.upload(table, table_at)
        stream.gather(table_at, 2, SIDE, tiles_at)
        stream.download(tiles_at, target)

    if type(device).__name__ == "PycudaDevice":
        pytest.skip("pycuda cannot capture work")
    graph = stream.capture(work)
    for number in range(len(PLACES) - 1):
        places = PLACES[number : number + 2]
        fill(table.view(ENTRY), [PlacedTile(placed[number], y, x) for number, y, x in places], SIDE)
        graph.launch()
        wait(device, stream)
        np.testing.assert_array_equal(target.reshape(-1, SIDE, SIDE, 3), expected(arrays, places))


def test_more_than_there_is_is_refused_and_the_rest_stays(device: Device) -> None:
    sent = np.arange(1000, dtype=np.uint8)
    address, stream, target = device.allocate(1000), device.stream(), device.pinned(1000)
    stream.upload(pinned(device, sent), address)
    with pytest.raises(OutOfDeviceMemory):
        device.allocate(device.card.memory + (1 << 20))
    stream.download(address, target)
    wait(device, stream)
    np.testing.assert_array_equal(target, sent)


def test_what_is_given_back_is_free_again(device: Device) -> None:
    before = device.free_memory()
    size = 32 << 20
    address = device.allocate(size)
    assert device.free_memory() <= before - size
    device.free(address)
    assert device.free_memory() >= before - (4 << 20)
    assert 0 < before <= device.card.memory


def test_the_card_says_which_one_it_is(device: Device) -> None:
    name, capability, driver, memory = device.card
    assert name and driver and len(capability) == 2 and memory > 0
