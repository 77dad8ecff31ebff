"""How much of the engine's rate does the whole line keep, from photo bytes in the log to committed results?

Figures of one run, interleaved so that a machine whose speed drifts does not decide the ratio:

- engine only: the best batch size and number of streams for the precision, fed decoded tiles straight from memory,
  right before and right after each run of the line, which is compared with the mean of the two;
- the line: a worker in a process of its own on photos that lie in the log, timed from joining the group to the last
  commit; on Kafka once with the photos inline and once by reference, each with the processor time of every stage;
- torch fp32 of the same weights on all cores, where torch is installed (`pip install -e .[bench]`).
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import photos
from benchmarks.child import Order, WorkerReport
from benchmarks.engine import best_setting, chosen_precision, rate, torch_engine
from benchmarks.environment import broker_pid, describe
from benchmarks.figures import Spread, spread
from benchmarks.home import Travel, home
from benchmarks.processes import cpu_seconds
from benchmarks.runner import Measured, interleave, measured, opened, worker
from models.engines.openvino import OpenVinoEngine, OpenVinoOptions
from stream.config import Config
from stream.messages import Result, decode
from stream.releases import open_release

STAGES = ("fetch", "decode", "queue", "infer", "total")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure."""

    base: Config
    photos: Path
    travels: tuple[Travel, ...]
    frames: int
    repeats: int
    search: bool = True
    """Look for the engine's best setting first (half a minute); if not, take what the autopilot takes."""
    engine_s: float = 6.0
    """How long the engine alone is measured each time."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the line."""

    worker: WorkerReport
    tiles: int
    pixels: int
    megabytes: float
    stage_seconds: dict[str, float]
    cpu_ms_per_mb: dict[str, float]
    """Processor time by megabyte of photo, by whoever spent it: the worker's stages, sender and broker."""

    @property
    def rate(self) -> float:
        return self.tiles / self.worker.seconds


@dataclass(frozen=True)
class Alone:
    """What the engines did without the line, in tiles per second, and the line's rate over the engine's, run by run."""

    engine: Sequence[float]
    torch: Sequence[float]
    ratios: Sequence[float]


class PipelineResult(msgspec.Struct, frozen=True, kw_only=True):
    """One way for photos to travel, compared with the engine alone."""

    transport: str
    engine: str = "openvino"
    precision: str
    engine_tiles_per_second: float
    line_tiles_per_second: float
    ratio: float
    frames_per_second: float
    megapixels_per_second: float
    peak_rss_bytes: int
    stage_seconds: dict[str, float]
    engine_over_torch: float | None = None
    torch_f32_tiles_per_second: float | None = None
    travel: Travel = "reference"
    line: Spread | None = None
    ratios: Spread | None = None
    engine_alone: Spread | None = None
    megabytes_per_second: float | None = None
    cpu_ms_per_mb: dict[str, float] = {}
    engine_setting: dict[str, Any] = {}
    engine_search: list[dict[str, Any]] = []
    frames: int
    release: str


async def run(plan: Plan) -> Measured:
    """Measure; three rounds of 36 frames take about three minutes on two cores, twice that for both ways to travel."""
    environment = describe(plan.base.transport)
    release = open_release(plan.base.engine)
    precision = chosen_precision(release, plan.base.engine.precision)
    tiles = photos.tiles(photos.find(plan.photos))
    setting, search = best_setting(release, precision, tiles) if plan.search else (OpenVinoOptions(precision), [])
    torch = torch_engine(release)
    torch_rates: list[float] = []
    lines: dict[Travel, list[Run]] = {travel: [] for travel in plan.travels}
    ratios: dict[Travel, list[float]] = {travel: [] for travel in plan.travels}

    def engine_alone() -> float:
        engine = OpenVinoEngine(release, setting)
        found = rate(engine, tiles, plan.engine_s)
        engine.close()
        return found

    engine_rates = [engine_alone()]

    def line(travel: Travel) -> Any:
        async def go() -> None:
            lines[travel].append(await _line(plan, travel))
            engine_rates.append(engine_alone())
            # A machine that speeds up or slows down meanwhile does it to both: the engine before and after counts.
            ratios[travel].append(lines[travel][-1].rate / statistics.mean(engine_rates[-2:]))

        return go

    async def torch_alone() -> None:
        if torch is not None:
            torch_rates.append(rate(torch, tiles, plan.engine_s))
            engine_rates.append(engine_alone())

    await interleave(plan.repeats, [*(line(travel) for travel in plan.travels), torch_alone])
    results = [
        msgspec.structs.replace(
            _result(plan, travel, lines[travel], Alone(engine_rates, torch_rates, ratios[travel])),
            release=release.id,
            precision=precision,
            engine_setting=asdict(setting),
            engine_search=search,
        )
        for travel in plan.travels
    ]
    return measured("pipeline", environment, plan, results)


