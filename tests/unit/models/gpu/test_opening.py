"""A release opens on a card with the plan made before or a new one, with the buckets that fit, and leaves nothing."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.engines.gpu.device import DeviceLost, NotHere, OutOfDeviceMemory
from models.engines.gpu.numpy_device import NumpyDevice, Troubles
from models.engines.gpu.numpy_seat import NumpySeat
from models.engines.gpu.opening import OnCard, TensorRtEngine, open_tensorrt
from models.engines.gpu.watch import BuildStopped
from models.engines.protocol import EngineError, Tile
from models.engines.tensorrt import TensorRt, TensorRtPrecision
from models.release import Release
from tests.unit.models.gpu.fake_tensorrt import VERSIONS, LibraryTroubles, library
from tests.unit.models.gpu.made_network import made_onnx, made_release, run_onnx
from tests.unit.models.made_releases import SIDE

BUCKETS = (2, 4)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return made_release(tmp_path_factory.mktemp("site"))


class Card:
    """A card and a library of which a test sees what was built."""

    def __init__(
        self, version: str = VERSIONS[1], troubles: LibraryTroubles | None = None, memory: int = 1 << 30
    ) -> None:
        self.device = NumpyDevice(seed=5, troubles=Troubles(memory=memory))
        self.library = TensorRt(library(version, self.device, troubles))
        self.seats: list[NumpySeat] = []
        self.built: list[tuple[int, ...]] = []
        build = self.library.build

        def counted(order, timing=b"", heed=None):  # type: ignore[no-untyped-def]
            self.built.append(order.buckets)
            return build(order, timing, heed)

        self.library.build = counted  # type: ignore[method-assign]

    def seat(self) -> NumpySeat:
        self.seats.append(NumpySeat(self.device))
        return self.seats[-1]

    def holds_nothing(self) -> bool:
        """Whether everything was given back, and by who took it."""
        left = sum(one.left for one in self.seats)
        return not (self.device.blocks or self.device.pinned_blocks or left)

    def open(self, release: Release, folder: Path, precision: TensorRtPrecision = "f16", heed=None) -> TensorRtEngine:  # type: ignore[no-untyped-def]
        return open_tensorrt(release, precision, folder, OnCard(self.library, self.seat), heed=heed, buckets=BUCKETS)


def scores(engine: TensorRtEngine) -> np.ndarray:
    pixels = np.random.default_rng(2).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = engine.admit(pixels)
    found = engine.infer([Tile(image, 0, x) for x in range(7)]).probabilities
    expected = run_onnx(made_onnx(), np.stack([pixels[:SIDE, x : x + SIDE] for x in range(7)])).probabilities
    np.testing.assert_allclose(found, expected, atol=0.05)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_is_compiled_once(release: Release, tmp_path: Path, version: str) -> None:
    card = Card(version)
    for _ in range(3):
        engine = card.open(release, tmp_path)
        scores(engine)
        engine.close()
        engine.close()
        assert card.holds_nothing()
    assert card.built == [BUCKETS]
    card.open(release, tmp_path, "int8").close()
    assert card.built == [BUCKETS, BUCKETS]


def test_a_plan_of_another_version_is_not_used(release: Release, tmp_path: Path) -> None:
    Card(VERSIONS[1]).open(release, tmp_path).close()
    other = Card(VERSIONS[2])
    scores(other.open(release, tmp_path))
    assert other.built == [BUCKETS]


def test_a_plan_that_does_not_load_is_compiled_anew(
    release: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = Card()
    card.open(release, tmp_path).close()
    (path,) = (tmp_path / "plans").glob("*.plan")
    head, _, plan = path.read_bytes().partition(b"\n")
    newer = plan.replace(VERSIONS[1].encode(), b"10.13.3.8")  # the same name, yet the library refuses it
    head = head.replace(sha256(plan).hexdigest().encode(), sha256(newer).hexdigest().encode())
    path.write_bytes(head + b"\n" + newer)
    scores(card.open(release, tmp_path))
    assert card.built == [BUCKETS] * 2 and "does not load" in caplog.text


@pytest.mark.parametrize("troubles", [LibraryTroubles(builds=3), LibraryTroubles(runs=3)])
def test_without_memory_for_the_largest_bucket_the_next_smaller_one_serves(
    release: Release, tmp_path: Path, troubles: LibraryTroubles
) -> None:
    engine = Card(troubles=troubles).open(release, tmp_path)
    assert engine.batch_sizes == (2,)  # known before the first photo
    scores(engine)


def test_without_memory_for_any_bucket_it_says_so_and_holds_nothing(release: Release, tmp_path: Path) -> None:
    card = Card(troubles=LibraryTroubles(builds=1))
    with pytest.raises(
        OutOfDeviceMemory, match=r"small.1 in f16: TensorRT .* batches of \(2,\) tiles .* out of memory"
    ):
        card.open(release, tmp_path)
    assert card.built == [(2, 4), (2,)] and card.holds_nothing()
    small = Card(memory=2500)
    with pytest.raises(OutOfDeviceMemory, match=r"small.1 in f16: no room"):
        small.open(release, tmp_path)
    assert small.holds_nothing()


def test_a_build_that_is_stopped_leaves_no_file(release: Release, tmp_path: Path) -> None:
    card = Card()
    with pytest.raises(BuildStopped):
        card.open(release, tmp_path, heed=lambda phase, done, steps: phase != "tactics")
    assert not list(tmp_path.rglob("*.plan")) and card.holds_nothing()


def test_a_folder_that_cannot_be_written_costs_the_plan_and_nothing_else(
    release: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        scores(Card().open(release, tmp_path / "file"))
    assert "cannot be kept" in caplog.text


def test_an_engine_on_a_lost_card_closes_in_silence(release: Release, tmp_path: Path) -> None:
    card = Card()
    engine = card.open(release, tmp_path)
    card.device.troubles.lost_at = card.device.done
    with pytest.raises(DeviceLost):
        scores(engine)
    engine.close()


def test_a_release_without_the_file_says_which(release: Release, tmp_path: Path) -> None:
    bare = msgspec.structs.replace(release, files={k: v for k, v in release.files.items() if "int8" not in k})
    with pytest.raises(EngineError, match=r"small.1 in int8: .*model.int8.onnx"):
        Card().open(bare, tmp_path, "int8")
    with pytest.raises(EngineError, match=r"small.1 in fp8: .*model.int8.onnx"):  # whose ranges it needs
        Card().open(bare, tmp_path, "fp8")


def test_a_card_older_than_eight_bit_floats_says_so_before_anything_is_compiled(
    release: Release, tmp_path: Path
) -> None:
    card = Card()
    card.device.card = card.device.card._replace(name="older", capability=(8, 6))
    with pytest.raises(NotHere, match=r"older has no arithmetic for eight-bit floats"):
        card.open(release, tmp_path, "fp8")
    assert not card.built and card.holds_nothing()
    card.device.card = card.device.card._replace(capability=(8, 9))
    card.open(release, tmp_path, "fp8").close()
    assert card.built == [BUCKETS] and card.holds_nothing()
