"""`spanwatch bench`: honest figures of this machine, interleaved; as tables, as JSON, and as those of the README."""

from __future__ import annotations

import asyncio
import importlib
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from stream.cli.common import ConfigOption, JsonOption, TransportOption, err, guarded, load_config, out, print_json
from stream.config import Config
from stream.errors import Misuse

bench_app = typer.Typer(
    no_args_is_help=True, help="Measure this machine; needs a clone, since benchmarks/ is not installed."
)
RESULTS = Path("benchmarks/results")
README = Path("benchmarks/README.md")

PhotosOption = Annotated[Path, typer.Option(help="Folder of photos.", metavar="DIR", exists=True, file_okay=False)]
OnlyOption = Annotated[str, typer.Option(help="Which of them, by name.", metavar="PATTERN")]
ReleaseOption = Annotated[str, typer.Option(help="Alias or id.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, bf16, int8 or f32.")]
TravelOption = Annotated[
    str, typer.Option("--photos-travel", help="inline, reference or both; a local log has only reference.")
]
SaveOption = Annotated[
    Path | None, typer.Option(help="Write scenario_hardware_transport_date.json to this folder.", metavar="DIR")
]
FLIGHT = Path("tests/data/flight")


@bench_app.callback()
def bench() -> None:
    """Measure this machine."""


