"""The pure parts of the benchmarks: percentiles, spreads, arrival times, names, and the tables of the README."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import photos, processes, report
from benchmarks.environment import broker_pid, describe, hardware_name
from benchmarks.figures import arrivals, growth, percentile, spread, tail
from benchmarks.home import travels
from benchmarks.pipeline import Plan
from benchmarks.runner import Measured, interleave, measured, save
from stream.config import Config, KafkaSection, Login
from stream.errors import Misuse

ROOT = Path(__file__).parents[2]
FLIGHT = ROOT / "tests" / "data" / "flight"
numbers = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5.0], 0.99, 5.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 1.0, 4.0),
        (list(range(1, 101)), 0.95, 95),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 100)), 0.99, 99),  # of fewer than 100, the greatest
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


@given(numbers, st.floats(0.01, 1.0))
def test_at_least_the_share_of_all_values_is_at_most_the_percentile(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values) + 1e-6


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_of_nothing_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="a percentile of"):
        percentile(values, share)


def test_a_spread_keeps_its_runs_in_their_order() -> None:
    assert spread([3.0, 1.0, 2.123456], 3).runs == (3.0, 1.0, 2.123)
    assert (spread([3.0, 1.0, 2.0]).median, spread([3.0, 1.0]).low, spread([3.0, 1.0]).high) == (2.0, 1.0, 3.0)


@given(numbers)
def test_a_tail_rises(values: list[float]) -> None:
    found = tail(values)
    assert found.p50 <= found.p95 <= found.p99 <= found.highest
    assert found.frames == len(values)


@given(st.floats(0.01, 10), st.integers(1, 100), st.floats(0, 0.49), st.integers(0, 1000))
def test_arrivals_stay_near_their_ticks_and_in_order(period: float, count: int, jitter: float, seed: int) -> None:
    due = arrivals(period, count, jitter, seed)
    assert due == sorted(due) == arrivals(period, count, jitter, seed)
    assert all(abs(at - tick * period) <= jitter * period + 1e-9 for tick, at in enumerate(due))


def test_another_seed_gives_other_arrivals_and_no_jitter_none() -> None:
    assert arrivals(1.0, 20, 0.2, seed=1) != arrivals(1.0, 20, 0.2, seed=2)
    assert arrivals(0.5, 3, 0.0, seed=1) == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(("period", "jitter"), [(0.0, 0.2), (-1.0, 0.2), (1.0, 0.5), (1.0, -0.1)])
def test_arrivals_that_could_overtake_one_another_are_refused(period: float, jitter: float) -> None:
    with pytest.raises(ValueError, match="a period of"):
        arrivals(period, 3, jitter, seed=1)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([2.0] * 40, 1.0),
        ([1.0, 2.0, 3.0, 4.0], 4.0),
        ([2.0, 2.0, 99.0, 2.0, 3.0, 3.0, 3.0, 3.0, 5.0, 1.0, 5.0, 5.0], 2.5),  # an outlier in a quarter changes nothing
    ],
)
def test_growth_compares_the_last_quarter_with_the_first(samples: list[float], expected: float) -> None:
    assert growth(samples) == expected


def test_too_few_samples_have_no_growth() -> None:
    with pytest.raises(ValueError, match="no quarters"):
        growth([1.0, 2.0, 3.0])


def test_every_other_round_goes_backwards_so_that_drift_falls_on_all_alike() -> None:
    order: list[str] = []

    def contestant(name: str) -> Callable[[], Awaitable[None]]:
        async def go() -> None:
            order.append(name)

        return go

    asyncio.run(interleave(3, [contestant("a"), contestant("b"), contestant("c")]))
    assert "".join(order) == "abccbaabc"


@pytest.mark.parametrize(
    ("transport", "asked", "expected"),
    [
        ("kafka://a:1", "both", ("inline", "reference")),
        ("kafka://a:1", "inline", ("inline",)),
        ("kafka://a:1", "reference", ("reference",)),
        ("local:x", "both", ("reference",)),
        ("local:x", "reference", ("reference",)),
    ],
)
def test_photos_travel_as_the_log_can(transport: str, asked: str, expected: tuple[str, ...]) -> None:
    assert travels(transport, asked) == expected


@pytest.mark.parametrize(("transport", "asked"), [("local:x", "inline"), ("kafka://a:1", "by-mule")])
def test_another_way_to_travel_is_refused_with_those_there_are(transport: str, asked: str) -> None:
    with pytest.raises(Misuse, match="--photos-travel"):
        travels(transport, asked)


@pytest.mark.parametrize(
    ("processor", "cores", "expected"),
    [
        ("AMD EPYC", 2, "epyc-2core"),
        ("Intel(R) Xeon(R) Platinum 8480C CPU @ 2.00GHz", 16, "xeon-platinum-8480c-16core"),
        ("", 4, "4core"),
    ],
)
def test_hardware_has_a_short_name(processor: str, cores: int, expected: str) -> None:
    assert hardware_name(processor, cores) == expected


def test_a_series_repeats_the_photos_as_other_frames() -> None:
    paths = photos.find(FLIGHT, "damage-*")
    frames = list(photos.series(paths, 10)) + list(photos.series(paths, 2, first=10))
    assert len(set(frames)) == 12
    begins = Counter(next(path.name for path in paths if data.startswith(path.read_bytes())) for data in frames)
    assert set(begins.values()) == {3}


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no photos"):
        photos.find(tmp_path)


def test_a_large_photo_has_exactly_its_size_and_not_less_than_its_picture() -> None:
    assert len(photos.large(800, 600, 1_000_000)) == 1_000_000
    with pytest.raises(Misuse, match="ask for more"):
        photos.large(800, 600, 1_000)


@pytest.mark.parametrize(
    ("thread", "stage"),
    [
        ("MainThread", "loop"),
        ("decode_0", "decode"),
        ("engine-lite0vit3-256.2026-11", "engine"),
        ("log-write_0", "log"),
        ("asyncio_3", "blobs"),
        ("Thread-7", "other"),
        (None, "engine"),
    ],
)
def test_each_thread_works_for_a_stage(thread: str | None, stage: str) -> None:
    assert processes.stage_of(thread) == stage


def test_processor_time_is_counted_between_two_looks_and_for_new_threads_from_their_beginning() -> None:
    before = {1: ("loop", 2.0), 2: ("decode", 1.0)}
    after = {1: ("loop", 2.5), 3: ("decode", 0.25), 4: ("decode", 0.5)}
    assert processes.spent_by_stage(before, after) == {"loop": 0.5, "decode": 0.75}


def test_who_listens_on_a_port_of_this_machine_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert processes.listener(port) == os.getpid()
        assert broker_pid(f"kafka://127.0.0.1:{port}") == os.getpid()
        assert broker_pid(f"kafka://elsewhere.example:{port}") is None
    assert processes.listener(port) is None
    assert broker_pid("local:x") is None


def test_memory_and_time_of_this_process_are_read() -> None:
    assert 0 < processes.rss_bytes(os.getpid()) <= processes.peak_rss_bytes(os.getpid()) * 1.01
    assert processes.cpu_seconds(os.getpid()) > 0
    assert "loop" in {stage for stage, _ in processes.own_cpu_by_stage().values()}


def test_no_secret_of_the_log_gets_into_a_file() -> None:
    login = Login(username="someone", password="a-secret-word")
    base = Config(transport="kafka://a:1", kafka=KafkaSection(login=login))
    plan = Plan(base=base, photos=FLIGHT, travels=("inline",), frames=1, repeats=1)
    run = measured("pipeline", {"transport": "kafka"}, plan, [])
    assert "a-secret-word" not in str(run) and "someone" not in str(run)
    assert run.plan["kafka"]["security"] == "plaintext"
    assert run.plan["frames"] == 1 and run.plan["engine"]["release"] == "champion"


def test_a_second_run_of_a_day_gets_a_file_of_its_own(tmp_path: Path) -> None:
    run = Measured(scenario="ingest", environment=describe(f"local:{tmp_path}"), results=[])
    first, second = save(run, tmp_path), save(run, tmp_path)
    assert second.name == f"{first.stem}-2.json"
    assert [path for path, _ in report.load(tmp_path)] == sorted([first.name, second.name])
    assert first.name.startswith("ingest_") and "_local_" in first.name


def test_the_tables_of_the_readme_are_those_of_the_result_files() -> None:
    """If this fails: `spanwatch bench report`."""
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert report.with_tables(text, report.load(ROOT / "benchmarks" / "results")) == text


def test_a_text_without_the_markers_is_refused() -> None:
    with pytest.raises(Misuse, match="<!-- pipeline -->"):
        report.with_tables("nothing here", [])


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "stray.json").write_text("[1]")
    with pytest.raises(Misuse, match=r"stray\.json"):
        report.load(tmp_path)
