"""The engine alone: its best setting on this machine, and its rate on tiles that lie decoded in memory."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from typing import Any

from models.engines.autopilot import open_engine
from models.engines.openvino import OpenVinoEngine, OpenVinoOptions, Precision
from models.engines.protocol import Engine, Tile
from models.release import Release
from stream.errors import Misuse

CALL_TILES = 64
BATCHES = (4, 8, 16, 32)
SEARCH_S = 3.0


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
            tried.append((rate(engine, tiles, SEARCH_S), setting))
            engine.close()
            gc.collect()
    table = [{"streams": s.streams, "batch": s.batch_sizes[-1], "tiles_per_second": round(r, 1)} for r, s in tried]
    return max(tried, key=lambda pair: pair[0])[1], table


def rate(engine: Engine, tiles: Sequence[Tile], seconds: float) -> float:
    """Tiles per second of calls of 64 tiles, after one to warm up, over at least so many seconds."""
    calls = [tiles[start : start + CALL_TILES] for start in range(0, len(tiles) - CALL_TILES + 1, CALL_TILES)]
    if not calls:
        raise Misuse(f"the largest photo has {len(tiles)} tiles: at least {CALL_TILES} are needed")
    engine.infer(calls[0])
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        for call in calls[:8]:
            engine.infer(call)
            done += len(call)
    return done / spent


def chosen_precision(release: Release, asked: str) -> Precision:
    """What the worker will run: the autopilot decides it for `auto`."""
    match asked:
        case "f32" | "bf16":
            return asked
        case "auto":
            engine = open_engine(release, "auto")
            chosen = engine.precision
            engine.close()
            return "bf16" if chosen == "bf16" else "f32"
    raise Misuse(f"the CPU engine runs auto, f32 or bf16, not {asked!r}")


def torch_engine(release: Release) -> Engine | None:
    """PyTorch in float32 on all cores, if it is installed."""
    try:
        from models.engines.torch import TorchEngine
    except ImportError:
        return None
    return TorchEngine(release)