@bench_app.command()
def pipeline(
    photos: PhotosOption = FLIGHT,
    release: ReleaseOption = "champion",
    precision: PrecisionOption = "auto",
    frames: Annotated[int, typer.Option(help="Frames per run; photos are repeated.", min=1)] = 36,
    repeats: Annotated[int, typer.Option(help="Interleaved rounds; medians are shown.", min=1)] = 3,
    travel: TravelOption = "both",
    search: Annotated[bool, typer.Option(help="Look for the engine's best setting first.")] = True,
    transport: TransportOption = None,
    config: ConfigOption = None,
    save: SaveOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the whole line with the engine alone, and with torch fp32 where it is installed.

    Example: spanwatch bench pipeline --transport kafka://127.0.0.1:9092 --save benchmarks/results
    """
    with guarded():
        scenario, home, runner = _load("pipeline"), _load("home"), _load("runner")
        base = runner.with_engine(_base(config, transport), release, precision)
        ways = home.travels(base.transport, travel)
        plan = scenario.Plan(base=base, photos=photos, travels=ways, frames=frames, repeats=repeats, search=search)
        _measure(scenario, plan, save, as_json)


@bench_app.command()
def ingest(
    photos: PhotosOption = FLIGHT,
    frames: Annotated[int, typer.Option(help="Photos per run; they are repeated.", min=1)] = 60,
    repeats: Annotated[int, typer.Option(help="Interleaved rounds; medians are shown.", min=1)] = 5,
    travel: TravelOption = "both",
    transport: TransportOption = None,
    config: ConfigOption = None,
    save: SaveOption = None,
    as_json: JsonOption = False,
) -> None:
    """Photos from a folder to the log by the uploader: MB/s, photos/s, and where the time goes.

    Example: spanwatch bench ingest --transport kafka://127.0.0.1:9092
    """
    with guarded():
        scenario, home = _load("ingest"), _load("home")
        base = _base(config, transport)
        ways = home.travels(base.transport, travel)
        plan = scenario.Plan(base=base, photos=photos, travels=ways, frames=frames, repeats=repeats)
        _measure(scenario, plan, save, as_json)


@bench_app.command()
def latency(
    photos: PhotosOption = FLIGHT,
    only: OnlyOption = "DJI_*",
    release: ReleaseOption = "champion",
    precision: PrecisionOption = "auto",
    loads: Annotated[str, typer.Option(help="Percent of the measured capacity, with commas.")] = "30,60,90",
    seconds: Annotated[float, typer.Option(help="Of each load in each round.", min=0.1)] = 35.0,
    repeats: Annotated[int, typer.Option(help="Interleaved rounds; all frames of a load are one distribution.")] = 3,
    burst: Annotated[int, typer.Option(help="Frames that the capacity is measured with.", min=2)] = 24,
    unloaded: Annotated[int, typer.Option(help="Frames of each round that are alone in the line.", min=1)] = 8,
    travel: TravelOption = "reference",
    transport: TransportOption = None,
    config: ConfigOption = None,
    save: SaveOption = None,
    as_json: JsonOption = False,
) -> None:
    """From a photo's handover to its result on the topic, under periodic arrivals with 20 % jitter: p50, p95, p99.

    Example: spanwatch bench latency --transport kafka://127.0.0.1:9092 --photos-travel inline --loads 60
    """
    with guarded():
        scenario, home, runner = _load("latency"), _load("home"), _load("runner")
        base = runner.with_engine(_base(config, transport), release, precision)
        plan = scenario.Plan(
            base=base,
            photos=photos,
            only=only,
            travels=home.travels(base.transport, travel),
            loads=_shares(loads),
            seconds=seconds,
            repeats=repeats,
            burst=burst,
            unloaded=unloaded,
        )
        _measure(scenario, plan, save, as_json)


@bench_app.command()
def memory(
    photos: PhotosOption = FLIGHT,
    only: OnlyOption = "damage-*",
    release: ReleaseOption = "champion",
    precision: PrecisionOption = "auto",
    large: Annotated[int, typer.Option(help="Frames of 48 MB and 48 megapixels.", min=1)] = 8,
    many: Annotated[int, typer.Option(help="Small frames for the scripted engine.", min=8)] = 1000,
    travel: TravelOption = "both",
    transport: TransportOption = None,
    config: ConfigOption = None,
    save: SaveOption = None,
    as_json: JsonOption = False,
) -> None:
    """The worker's memory: its peak with the largest photos in flight, and its growth over a thousand frames.

    Example: spanwatch bench memory --transport kafka://127.0.0.1:9092
    """
    with guarded():
        scenario, home, runner = _load("memory"), _load("home"), _load("runner")
        base = runner.with_engine(_base(config, transport), release, precision)
        ways = home.travels(base.transport, travel)
        plan = scenario.Plan(base=base, photos=photos, only=only, travels=ways, large=large, many=many)
        _measure(scenario, plan, save, as_json)


@bench_app.command()
def report(
    results: Annotated[Path, typer.Option(help="Folder of result files.", metavar="DIR")] = RESULTS,
    readme: Annotated[Path, typer.Option(help="File whose tables are written.", metavar="FILE")] = README,
) -> None:
    """Write the tables of benchmarks/README.md, between their markers, from the result files.

    Example: spanwatch bench report
    """
    with guarded():
        written = _load("report").rewrite(readme, results)
        out.print(f"{readme}: {written} result files")


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"benchmarks.{name}")
    except ImportError as error:
        raise Misuse("the benchmarks are not installed: run this in a clone (pip install -e .)") from error


def _base(config: Path | None, transport: str | None) -> Config:
    """The settings; without a word about the transport, an embedded log in the folder for temporary files."""
    somewhere = transport or (None if config else f"local:{tempfile.gettempdir()}")
    return load_config(config, somewhere)


def _shares(loads: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(word) / 100 for word in loads.split(","))
    except ValueError as error:
        raise Misuse(f"--loads is percentages with commas, as in 30,60,90, not {loads!r}") from error
    if not all(0 < share <= 1.5 for share in shares):
        raise Misuse(f"--loads are percentages above 0 and up to 150, not {loads!r}")
    return shares


def _measure(scenario: ModuleType, plan: Any, save: Path | None, as_json: bool) -> None:
    """Run a scenario, then show it and keep it."""
    err.print("measuring; leave the machine alone for a few minutes")
    measured = asyncio.run(scenario.run(plan))
    if save is not None:
        err.print(f"saved {_load('runner').save(measured, save)}")
    if as_json:
        print_json(measured)
        return
    for result in measured.results:
        table = Table("figure", "value")
        for name, value in result.items():
            table.add_row(name, value if isinstance(value, str) else msgspec.json.encode(value).decode())
        out.print(table)
