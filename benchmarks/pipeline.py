"""How much of the engine's rate does the whole line keep, from photo bytes in the log to committed results?

Three figures of one run, interleaved so that a machine whose speed drifts does not decide the ratio:

- engine only: the best batch size and number of streams for the precision, fed decoded tiles straight from memory;
- the line: a worker in a process of its own on photos that lie in the log, timed from poll to last commit;
- torch fp32 of the same weights on all cores, where torch is installed (`pip install -e .[bench]`).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.environment import describe
from models.engines.autopilot import open_engine
from models.engines.openvino import OpenVinoEngine, OpenVinoOptions, Precision
from models.engines.protocol import Engine, Image, Tile
from models.release import Release
from stream.config import Config, EngineSection, LocalSection, MetricsSection
from stream.errors import Misuse
from stream.messages import HEADER_FRAME, Frame, Result, decode, encode
from stream.photo import pixels
from stream.photo.header import read_header
from stream.releases import open_release
from stream.transport import open_transport
from stream.transport.protocol import Message, Transport
from stream.worker.role import run_worker, start_engine
from stream.worker.tiling import pad, tile

CALL_TILES = 64
BATCHES = (4, 8, 16, 32)
SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure."""

    photos: Path
    release: str
    transport: str | None
    frames: int
    repeats: int
    precision: str = "auto"


@dataclass(frozen=True, kw_only=True)
class LineRun:
    """One run of the line, as its own process reports it."""

    seconds: float
    tiles: int
    frames: int
    pixels: int
    peak_rss_bytes: int
    stage_seconds: dict[str, float]
    precision: str


def run(plan: Plan) -> dict[str, Any]:
    """Measure; the object that `spanwatch bench pipeline --json` prints."""
    release = open_release(EngineSection(release=plan.release))
    chosen = open_engine(release, "auto" if plan.precision == "auto" else _precision(plan.precision))
    precision = _precision(chosen.precision)
    chosen.close()
    tiles = list(_tiles(plan.photos))
    setting, search = best_setting(release, precision, tiles)
    torch = _torch_engine(release)
    engine_rates, torch_rates, lines = [], [], []
    for _ in range(plan.repeats):
        with_engine = OpenVinoEngine(release, setting)
        engine_rates.append(rate(with_engine, tiles, 6.0))
        with_engine.close()
        lines.append(_line_in_a_child(plan))
        if torch is not None:
            torch_rates.append(rate(torch, tiles, 6.0))
    engine_rate = statistics.median(engine_rates)
    line_rates = [line.tiles / line.seconds for line in lines]
    line_rate = statistics.median(line_rates)
    middle = sorted(lines, key=lambda line: line.tiles / line.seconds)[len(lines) // 2]
    torch_rate = statistics.median(torch_rates) if torch_rates else None
    result = {
        "transport": "local" if plan.transport is None else plan.transport.partition(":")[0],
        "engine": "openvino",
        "precision": precision,
        "engine_tiles_per_second": round(engine_rate, 1),
        "line_tiles_per_second": round(line_rate, 1),
        "ratio": round(statistics.median(a / b for a, b in zip(line_rates, engine_rates, strict=True)), 4),
        "frames_per_second": round(middle.frames / middle.seconds, 3),
        "megapixels_per_second": round(middle.pixels / middle.seconds / 1e6, 2),
        "peak_rss_bytes": max(line.peak_rss_bytes for line in lines),
        "stage_seconds": middle.stage_seconds,
        "torch_f32_tiles_per_second": None if torch_rate is None else round(torch_rate, 1),
        "engine_over_torch": None if torch_rate is None else round(engine_rate / torch_rate, 3),
        "engine_setting": asdict(setting),
        "engine_search": search,
        "runs": {
            "engine": [round(one, 1) for one in engine_rates],
            "line": [round(one, 1) for one in line_rates],
            "torch": [round(one, 1) for one in torch_rates],
        },
        "frames": middle.frames,
        "release": release.id,
    }
    return {"scenario": "pipeline", "environment": describe(), "results": [result]}


def best_setting(
    release: Release, precision: Precision, tiles: Sequence[Tile]
) -> tuple[OpenVinoOptions, list[dict[str, Any]]]:
    """Try batch sizes and streams; the fastest setting, and what each gave."""
    cores = len(os.sched_getaffinity(0))
    tried: list[tuple[float, OpenVinoOptions]] = []
    for streams in sorted({1, cores}):
        for batch in BATCHES:
            sizes = tuple(size for size in (1, 4) if size < batch)
            setting = OpenVinoOptions(precision=precision, streams=streams, batch_sizes=(*sizes, batch))
            engine = OpenVinoEngine(release, setting)
            tried.append((rate(engine, tiles, 3.0), setting))
            engine.close()
            gc.collect()
    table = [{"streams": s.streams, "batch": s.batch_sizes[-1], "tiles_per_second": round(r, 1)} for r, s in tried]
    return max(tried, key=lambda pair: pair[0])[1], table


def rate(engine: Engine, tiles: Sequence[Tile], seconds: float) -> float:
    """Tiles per second of calls of 64 tiles, after one to warm up, over at least so many seconds."""
    calls = [tiles[start : start + CALL_TILES] for start in range(0, len(tiles) - CALL_TILES + 1, CALL_TILES)]
    engine.infer(calls[0])
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        for call in calls[:8]:
            engine.infer(call)
            done += len(call)
    return done / spent


def _tiles(photos: Path) -> Iterator[Tile]:
    """Decoded tiles of the largest photo there, as the engine sees them."""
    path = max(_files(photos), key=lambda path: path.stat().st_size)
    data = path.read_bytes()
    header = read_header(data, max_pixels=200_000_000)
    picture = pixels.decode(data, header, np.empty(pixels.buffer_bytes(header), np.uint8))
    image = Image(pad(picture, 256))
    tiling = tile(image.width, image.height, 256)
    for y in tiling.ys:
        for x in tiling.xs:
            yield Tile(image, int(y), int(x))


def _files(photos: Path) -> list[Path]:
    found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise Misuse(f"no photos under {photos}")
    return found


def _torch_engine(release: Release) -> Engine | None:
    try:
        from models.engines.torch import TorchEngine
    except ImportError:
        return None
    return TorchEngine(release)


def _precision(name: str) -> Precision:
    if name == "bf16":
        return "bf16"
    if name == "f32":
        return "f32"
    raise Misuse(f"the CPU engine runs f32 or bf16, not {name!r}")


# ---- the line, in a process of its own, so that its peak memory is its own


def _line_in_a_child(plan: Plan) -> LineRun:
    with tempfile.TemporaryDirectory(prefix="spanwatch-bench-") as folder:
        transport = plan.transport or f"local:{folder}/log"
        command = [sys.executable, "-m", "benchmarks.pipeline", str(plan.photos), transport, folder, str(plan.frames)]
        command += [plan.release, plan.precision]
        root = Path(__file__).parents[1]
        done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=LineRun)


