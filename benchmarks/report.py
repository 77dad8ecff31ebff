"""Writes the tables of README.md from the result files, between markers, so that no figure is typed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from benchmarks.card import GpuResult
from benchmarks.figures import Spread, Tail
from benchmarks.ingest import IngestResult
from benchmarks.latency import LatencyResult
from benchmarks.memory import MemoryResult
from benchmarks.pipeline import PipelineResult
from benchmarks.runner import Measured
from models.engines.bench import EngineResult
from stream.errors import Misuse

T = TypeVar("T")
Row = Sequence[str]
Runs = Sequence[tuple[str, Measured]]
"""File name and content."""
WHILE_RUNNING = "worker and broker together"


def rewrite(readme: Path, results: Path) -> int:
    """Write every table anew; how many result files there were.

    Raises:
        Misuse: a file is not of `spanwatch bench --save`, or a marker is missing.
    """
    runs = load(results)
    text = readme.read_text(encoding="utf-8")
    readme.write_text(with_tables(text, runs), encoding="utf-8")
    return len(runs)


def load(results: Path) -> Runs:
    """The result files of a folder, by name.

    Raises:
        Misuse: one of them is something else.
    """
    runs = []
    for path in sorted(results.glob("*.json")):
        try:
            runs.append((path.name, msgspec.json.decode(path.read_bytes(), type=Measured)))
        except msgspec.DecodeError as error:
            raise Misuse(f"{path} is not a file of `spanwatch bench --save`: {error}") from error
    return runs


def with_tables(text: str, runs: Runs) -> str:
    """The text with each table put between its markers, `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises:
        Misuse: a marker is missing.
    """
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not opened or not closed:
            raise Misuse(f"the text has no place for the table {name}: put {begin} and {end} on lines of their own")
        text = f"{before}{begin}\n{table(runs)}\n{end}{after}"
    return text


def _pipeline(runs: Runs) -> str:
    rows = [
        (
            f"`{name}`",
            f"{one.transport}, {one.travel}, {one.precision}",
            _with_spread(one.engine_tiles_per_second, one.engine_alone),
            _with_spread(one.line_tiles_per_second, one.line),
            _with_spread(one.ratio, one.ratios, 3),
            f"{one.megapixels_per_second:.1f}",
            _gb(one.peak_rss_bytes),
            "" if one.engine_over_torch is None else f"{one.engine_over_torch:.1f}",
        )
        for name, one in _of(runs, "pipeline", PipelineResult)
    ]
    head = ("file", "transport, photos, precision", "engine tiles/s", "line tiles/s", "ratio", "MP/s", "peak RSS")
    return _table((*head, "engine / torch fp32"), rows)


def _stages(runs: Runs) -> str:
    """Who spends the processor time of a megabyte, of both ways to travel in one run, and what inline costs more."""
    rows = []
    for name, measured in runs:
        if measured.scenario != "pipeline":
            continue
        ways = {one.travel: one.cpu_ms_per_mb for _, one in _of([(name, measured)], "pipeline", PipelineResult)}
        if {"inline", "reference"} <= ways.keys():
            rows += list(_compared(name, ways["inline"], ways["reference"]))
    return _table(("file", "processor time of", "inline, ms/MB", "by reference, ms/MB", "inline costs"), rows)


def _compared(name: str, inline: Mapping[str, float], reference: Mapping[str, float]) -> Iterator[Row]:
    for spender in [*sorted(inline.keys() | reference.keys()), WHILE_RUNNING]:
        ours, theirs = (_spent(way, spender) for way in (inline, reference))
        yield f"`{name}`", spender, f"{ours:.1f}", f"{theirs:.1f}", f"{ours - theirs:+.1f}"


def _spent(way: Mapping[str, float], spender: str) -> float:
    if spender == WHILE_RUNNING:
        return way.get("worker, all", 0.0) + way.get("broker", 0.0)
    return way.get(spender, 0.0)


def _ingest(runs: Runs) -> str:
    rows = [
        (
            f"`{name}`",
            f"{one.transport}, {one.travel}",
            _with_spread(one.megabytes_per_second.median, one.megabytes_per_second),
            _with_spread(one.photos_per_second.median, one.photos_per_second),
            ", ".join(f"{stage} {seconds * 1000:.1f}" for stage, seconds in one.stage_seconds.items()),
            ", ".join(f"{who} {spent:.1f}" for who, spent in one.cpu_ms_per_mb.items()),
        )
        for name, one in _of(runs, "ingest", IngestResult)
    ]
    head = ("file", "transport, photos", "MB/s", "photos/s", "ms of a photo", "processor time, ms/MB")
    return _table(head, rows)


def _latency(runs: Runs) -> str:
    rows: list[Row] = []
    for name, one in _of(runs, "latency", LatencyResult):
        where = (f"`{name}`", f"{one.transport}, {one.travel}")
        alone = one.unloaded
        rows.append((*where, "one at a time", "", str(alone.frames), *_tail(alone), "", ""))
        rows += [
            (
                *where,
                f"{load.load:.0%} of {one.capacity_frames_per_second:.2f}/s",
                f"{load.frames_per_second:.2f}",
                str(load.latency.frames),
                *_tail(load.latency),
                f"{load.p99_over_unloaded:.2f}",
                f"{load.medians.low:.2f}–{load.medians.high:.2f}",
            )
            for load in one.loads
        ]
    head = ("file", "transport, photos", "load", "photos/s", "frames", "p50 s", "p95 s", "p99 s")
    return _table((*head, "p99 / unloaded p50", "p50 of the rounds"), rows)


def _memory(runs: Runs) -> str:
    rows = [
        (
            f"`{name}`",
            f"{one.transport}, {one.travel}, {one.precision}",
            f"{one.large_frames} x {one.large_megabytes:.0f} MB",
            _gb(one.large_peak_rss_bytes),
            str(one.many_frames),
            _gb(one.many_peak_rss_bytes),
            f"{one.many_growth:.3f}",
        )
        for name, one in _of(runs, "memory", MemoryResult)
    ]
    head = ("file", "transport, photos, precision", "large frames", "peak RSS", "small frames", "peak RSS")
    return _table((*head, "last quarter / first"), rows)


def _engine(runs: Runs) -> str:
    rows = [
        (
            f"`{name}`",
            one.engine,
            one.precision,
            str(one.batch),
            f"{one.tiles_per_second:.1f} ({min(one.rounds):.1f}–{max(one.rounds):.1f})",
            f"{one.megapixels_per_second:.1f}",
            "" if one.over_f32 is None else f"{one.over_f32:.2f}",
            "passed" if one.passed else one.why_not,
        )
        for name, one in _of(runs, "engine", EngineResult)
    ]
    head = ("file", "engine", "precision", "batch", "tiles/s", "MP/s", "over OpenVINO f32", "gate")
    return _table(head, rows)


def _gpu(runs: Runs) -> str:
    rows = [
        (
            f"`{name}`",
            one.what,
            one.on,
            one.case,
            "" if one.value is None else f"{one.value:,.4g} {one.unit}".strip(),
            "" if one.share is None else f"{one.share:.2f}",
            one.note,
        )
        for name, one in _of(runs, "gpu", GpuResult)
    ]
    return _table(("file", "what", "engine", "case", "figure", "share", "note"), rows)


TABLES: Mapping[str, Callable[[Runs], str]] = {
    "pipeline": _pipeline,
    "stages": _stages,
    "ingest": _ingest,
    "latency": _latency,
    "memory": _memory,
    "engine": _engine,
    "gpu": _gpu,
}


def _of(runs: Runs, scenario: str, kind: type[T]) -> Iterator[tuple[str, T]]:
    """The results of one scenario, with the names of their files."""
    for name, measured in runs:
        if measured.scenario == scenario:
            for result in measured.results:
                try:
                    yield name, msgspec.convert(result, kind)
                except msgspec.ValidationError as error:
                    raise Misuse(f"{name}: not a result of {scenario}: {error}") from error


def _table(head: Row, rows: Sequence[Row]) -> str:
    if not rows:
        return "Not measured yet."
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _with_spread(value: float, runs: Spread | None, digits: int = 1) -> str:
    if runs is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({runs.low:.{digits}f}–{runs.high:.{digits}f})"


def _tail(tail: Tail) -> Row:
    return [f"{value:.2f}" for value in (tail.p50, tail.p95, tail.p99)]


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
