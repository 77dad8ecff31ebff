"""A plan is found under exactly the conditions it was made under, whole, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.engines.gpu.device import Card
from models.engines.gpu.plans import KEPT, PlanKey, Plans

KEY = PlanKey.of(Card("H100", (9, 0), "13.0", 80 << 30), "tensorrt 10.13", b"graph", "f16", (8, 32))
OTHERS = {
    "library": "tensorrt 10.14",
    "card": "L4",
    "capability": (8, 9),
    "driver": "12.9",
    "graph": "0" * 64,
    "precision": "int8",
    "buckets": (8,),
    "format": KEY.format + 1,
}


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    assert plans.read(KEY) is None and plans.timing(KEY) == b""
    plans.write(KEY, b"first line\nsecond line")
    plans.write_timing(KEY, b"timed")
    assert (plans.read(KEY), plans.timing(KEY)) == (b"first line\nsecond line", b"timed")


@pytest.mark.parametrize("name", OTHERS)
def test_another_condition_is_another_plan(tmp_path: Path, name: str) -> None:
    plans = Plans(tmp_path)
    plans.write(KEY, b"plan")
    other = msgspec.structs.replace(KEY, **{name: OTHERS[name]})
    assert plans.read(other) is None
    (tmp_path / "plans" / KEY.name).rename(tmp_path / "plans" / other.name)  # a file put there by hand
    assert plans.read(other) is None


def test_every_field_of_the_key_is_tried() -> None:
    assert set(OTHERS) == set(PlanKey.__struct_fields__)


@given(cut=st.integers(0, 500), change=st.integers(0, 500))
def test_a_damaged_file_is_no_plan(tmp_path_factory: pytest.TempPathFactory, cut: int, change: int) -> None:
    folder = tmp_path_factory.mktemp("plans")
    plans = Plans(folder)
    plans.write(KEY, b"plan")
    path = folder / "plans" / KEY.name
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[: cut % len(whole)])
    assert plans.read(KEY) is None
    whole[change % len(whole)] ^= 0x01
    path.write_bytes(whole)
    assert plans.read(KEY) is None


def test_timings_are_shared_by_plans_of_one_card_and_library_only(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    plans.write_timing(KEY, b"timed")
    assert plans.timing(msgspec.structs.replace(KEY, precision="int8", buckets=(4,), graph="1")) == b"timed"
    for name in ("library", "card", "capability", "driver"):
        assert plans.timing(msgspec.structs.replace(KEY, **{name: OTHERS[name]})) == b""


def test_the_plans_read_the_longest_ago_go_first(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    keys = [msgspec.structs.replace(KEY, graph=str(number)) for number in range(KEPT + 1)]
    for number, key in enumerate(keys[:KEPT]):
        plans.write(key, b"plan")
        os.utime(tmp_path / "plans" / key.name, ns=(number, number))
    assert plans.read(keys[0]) == b"plan"  # and is now the one read last
    plans.write(keys[KEPT], b"plan")
    assert [plans.read(key) is not None for key in keys] == [True, False] + [True] * (KEPT - 1)


def test_a_writer_killed_at_any_moment_leaves_the_old_plan_or_the_new_one(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    code = f"""
import sys
from pathlib import Path
from models.engines.gpu.plans import Plans
from tests.unit.models.gpu.test_plans import KEY
print(flush=True)
while True:
    for letter in (b"a", b"b"):
        Plans(Path({str(tmp_path)!r})).write(KEY, letter * 2_000_000)
"""
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[4]
        ) as one:
            assert one.stdout is not None
            one.stdout.readline()
            while (found := plans.read(KEY)) is None:
                assert one.poll() is None
            one.send_signal(signal.SIGKILL)
        found = plans.read(KEY)
        assert found in {b"a" * 2_000_000, b"b" * 2_000_000}