async def _line(photos: Path, url: str, folder: Path, frames: int, engine: EngineSection) -> LineRun:
    config = Config(
        transport=url,
        local=LocalSection(min_free_bytes=0),
        metrics=MetricsSection(worker_port=-1, findings_port=-1),
        engine=engine,
    )
    transport = await open_transport(config)
    sent = await _fill(transport, photos, frames)
    stop = asyncio.Event()

    async def watch() -> None:
        while sum((await transport.lag(config.worker.group, "frames")).values()):
            await asyncio.sleep(0.1)
        stop.set()

    loaded = start_engine(engine)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        group.create_task(run_worker(transport, config, stop, state=folder / "state", engine=loaded))
    seconds = time.perf_counter() - began
    results = [decode(record.value, Result) async for record in transport.read("results")]
    results = [result for result in results if result.frame.frame_id in sent]
    await transport.close()
    stages = ("fetch", "decode", "queue", "infer", "total")
    return LineRun(
        seconds=seconds,
        tiles=sum(result.grid.rows * result.grid.cols for result in results),
        frames=len(results),
        pixels=sum(result.grid.width * result.grid.height for result in results),
        peak_rss_bytes=_peak_rss_bytes(),
        stage_seconds={
            stage: round(statistics.mean(getattr(result.timings, stage) for result in results), 4) for stage in stages
        },
        precision=loaded[0].precision,
    )


def _peak_rss_bytes() -> int:
    """The high-water mark of this program alone; `ru_maxrss` would inherit the parent's across the exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM in /proc/self/status")


async def _fill(transport: Transport, photos: Path, frames: int) -> set[str]:
    """Put frames into the log; a photo that comes again has other bytes behind its end, so it is another frame."""
    paths = _files(photos)
    sent: set[str] = set()
    for number in range(frames):
        data = paths[number % len(paths)].read_bytes() + number.to_bytes(4, "big")
        frame_id = sha256(data).hexdigest()
        blob = await transport.blobs.put(data)
        frame = Frame(frame_id=frame_id, asset="bench", blob=blob, size_bytes=len(data))
        header = {HEADER_FRAME: encode(frame).decode()}
        await transport.send(Message(topic="frames", key=frame_id, value=b"", headers=header))
        sent.add(frame_id)
    return sent


def main() -> None:
    """The child: one run of the line, one line of JSON."""
    parser = argparse.ArgumentParser()
    for name in ("photos", "url", "folder"):
        parser.add_argument(name)
    parser.add_argument("frames", type=int)
    parser.add_argument("release")
    parser.add_argument("precision")
    asked = parser.parse_args()
    engine = EngineSection(release=asked.release, precision=asked.precision)
    line = asyncio.run(_line(Path(asked.photos), asked.url, Path(asked.folder), asked.frames, engine))
    print(json.dumps(asdict(line)))


if __name__ == "__main__":
    main()