def _result(plan: Plan, travel: Travel, lines: Sequence[Run], alone: Alone) -> PipelineResult:
    engine_rate = statistics.median(alone.engine)
    ratios = spread(alone.ratios)
    middle = sorted(lines, key=lambda line: line.rate)[len(lines) // 2]
    seconds = middle.worker.seconds
    torch_rate = statistics.median(alone.torch) if alone.torch else None
    rates = spread([line.rate for line in lines], 1)
    spenders = sorted({name for line in lines for name in line.cpu_ms_per_mb})
    return PipelineResult(
        transport=plan.base.transport.partition(":")[0],
        precision="",
        release="",
        travel=travel,
        engine_tiles_per_second=round(engine_rate, 1),
        line_tiles_per_second=rates.median,
        ratio=ratios.median,
        line=rates,
        ratios=ratios,
        engine_alone=spread(alone.engine, 1),
        frames_per_second=round(middle.worker.frames / seconds, 3),
        megapixels_per_second=round(middle.pixels / seconds / 1e6, 2),
        megabytes_per_second=round(middle.megabytes / seconds, 2),
        peak_rss_bytes=max(line.worker.peak_rss_bytes for line in lines),
        stage_seconds=middle.stage_seconds,
        cpu_ms_per_mb={
            name: round(statistics.median(line.cpu_ms_per_mb.get(name, 0.0) for line in lines), 2) for name in spenders
        },
        torch_f32_tiles_per_second=None if torch_rate is None else round(torch_rate, 1),
        engine_over_torch=None if torch_rate is None else round(engine_rate / torch_rate, 3),
        frames=middle.worker.frames,
    )


async def _line(plan: Plan, travel: Travel) -> Run:
    """Fill a fresh log, let a worker empty it, read what it has written."""
    broker = broker_pid(plan.base.transport)
    async with home(plan.base, travel) as config:
        looks = [_cpu(broker)]
        megabytes = 0.0
        async with opened(config) as transport:
            for data in photos.series(photos.find(plan.photos), plan.frames):
                await photos.send(transport, data)
                megabytes += len(data) / 1e6
        looks.append(_cpu(broker))
        async with worker(Order(config=config, frames=plan.frames)) as child:
            report = await child.report()
        looks.append(_cpu(broker))
        async with opened(config) as transport:
            results = [decode(record.value, Result) async for record in transport.read("results")]
    names = ("sender", "broker")
    spent = {f"{name}, filling": looks[1][name] - looks[0][name] for name in names}
    spent["broker"] = looks[2]["broker"] - looks[1]["broker"]
    spent |= {f"worker, {stage}": seconds for stage, seconds in report.cpu_seconds.items()}
    if broker is None:
        spent = {name: seconds for name, seconds in spent.items() if not name.startswith("broker")}
    return Run(
        worker=report,
        tiles=sum(result.grid.rows * result.grid.cols for result in results),
        pixels=sum(result.grid.width * result.grid.height for result in results),
        megabytes=megabytes,
        stage_seconds={
            stage: round(statistics.mean(getattr(result.timings, stage) for result in results), 4) for stage in STAGES
        },
        cpu_ms_per_mb={name: round(seconds * 1000 / megabytes, 2) for name, seconds in spent.items()},
    )


def _cpu(broker: int | None) -> dict[str, float]:
    return {"sender": cpu_seconds(os.getpid()), "broker": cpu_seconds(broker) if broker is not None else 0.0}
