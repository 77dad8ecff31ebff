"""The door to TensorRT builds, opens and runs on every version it knows, and says clearly what it cannot do."""

from __future__ import annotations

import numpy as np
import pytest

from models.engines.gpu.device import DeviceError, NotHere, OutOfDeviceMemory
from models.engines.gpu.driver import driver_obstacle
from models.engines.gpu.engine import Addresses, GpuEngine
from models.engines.gpu.fp8 import in_fp8
from models.engines.gpu.numpy_device import NumpyDevice, Troubles
from models.engines.gpu.watch import BuildStopped
from models.engines.protocol import Tile
from models.engines.tensorrt import Order, TensorRt, TensorRtPrecision
from models.release import Release
from tests.unit.models.gpu.fake_tensorrt import VERSIONS, LibraryTroubles, library
from tests.unit.models.gpu.made_network import made_onnx, made_release, run_onnx
from tests.unit.models.made_releases import SIDE

BUCKETS = (2, 4)
GRAPHS = {"f32": made_onnx(), "f16": made_onnx(), "int8": made_onnx(quantised=True), "fp8": made_onnx()}
GRAPHS_OF_FP8 = GRAPHS["fp8"], GRAPHS["int8"]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return made_release(tmp_path_factory.mktemp("site"))


def order(precision: TensorRtPrecision = "f16") -> Order:
    return Order(GRAPHS[precision], precision, BUCKETS, SIDE, GRAPHS["int8"])


def photo() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize(
    ("version", "precision"),
    [(version, one) for version in VERSIONS for one in GRAPHS if not (one == "fp8" and version.startswith("8"))],
)
def test_a_plan_runs_as_the_graph_it_was_built_from(
    release: Release, version: str, precision: TensorRtPrecision, graphs: bool
) -> None:
    device = NumpyDevice(seed=3)
    trt = TensorRt(library(version, device))
    network = trt.open(trt.build(order(precision)).plan, precision, device)
    engine = GpuEngine(release, device, network, graphs)
    assert (engine.precision, engine.batch_sizes) == (precision, BUCKETS)
    image = engine.admit(photo())
    for count in (4, 11, 1, 4):
        found = engine.infer([Tile(image, number, 2 * number) for number in range(count)])
        pixels = np.stack([photo()[n : n + SIDE, 2 * n : 2 * n + SIDE] for n in range(count)])
        expected = run_onnx(in_fp8(*GRAPHS_OF_FP8) if precision == "fp8" else GRAPHS[precision], pixels)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=0.01)
        np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=0.02)
    engine.close()
    assert not device.blocks


def test_a_library_that_reads_no_eight_bit_floats_says_which_does() -> None:
    with pytest.raises(NotHere, match=r"TensorRT 8.6.1 reads no eight-bit floats from ONNX, 10 is the first"):
        TensorRt(library(VERSIONS[0], NumpyDevice())).build(order("fp8"))


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_a_network_without_linear_layers_is_none_for_eight_bit_floats(version: str) -> None:
    with pytest.raises(NotHere, match=r"no graph for fp8: no linear layer"):
        TensorRt(library(version, NumpyDevice())).build(order("fp8")._replace(ranges=made_onnx()))


@pytest.mark.parametrize("version", VERSIONS)
def test_timings_are_given_to_the_next_build_and_foreign_ones_are_left(version: str) -> None:
    trt = TensorRt(library(version, NumpyDevice()))
    timing = trt.build(order()).timing
    assert timing == f"timed by {version}".encode()
    assert trt.build(order(), timing).timing == timing
    assert trt.build(order(), b"of another card").timing == timing


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_of_another_version_does_not_load(version: str) -> None:
    device = NumpyDevice()
    other = next(one for one in VERSIONS if one != version)
    plan = TensorRt(library(other, device)).build(order()).plan
    with pytest.raises(DeviceError, match=f"TensorRT {version}: a plan does not load: Serialization assertion"):
        TensorRt(library(version, device)).open(plan, "f16", device)
    with pytest.raises(DeviceError, match="a plan does not load"):
        TensorRt(library(version, device)).open(plan[:10], "f16", device)


@pytest.mark.parametrize(
    ("bucket", "embeddings_at", "says"),
    [
        (3, 768, "no profile for batches of 3 tiles; there are 2, 4"),
        (2, 769, "the address of embeddings is refused"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_plan_was_not_made_for_is_refused(version: str, bucket: int, embeddings_at: int, says: str) -> None:
    device = NumpyDevice()
    trt = TensorRt(library(version, device))
    network = trt.open(trt.build(order()).plan, "f16", device)
    with pytest.raises(DeviceError, match=says):
        network.enqueue(bucket, Addresses(256, 512, embeddings_at), device.stream())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_what_is_no_onnx_is_refused(version: str, precision: TensorRtPrecision) -> None:
    with pytest.raises(DeviceError, match=r"no ONNX graph for|not ONNX"):
        TensorRt(library(version, NumpyDevice())).build(Order(b"no graph", precision, BUCKETS, SIDE))


@pytest.mark.parametrize("version", VERSIONS)
def test_no_memory_to_build_is_told_from_other_failures(version: str) -> None:
    trt = TensorRt(library(version, NumpyDevice(), LibraryTroubles(builds=3)))
    with pytest.raises(OutOfDeviceMemory, match=r"batches of \(2, 4\) tiles in f16 cannot be built: Requested amount"):
        trt.build(order())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bucket_whose_activations_find_no_room_is_left_out(version: str) -> None:
    device = NumpyDevice(troubles=Troubles(memory=3000))
    trt = TensorRt(library(version, device))
    plan = trt.build(order()).plan
    if version.startswith("8"):  # it says only what the largest needs
        with pytest.raises(OutOfDeviceMemory, match="no room for the activations of 2 tiles"):
            trt.open(plan, "f16", device)
    else:
        assert trt.open(plan, "f16", device).buckets == (2,)


@pytest.mark.parametrize("version", VERSIONS)
def test_no_memory_while_it_runs_retires_the_bucket(release: Release, version: str) -> None:
    device = NumpyDevice()
    trt = TensorRt(library(version, device, LibraryTroubles(runs=2)))
    engine = GpuEngine(release, device, trt.open(trt.build(order()).plan, "f16", device))
    image = engine.admit(photo())
    found = engine.infer([Tile(image, 0, x) for x in range(7)])
    assert engine.batch_sizes == (2,) and np.isfinite(found.probabilities).all()


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_a_build_shows_how_far_it_is_and_stops_when_told(version: str) -> None:
    trt, seen = TensorRt(library(version, NumpyDevice())), list[tuple[str, int, int]]()

    def heed(*at: object) -> bool:
        seen.append(at)  # type: ignore[arg-type]
        return at[:2] != ("tactics", 1)

    with pytest.raises(BuildStopped, match="stopped in tactics, 1 of 2"):
        trt.build(order(), heed=heed)
    assert seen == [("parse", 0, 2), ("parse", 1, 2), ("parse", 2, 2), ("tactics", 0, 2), ("tactics", 1, 2)]


@pytest.mark.parametrize("version", VERSIONS)
def test_ctrl_c_during_a_build_comes_through(version: str) -> None:
    def heed(*_: object) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TensorRt(library(version, NumpyDevice())).build(order(), heed=heed)


@pytest.mark.skipif(driver_obstacle() is None, reason="this machine has a card")
def test_without_a_card_nothing_of_the_library_is_touched() -> None:
    with pytest.raises(DeviceError, match="NVIDIA driver"):
        TensorRt()
