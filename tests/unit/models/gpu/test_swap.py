"""Two engines on one card: a swap under load loses no tile, mixes no scores and leaves nothing of the old engine."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from models.engines.gpu.numpy_device import NumpyDevice
from models.engines.gpu.numpy_seat import NumpySeat
from models.engines.gpu.opening import OnCard, TensorRtEngine, open_tensorrt
from models.engines.tensorrt import TensorRt
from models.release import Release
from models.runner import AdmittedTile, Runner
from tests.unit.models.gpu.fake_tensorrt import VERSIONS, library
from tests.unit.models.gpu.made_network import made_onnx, made_release, run_onnx
from tests.unit.models.made_releases import SIDE

SWAPS = 20
BUCKETS = (2, 4)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Release]:
    return made_release(tmp_path_factory.mktemp("one")), made_release(tmp_path_factory.mktemp("two"), off=1.5)


@pytest.mark.parametrize("seed", range(3))
def test_every_tile_of_every_photo_is_scored_by_the_engine_its_photo_is_bound_to(
    releases: tuple[Release, Release], tmp_path: Path, seed: int
) -> None:
    device = NumpyDevice(seed)
    card = OnCard(TensorRt(library(VERSIONS[1], device)), lambda: NumpySeat(device))
    random = np.random.default_rng(seed)
    expected = {
        release.folder: (lambda pixels, off=off: run_onnx(made_onnx(off=off), pixels).probabilities)
        for release, off in zip(releases, (0.0, 1.5), strict=True)
    }

    def opened(number: int) -> TensorRtEngine:
        return open_tensorrt(releases[number % 2], "f32", tmp_path, card, buckets=BUCKETS)

    held: list[int] = []
    asked = []
    with Runner(opened(0)) as runner:
        for number in range(1, SWAPS + 1):
            bound = releases[(number - 1) % 2].folder
            for _ in range(3):
                pixels = random.integers(0, 256, (9, 11, 3), dtype=np.uint8)
                photo = runner.admit(pixels)
                places = [(int(random.integers(6)), int(random.integers(8))) for _ in range(int(random.integers(1, 9)))]
                future = runner.infer([AdmittedTile(photo, y, x) for y, x in places])
                tiles = np.stack([pixels[y : y + SIDE, x : x + SIDE] for y, x in places])
                asked.append((bound, future, tiles))
                future.add_done_callback(
                    lambda _, photo=photo: threading.Thread(target=runner.evict, args=(photo,)).start()
                )
            drained = runner.swap(opened(number))
            drained.result()
            held.append(sum(block.nbytes for block in device.blocks.values()))
        for folder, future, tiles in asked:
            np.testing.assert_allclose(future.result().probabilities, expected[folder](tiles), atol=1e-5)
    assert len(set(held)) == 1, "memory grows from swap to swap"
    assert not device.blocks and not device.pinned_blocks
