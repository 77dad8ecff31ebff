"""On a machine with a card the autopilot takes what decides right there, and refuses what does not before it serves."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from models.engines.autopilot import Pace, build, choose, open_engine
from models.engines.candidates import Backend, Conditions, candidates
from models.engines.choices import FILE, read_choice, this_machine
from models.engines.gpu.device import DeviceLost
from models.engines.gpu.driver import driver_obstacle
from models.engines.gpu.numpy_device import NumpyDevice, Troubles
from models.engines.gpu.numpy_seat import NumpySeat
from models.engines.gpu.opening import OnCard, TensorRtEngine
from models.engines.gpu.watch import BuildStopped
from models.engines.protocol import EngineError
from models.engines.tensorrt import TensorRt
from models.release import Release
from tests.unit.models.gpu.fake_tensorrt import VERSIONS, LibraryTroubles, library
from tests.unit.models.gpu.made_network import made_release

FAST = Pace(rounds=1, seconds=0.0)
WRONG = 0.3
"""Added to every probability: another network's scores."""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return made_release(tmp_path_factory.mktemp("site"))


def with_card(
    folder: Path,
    version: str = VERSIONS[1],
    backend: Backend | None = "tensorrt",
    lost_at: int | None = None,
    **off: float,
) -> Conditions:
    device = NumpyDevice(seed=1, troubles=Troubles(lost_at=lost_at))
    card = OnCard(TensorRt(library(version, device, LibraryTroubles(off=off))), lambda: NumpySeat(device))
    return Conditions(threads=1, backend=backend, folder=folder, card=card)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_precision_of_the_card_is_measured_and_one_of_them_serves(
    release: Release, tmp_path: Path, version: str
) -> None:
    under = with_card(tmp_path, version)
    choice = build(release, under, FAST)
    tried = {one.precision: one for one in choice.trials}
    # Three bits of a fraction are too few for a single random layer, and 8.6 does not know the type.
    why = "TensorRT 8.6.1 reads no eight-bit floats" if version.startswith("8") else "scores are off by 0.0119"
    assert why in tried.pop("fp8").why_not
    assert {(one.engine, one.precision): one.passed for one in tried.values()} == {
        ("tensorrt", "int8"): True,
        ("tensorrt", "f16"): True,
        ("tensorrt", "f32"): True,
    }
    assert choice.machine.card == f"numpy, driver none, TensorRT {version}"
    engine = open_engine(release, "auto", under)
    assert isinstance(engine, TensorRtEngine) and engine.precision == choice.precision
    engine.close()


def test_a_precision_whose_scores_are_off_is_refused_and_the_next_one_serves(release: Release, tmp_path: Path) -> None:
    under = with_card(tmp_path, int8=WRONG, f16=float("nan"))
    choice = build(release, under, FAST)
    assert choice.precision == "f32"
    assert "int8 with" in choice.why and "scores are off by 0.2999 on average" in choice.why
    assert "tensorrt f16" in choice.why and "nan" in choice.why
    with pytest.raises(EngineError, match=r"tensorrt int8: probabilities differ from the reference by 0.2999"):
        open_engine(release, "int8", under)


def test_where_nothing_on_the_card_decides_right_it_says_why(release: Release, tmp_path: Path) -> None:
    under = with_card(tmp_path, fp8=WRONG, int8=WRONG, f16=WRONG, f32=WRONG)
    with pytest.raises(EngineError, match=r"nothing passes the gate on this machine .*tensorrt fp8: scores are off"):
        choose(release, under)
    assert read_choice(tmp_path, this_machine(release, under)) is None


def test_what_was_chosen_and_lies_today_is_measured_again(
    release: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = build(release, with_card(tmp_path), FAST).precision
    others = with_card(tmp_path, **{first: WRONG})
    engine = open_engine(release, "auto", others)
    assert engine.precision != first and "measuring again" in caplog.text
    engine.close()


def test_another_driver_or_library_is_another_measurement(release: Release, tmp_path: Path) -> None:
    build(release, with_card(tmp_path, VERSIONS[1]), FAST)
    assert read_choice(tmp_path, this_machine(release, with_card(tmp_path, VERSIONS[2]))) is None


def test_a_build_that_is_stopped_ends_the_measurement_and_leaves_nothing(release: Release, tmp_path: Path) -> None:
    under = replace(with_card(tmp_path), heed=lambda phase, done, steps: phase != "tactics")
    with pytest.raises(BuildStopped):
        build(release, under, FAST)
    assert not list(tmp_path.rglob("*.plan")) and not (tmp_path / FILE).exists()


def test_a_card_lost_while_it_is_measured_ends_the_measurement(release: Release, tmp_path: Path) -> None:
    with pytest.raises(DeviceLost):
        build(release, with_card(tmp_path, lost_at=30), FAST)


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_with_a_card_both_kinds_of_engines_are_candidates_the_cards_first(release: Release, tmp_path: Path) -> None:
    found = [one.name for one in candidates(release, with_card(tmp_path, backend=None))]
    assert found[:4] == ["tensorrt fp8", "tensorrt int8", "tensorrt f16", "tensorrt f32"]
    assert found[4:] == ["openvino f32", "openvino bf16", "openvino int8"]


@pytest.mark.skipif(driver_obstacle() is None, reason="this machine has a card")
def test_a_card_that_is_asked_for_and_not_there_is_named(release: Release, tmp_path: Path) -> None:
    under = Conditions(backend="tensorrt", folder=tmp_path)
    with pytest.raises(EngineError, match=r"small.1 in f16: tensorrt: (no|the) NVIDIA driver"):
        open_engine(release, "f16", under)
    with pytest.raises(EngineError, match=r"nothing passes the gate .*tensorrt fp8: (no|the) NVIDIA driver"):
        open_engine(release, "auto", under)
