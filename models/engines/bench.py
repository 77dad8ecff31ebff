"""Every engine and precision of a release beside each other: what the gate says of it, and its tiles per second."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import msgspec

from models.engines.candidates import Conditions, candidates
from models.engines.gate import Evidence, Judged, judge
from models.engines.onnxruntime import OnnxRuntimeEngine
from models.engines.openvino import PRECISIONS, OpenVinoEngine, OpenVinoOptions, Precision
from models.engines.processor import cores, cpu_model
from models.engines.protocol import Engine, EngineError
from models.engines.trial import evidence, median, rates, score_tiles
from models.release import Release

PACKAGES = ("openvino", "onnxruntime", "torch", "numpy")


class Checked(Judged, frozen=True, kw_only=True):
    """One engine in one precision against the float32 reference."""

    engine: str
    precision: str


class EngineResult(msgspec.Struct, frozen=True, kw_only=True):
    """The speed of one engine in one precision with requests of `batch` tiles.

    `megapixels_per_second` of tiles, `over_f32` the median of the rounds' own ratios to OpenVINO in float32 with the
    same batch, `rounds` tiles per second of each round, `passed` the gate's word.
    """

    engine: str
    precision: str
    batch: int
    cores: int
    tiles_per_second: float
    megapixels_per_second: float
    over_f32: float | None
    rounds: tuple[float, ...]
    passed: bool
    why_not: str = ""


@dataclass(frozen=True)
class Plan:
    """What to measure: `only` engines whose `name precision` holds these words, in requests of `batches` tiles."""

    threads: int | None = None
    batches: tuple[int, ...] = (1, 4, 16)
    seconds: float = 1.0
    rounds: int = 5
    only: str = ""


@dataclass(frozen=True)
class Contestant:
    """A way to run a release, and how to open it; `batch` is how many tiles a request of it holds, 0 is as it likes."""

    engine: str
    precision: str
    open: Callable[[], Engine]
    batch: int


def contestants(release: Release, threads: int | None, batches: Sequence[int]) -> Iterator[Contestant]:
    """OpenVINO in every precision and batch; ONNX Runtime and PyTorch as they are: each where it is installed."""

    def openvino(precision: Precision, batch: int) -> Callable[[], Engine]:
        options = OpenVinoOptions(precision=precision, streams=threads, batch_sizes=tuple(sorted({1, batch})))
        return lambda: OpenVinoEngine(release, options)

    for precision in PRECISIONS if find_spec("openvino") else ():
        for batch in batches:
            yield Contestant("openvino", precision, openvino(precision, batch), batch)
    if find_spec("onnxruntime"):
        yield Contestant("onnxruntime", "f32", lambda: OnnxRuntimeEngine(release, "f32", threads), 4)
        yield Contestant("onnxruntime", "int8", lambda: OnnxRuntimeEngine(release, "int8", threads), 4)
    if find_spec("torch") and find_spec("timm"):
        yield Contestant("torch", "f32", lambda: _torch(release, threads), 16)


def check(release: Release, under: Conditions) -> list[Checked]:
    """What the gate says of every engine and precision that there is, the card's first."""
    seen = evidence(release)
    on_card = [Contestant(*one, batch=0) for one in candidates(release, under) if one.engine == "tensorrt"]
    return [_checked(one, release, seen) for one in (*on_card, *contestants(release, under.threads, (4,)))]


def bench(release: Release, plan: Plan) -> list[EngineResult]:
    """Interleaved rounds of every contestant that opens; raises EngineError if none does."""
    chosen = [one for one in contestants(release, plan.threads, plan.batches) if plan.only in _name(one)]
    seen, verdicts = evidence(release), dict[str, Checked]()
    for one in chosen:
        if _name(one) not in verdicts:
            verdicts[_name(one)] = _checked(one, release, seen)
    running = [one for one in chosen if not verdicts[_name(one)].failed]
    if not running:
        raise EngineError(f"{release.id}: nothing to measure ({'; '.join(one.failed for one in verdicts.values())})")
    engines = {f"{_name(one)} {one.batch}": one.open() for one in running}
    measured = rates(engines, plan.seconds, plan.rounds)
    for engine in engines.values():
        engine.close()
    return [_result(one, measured, verdicts[_name(one)], release.tile_size, plan.threads or cores()) for one in running]


def environment() -> dict[str, Any]:
    """What a figure means nothing without: processor, cores, load, versions."""
    return {
        "processor": cpu_model(),
        "cores": cores(),
        "load_1m": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _result(
    one: Contestant, measured: dict[str, tuple[float, ...]], verdict: Checked, tile_size: int, used: int
) -> EngineResult:
    found = measured[f"{_name(one)} {one.batch}"]
    base = measured.get(f"openvino f32 {one.batch}")
    speed = median(found)
    return EngineResult(
        engine=one.engine,
        precision=one.precision,
        batch=one.batch,
        cores=used,
        tiles_per_second=speed,
        megapixels_per_second=round(speed * tile_size**2 / 1e6, 2),
        over_f32=None if base is None else median([a / b for a, b in zip(found, base, strict=True)], 2),
        rounds=tuple(round(value, 1) for value in found),
        passed=verdict.passed,
        why_not=verdict.why_not,
    )


def _checked(one: Contestant, release: Release, seen: Evidence) -> Checked:
    """A contestant that fails is a row with its reason; the others are measured all the same."""
    try:
        engine = one.open()
        found = score_tiles(engine, seen.tiles).probabilities
        engine.close()
    except EngineError as error:
        return Checked(engine=one.engine, precision=one.precision, failed=str(error))
    verdict = judge(found, seen, release.classes, one.precision)
    return Checked(engine=one.engine, precision=one.precision, verdict=verdict)


def _name(one: Contestant) -> str:
    return f"{one.engine} {one.precision}"


def _torch(release: Release, threads: int | None) -> Engine:
    from models.engines.torch import TorchEngine

    return TorchEngine(release, threads)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
