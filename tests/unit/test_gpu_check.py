"""What `make gpu-check` measures with can count: on a card of numpy its figures are there, and nothing is left."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks.card import frames_per_second, grid, jpeg, swap_gaps, tiles_per_second
from benchmarks.gpu import Section, results
from models.engines.gpu.device import DeviceError, NotHere
from models.engines.gpu.driver import driver_obstacle
from models.engines.gpu.engine import GpuEngine
from models.engines.gpu.numpy_device import NumpyDevice
from models.engines.scripted import Script
from models.release import Release
from tests.unit.models.gpu.made_engine import MeansNetwork, made_release

SCRIPT = Script(tile_size=64)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return made_release(tmp_path_factory.mktemp("site"), SCRIPT)


def engine(release: Release, device: NumpyDevice) -> GpuEngine:
    return GpuEngine(release, device, MeansNetwork(device, script=SCRIPT))


def test_rates_are_counted_and_photos_are_evicted(release: Release) -> None:
    device = NumpyDevice()
    one = engine(release, device)
    assert tiles_per_second(one, 5, 0.0) > 0.0
    photos = [jpeg((200, 150))]
    held = len(device.blocks)
    whole, decoding, alone = frames_per_second(one, photos, 2, 0.0)
    assert min(whole, decoding, alone) > 0.0
    assert len(device.blocks) - held <= 4  # places kept for the next photos
    one.close()
    assert not device.blocks


def test_a_photo_is_cut_as_the_worker_cuts_it() -> None:
    places = grid(4000, 3000, 256)
    assert len(places) == 16 * 12 and places[0] == (0, 0) and places[-1] == (3000 - 256, 4000 - 256)


def test_swaps_are_timed_and_keep_nothing(release: Release) -> None:
    device = NumpyDevice()
    pause, kept = swap_gaps(lambda: engine(release, device), device.free_memory, swaps=3)
    assert pause.value is not None and pause.value > 0.0 and pause.share is not None
    assert kept.value == 0.0 and not device.blocks


def test_what_a_card_has_never_been_able_to_do_is_left_out_and_is_no_failure() -> None:
    sections = [
        ("tensorrt fp8", partial(raising, NotHere("A100 has no arithmetic for eight-bit floats"))),
        ("tensorrt f16", partial(raising, DeviceError("a plan does not load"))),
    ]
    assert [(one.what, one.on, one.note) for one in results(sections)] == [
        ("left out", "tensorrt fp8", "A100 has no arithmetic for eight-bit floats"),
        ("failed", "tensorrt f16", "DeviceError: a plan does not load"),
    ]


def raising(error: Exception) -> Section:
    raise error
    yield


@pytest.mark.skipif(driver_obstacle() is None, reason="this machine has a card")
def test_without_a_card_it_says_so() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "gpu-check needs a graphics card: no NVIDIA driver" in done.stderr
