"""The engine alone: its best setting on this machine, and its rate on tiles that lie decoded in memory."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

from models.engines import trial
from models.engines.autopilot import choose
from models.engines.candidates import Conditions
from models.engines.openvino import OpenVinoEngine, OpenVinoOptions, Precision
from models.engines.processor import cores
from models.engines.protocol import Engine, EngineError, Tile
from models.release import Release
from stream.errors import Broken, Misuse

BATCHES = (4, 8, 16, 32)
SEARCH_S = 3.0


def best_setting(
    release: Release, precision: Precision, tiles: Sequence[Tile]
) -> tuple[OpenVinoOptions, list[dict[str, Any]]]:
    """Try batch sizes and streams; the fastest setting, and what each gave."""
    tried: list[tuple[float, OpenVinoOptions]] = []
    for streams in sorted({1, cores()}):
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
    """Tiles per second over at least so many seconds, after a call to warm up."""
    try:
        trial.rate(engine, tiles, 0.0)
        return trial.rate(engine, tiles, seconds)
    except ValueError as error:
        raise Misuse(f"the largest photo does not do: {error}") from error


def chosen_precision(release: Release, asked: str) -> Precision:
    """What the worker will run: the autopilot decides it for `auto`."""
    match asked:
        case "f32" | "bf16" | "int8":
            return asked
        case "auto":
            try:
                return chosen_precision(release, choose(release, Conditions(backend="openvino")).precision)
            except EngineError as error:
                raise Broken(str(error)) from error
    raise Misuse(f"the CPU engine runs auto, f32, bf16 or int8, not {asked!r}")


def torch_engine(release: Release) -> Engine | None:
    """PyTorch in float32 on all cores, if it is installed."""
    try:
        from models.engines.torch import TorchEngine
    except ImportError:
        return None
    return TorchEngine(release)
