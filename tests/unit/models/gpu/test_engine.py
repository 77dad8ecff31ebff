"""The GPU engine gives every tile its own scores, whatever order the card's streams run in, and leaks nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.engines.gpu.device import DeviceLost, OutOfDeviceMemory
from models.engines.gpu.numpy_device import NumpyDevice, Troubles
from models.engines.protocol import EngineError, Tile
from models.release import Release
from tests.unit.models.gpu.made_engine import MeansNetwork, made_engine, made_release, scripted
from tests.unit.models.made_releases import SIDE


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return made_release(tmp_path_factory.mktemp("site"))


def photo(seed: int, height: int = 40, width: int = 51) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), calls=st.lists(st.integers(0, 40), min_size=1, max_size=5), graphs=st.booleans())
def test_every_tile_has_its_own_scores_in_any_order_of_the_streams(
    release: Release, seed: int, calls: list[int], graphs: bool
) -> None:
    device = NumpyDevice(seed)
    engine = made_engine(release, device, graphs=graphs)
    random = np.random.default_rng(seed)
    photos = [photo(number) for number in range(3)]
    images = [engine.admit(one) for one in photos]
    for count in calls:
        places = [(int(random.integers(3)), int(random.integers(33)), int(random.integers(44))) for _ in range(count)]
        found = engine.infer([Tile(images[number], y, x) for number, y, x in places])
        pixels = np.array([photos[number][y : y + SIDE, x : x + SIDE] for number, y, x in places], np.uint8)
        expected = scripted(pixels.reshape(-1, SIDE, SIDE, 3))
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)
        np.testing.assert_array_equal(found.embeddings, expected.embeddings)
    for image in images:
        engine.evict(image)
        engine.evict(image)
    engine.close()
    assert not device.blocks


def test_a_photo_larger_than_the_stages_goes_up_whole(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.engines.gpu.photos.STAGE_BYTES", 1000)
    device = NumpyDevice(seed=5)
    engine = made_engine(release, device)
    pixels = photo(1, 60, 70)
    image = engine.admit(pixels)
    found = engine.infer([Tile(image, 56, 66), Tile(image, 0, 0)])
    expected = scripted(np.stack([pixels[56:, 66:], pixels[:4, :4]]))
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_the_place_of_an_evicted_photo_is_used_again(release: Release) -> None:
    device = NumpyDevice()
    engine = made_engine(release, device)
    for number in range(20):
        image = engine.admit(photo(number))
        engine.infer([Tile(image, 0, 0)])
        engine.evict(image)
        if number == 0:
            held = set(device.blocks)
    assert set(device.blocks) == held


def test_places_of_other_sizes_make_room_when_the_card_is_full(release: Release) -> None:
    device = NumpyDevice(troubles=Troubles(memory=60_000))
    engine = made_engine(release, device)
    for side in range(90, 110):  # 24 to 36 kB: two of them do not fit beside each other
        image = engine.admit(photo(side, side, side))
        engine.infer([Tile(image, 0, 0)])
        engine.evict(image)


def test_a_photo_too_many_is_refused_and_the_others_stay(release: Release) -> None:
    device = NumpyDevice(troubles=Troubles(memory=60_000))
    engine = made_engine(release, device)
    image = engine.admit(photo(1, 100, 100))
    with pytest.raises(
        OutOfDeviceMemory, match="no room for a photo of 0 MB beside 1 others on numpy: let fewer bytes"
    ):
        engine.admit(photo(2, 100, 100))
    assert np.isfinite(engine.infer([Tile(image, 3, 3)]).probabilities).all()


def test_a_bucket_without_memory_is_given_up_for_smaller_ones(release: Release) -> None:
    device = NumpyDevice()
    network = MeansNetwork(device, fits=5)
    engine = made_engine(release, device, network)
    image = engine.admit(photo(1))
    found = engine.infer([Tile(image, y, 0) for y in range(16)])
    assert engine.batch_sizes == (2, 5) and max(network.enqueued) == 5
    expected = scripted(np.stack([photo(1)[y : y + SIDE, :SIDE] for y in range(16)]))
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_buckets_that_have_no_room_at_the_start_are_left_out(release: Release) -> None:
    device = NumpyDevice(troubles=Troubles(memory=1500))
    engine = made_engine(release, device, MeansNetwork(device, buckets=(1, 2, 80)))
    assert engine.batch_sizes == (1, 2)
    image = engine.admit(photo(1, SIDE, SIDE))
    found = engine.infer([Tile(image, 0, 0)] * 3)
    np.testing.assert_array_equal(found.probabilities, scripted(np.stack([photo(1, SIDE, SIDE)] * 3)).probabilities)
    engine.close()
    assert not device.blocks


def test_without_room_for_the_smallest_bucket_at_the_start_it_holds_nothing(release: Release) -> None:
    device = NumpyDevice(troubles=Troubles(memory=300))
    with pytest.raises(OutOfDeviceMemory, match="no room for batches of 2 tiles beside what else uses numpy"):
        made_engine(release, device)
    assert not device.blocks and device.pinned_blocks == 0


def test_where_nothing_can_be_captured_every_batch_is_enqueued(release: Release) -> None:
    device = NumpyDevice(troubles=Troubles(captures=False))
    network = MeansNetwork(device, buckets=(4,))
    engine = made_engine(release, device, network)
    image = engine.admit(photo(1))
    for _ in range(10):
        found = engine.infer([Tile(image, 0, 0)] * 4)
    assert len(network.enqueued) == 10
    np.testing.assert_array_equal(found.probabilities, scripted(np.stack([photo(1)[:SIDE, :SIDE]] * 4)).probabilities)


def test_without_memory_for_the_smallest_bucket_it_says_what_to_do(release: Release) -> None:
    device = NumpyDevice()
    engine = made_engine(release, device, MeansNetwork(device, fits=1))
    image = engine.admit(photo(1))
    with pytest.raises(OutOfDeviceMemory, match="not even 2 tiles fit into what is free on numpy: end what else uses"):
        engine.infer([Tile(image, 0, 0)])


@pytest.mark.parametrize("graphs", [False, True])
def test_a_lost_card_is_lost_for_every_later_call(release: Release, graphs: bool) -> None:
    device = NumpyDevice(troubles=Troubles(lost_at=40))
    engine = made_engine(release, device, graphs=graphs)
    image = engine.admit(photo(1))
    with pytest.raises(DeviceLost, match="illegal memory access"):
        for _ in range(20):
            engine.infer([Tile(image, 0, 0)] * 9)
    with pytest.raises(DeviceLost):
        engine.infer([Tile(image, 0, 0)])
    engine.close()


def test_a_bad_tile_fails_its_call_and_not_the_next_one(release: Release) -> None:
    engine = made_engine(release, NumpyDevice())
    image = engine.admit(photo(1))
    with pytest.raises(EngineError, match="not inside its image of 51x40"):
        engine.infer([Tile(image, 0, 0)] * 20 + [Tile(image, 37, 0)])
    found = engine.infer([Tile(image, 0, 0)])
    np.testing.assert_array_equal(found.probabilities, scripted(photo(1)[None, :SIDE, :SIDE]).probabilities)


def test_an_evicted_photo_and_one_of_another_engine_are_refused(release: Release) -> None:
    engine, other = made_engine(release, NumpyDevice()), made_engine(release, NumpyDevice())
    image, foreign = engine.admit(photo(1)), other.admit(photo(1))
    engine.evict(image)
    for one in (image, foreign):
        with pytest.raises(EngineError, match="not on this card: admitted by another engine, or evicted"):
            engine.infer([Tile(one, 0, 0)])


def test_a_closed_engine_says_so_and_has_closed_its_network(release: Release) -> None:
    device = NumpyDevice()
    network = MeansNetwork(device)
    engine = made_engine(release, device, network)
    engine.admit(photo(1))
    engine.close()
    engine.close()
    assert network.closed and not device.blocks
    with pytest.raises(EngineError, match="closed"):
        engine.infer([])


def test_later_batches_are_replayed_and_not_enqueued_again(release: Release) -> None:
    device = NumpyDevice()
    network = MeansNetwork(device, buckets=(4,))
    engine = made_engine(release, device, network)
    image = engine.admit(photo(1))
    for _ in range(10):
        engine.infer([Tile(image, 0, 0)] * 4)
    assert len(network.enqueued) == 1 + 3  # once to warm up, once captured for each slot


def test_what_was_begun_before_it_closed_is_there_afterwards(release: Release) -> None:
    device = NumpyDevice(seed=9)
    engine = made_engine(release, device)
    image = engine.admit(photo(1))
    pending = engine.start([Tile(image, y, 3) for y in range(11)])
    assert not pending.done
    engine.close()
    assert pending.done and not device.blocks
    expected = scripted(np.stack([photo(1)[y : y + SIDE, 3 : 3 + SIDE] for y in range(11)]))
    np.testing.assert_array_equal(pending.wait().probabilities, expected.probabilities)


def test_two_calls_on_their_way_are_waited_for_in_any_order(release: Release) -> None:
    device = NumpyDevice(seed=10)
    engine = made_engine(release, device)
    image = engine.admit(photo(1))
    calls = [engine.start([Tile(image, y, x) for y in range(6)]) for x in range(3)]
    for x, call in reversed(list(enumerate(calls))):
        expected = scripted(np.stack([photo(1)[y : y + SIDE, x : x + SIDE] for y in range(6)]))
        np.testing.assert_array_equal(call.wait().probabilities, expected.probabilities)
