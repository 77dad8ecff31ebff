"""Each benchmark in a run as small as it gets: the figures are there, belong together, and can be saved and shown."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from benchmarks import ingest, latency, memory, pipeline, report
from benchmarks.figures import arrivals
from benchmarks.home import Travel
from benchmarks.ingest import IngestResult
from benchmarks.latency import LatencyResult
from benchmarks.memory import MemoryResult
from benchmarks.pipeline import PipelineResult
from benchmarks.runner import opened, save
from stream.config import Config, LocalSection, WorkerSection
from stream.errors import Broken
from stream.messages import HEADER_FRAME, Frame, Grid, Result, decode, encode
from stream.testing import Fault, Faulty
from stream.transport.protocol import Message, Transport
from stream.uploader import Flight, Outbox, Uploader
from tests.kafka.broker import Broker

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FLIGHT = ROOT / "tests" / "data" / "flight"
BOTH: tuple[Travel, ...] = ("inline", "reference")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `spanwatch bench` as a person would, with none of the variables of this test run."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPANWATCH_")}
    words = (sys.executable, "-m", "stream", "bench", *words)
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT, env=clean, timeout=120)


def test_the_pipeline_on_kafka_compares_both_ways_for_photos_to_travel(broker: Broker, tmp_path: Path) -> None:
    card = tmp_path / "card"
    card.mkdir()
    for name in ("DJI_0025.JPG", "damage-10388.jpg"):
        (card / name).symlink_to(FLIGHT / name)
    base = Config(transport=broker.url)
    plan = pipeline.Plan(base=base, photos=card, travels=BOTH, frames=2, repeats=1, search=False, engine_s=0.2)
    run = asyncio.run(pipeline.run(plan))
    results = [msgspec.convert(result, PipelineResult) for result in run.results]
    assert [one.travel for one in results] == list(BOTH)
    for one in results:
        assert one.frames == 2
        assert one.line is not None and one.line.runs == (one.line_tiles_per_second,)
        # Each run is compared with the engine right before and right after it, so with something between its extremes.
        assert one.engine_alone is not None and len(one.engine_alone.runs) == len(BOTH) + 1
        slowest, fastest = one.engine_alone.low, one.engine_alone.high
        assert one.line_tiles_per_second / fastest - 0.01 < one.ratio < one.line_tiles_per_second / slowest + 0.01
        stages = {name: spent for name, spent in one.cpu_ms_per_mb.items() if name.startswith("worker, ")}
        whole = stages.pop("worker, all")
        assert 0 < stages["worker, engine"] <= sum(stages.values()) <= whole + 20  # clock ticks of 10 ms, rounded up
    path = save(run, tmp_path / "results")
    assert "_kafka_" in path.name
    shown = report.with_tables(
        "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in report.TABLES), [(path.name, run)]
    )
    assert shown.count(f"| `{path.name}` |") >= 2 + len(stages)


def test_ingest_accounts_for_all_of_its_time(broker: Broker) -> None:
    plan = ingest.Plan(base=Config(transport=broker.url), photos=FLIGHT, travels=BOTH, frames=4, repeats=2)
    inline, reference = (msgspec.convert(result, IngestResult) for result in asyncio.run(ingest.run(plan)).results)
    assert inline.stage_seconds["blob"] == 0.0 < reference.stage_seconds["blob"]
    for one in (inline, reference):
        # Stages are the median run's, which with two runs is one of them.
        totals = {round(1 / rate, 3) for rate in one.photos_per_second.runs}
        assert any(abs(sum(one.stage_seconds.values()) - total) < 0.005 for total in totals)
        assert min(one.stage_seconds.values()) >= 0.0
        assert one.cpu_ms_per_mb["uploader"] >= 0.0


def test_latency_counts_from_the_time_a_photo_was_due(tmp_path: Path) -> None:
    plan = latency.Plan(
        base=Config(transport=f"local:{tmp_path}"),
        photos=FLIGHT,
        only="damage-*",
        travels=("reference",),
        loads=(0.3, 0.6),
        seconds=0.5,
        repeats=2,
        unloaded=2,
        burst=4,
    )
    (result,) = (msgspec.convert(one, LatencyResult) for one in asyncio.run(latency.run(plan)).results)
    assert result.capacity_frames_per_second > 0 and result.peak_rss_bytes > 50_000_000
    assert result.precision in {"f32", "bf16", "int8"}
    assert result.unloaded.frames == 4
    for load, share in zip(result.loads, plan.loads, strict=True):
        assert load.frames_per_second == pytest.approx(share * result.capacity_frames_per_second, abs=0.002)
        assert load.latency.frames == load.late.frames
        assert abs(load.latency.frames - 2 * max(1.0, load.frames_per_second * plan.seconds)) <= 1.1  # whole frames
        assert 0 < load.latency.p50 and load.late.p50 >= 0
        assert len(load.medians.runs) == 2
    assert list(tmp_path.iterdir()) == []


class Pause(asyncio.Event):
    """Lets nobody through for a while."""

    async def wait(self) -> Literal[True]:
        await asyncio.sleep(0.6)
        return True


async def answer_all(transport: Transport) -> None:
    """A worker with nothing to do: every frame has its result at once."""
    grid = Grid(tile_px=256, overlap_px=0, rows=1, cols=1, width=256, height=256)
    async for record in transport.read("frames", follow=True):
        frame = decode(record.headers[HEADER_FRAME], Frame)
        result = Result(
            result_id=record.key,
            frame=frame,
            grid=grid,
            classes=(),
            scores=(),
            regions=(),
            inspectable=1.0,
            release="none",
            precision="f32",
        )
        await transport.send(Message(topic="results", key="bench", value=encode(result)))


def test_a_sender_that_is_held_up_is_late_and_its_photos_count_from_when_they_were_due(tmp_path: Path) -> None:
    """What coordinated omission would hide: one stalled send, and all that were due meanwhile have waited for it."""

    async def main() -> tuple[list[float], list[float]]:
        async with opened(Config(transport=f"local:{tmp_path}/log", local=LocalSection(min_free_bytes=0))) as transport:
            stalled = Faulty(transport, [Fault(on="send", at=1, how="stall", until=Pause())])
            with Outbox(tmp_path / "outbox.sqlite") as outbox:
                uploader = Uploader(stalled, outbox, Flight(asset="bench"))
                line = latency.Line(uploader, tmp_path / "card", [FLIGHT / "damage-10484.jpg"])
                others = [asyncio.create_task(line.follow(transport)), asyncio.create_task(answer_all(transport))]
                try:
                    async with asyncio.timeout(120):
                        return await line.open_loop(rate=20.0, seconds=0.5, seed=3)
                finally:
                    for task in others:
                        task.cancel()
                    await asyncio.wait(others)

    took, late = asyncio.run(main())
    due = arrivals(1 / 20, 10, latency.JITTER, seed=3)
    assert len(took) == len(late) == 10
    assert all(seconds >= 0.6 - (at - due[0]) for seconds, at in zip(took, due, strict=True))
    assert all(seconds >= 0.6 - (at - due[0]) for seconds, at in zip(late[1:], due[1:], strict=True))


def test_memory_is_looked_at_from_the_first_frame_to_the_last(tmp_path: Path) -> None:
    plan = memory.Plan(
        base=Config(transport=f"local:{tmp_path}"),
        photos=FLIGHT,
        only="damage-*",
        travels=("reference",),
        large=2,
        large_px=(1024, 768),
        large_bytes=2_000_000,
        many=40,
    )
    (result,) = (msgspec.convert(one, MemoryResult) for one in asyncio.run(memory.run(plan)).results)
    assert (result.large_frames, result.large_megabytes, result.many_frames) == (2, 2.0, 40)
    assert min(result.large_peak_rss_bytes, result.many_peak_rss_bytes) > 30_000_000
    assert 0.5 < result.many_growth < 2.0
    # Linux counts the current figure and its high-water mark apart, each to within some pages.
    assert 30_000_000 < min(result.many_rss_bytes) <= max(result.many_rss_bytes) <= result.many_peak_rss_bytes * 1.02


def test_what_cannot_be_measured_is_told_in_a_sentence(tmp_path: Path) -> None:
    done = command("pipeline", "--precision", "f64", "--no-search", "--transport", f"local:{tmp_path}")
    assert done.returncode == 2
    assert "bf16 or int8, not 'f64'" in done.stderr and "Traceback" not in done.stderr


def test_a_worker_that_falls_ends_the_run_and_leaves_nothing_behind(tmp_path: Path) -> None:
    base = Config(transport=f"local:{tmp_path}", worker=WorkerSection(batch_tiles=0))
    plan = memory.Plan(
        base=base,
        photos=FLIGHT,
        only="damage-*",
        travels=("reference",),
        large=1,
        large_px=(512, 512),
        large_bytes=1_000_000,
    )
    with pytest.raises(Broken, match="ended with exit code 1"):
        asyncio.run(memory.run(plan))
    assert list(tmp_path.iterdir()) == []


def test_the_command_saves_its_run_and_reports_it(tmp_path: Path) -> None:
    results, readme = tmp_path / "results", tmp_path / "README.md"
    readme.write_text("".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in report.TABLES))
    options = ("--photos", str(FLIGHT), "--frames", "2", "--repeats", "1", "--transport", f"local:{tmp_path}/log")
    done = command("ingest", *options, "--save", str(results), "--json")
    assert done.returncode == 0, done.stderr
    (path,) = results.iterdir()
    assert json.loads(done.stdout) == json.loads(path.read_bytes())
    assert command("report", "--results", str(results), "--readme", str(readme)).returncode == 0
    assert f"| `{path.name}` | local, reference |" in readme.read_text()
