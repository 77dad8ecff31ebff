"""`spanwatch engine`: which precision this machine runs a release in, whether it decides right, how fast it is."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from stream.cli.common import FAILED, ConfigOption, JsonOption, err, guarded, load_config, out, print_json
from stream.config import EngineSection
from stream.errors import Broken, Misuse

if TYPE_CHECKING:
    from models.engines.bench import Checked, EngineResult
    from models.engines.candidates import Conditions
    from models.engines.gate import Verdict
    from models.engines.gpu.watch import Heed
    from models.release import Release

engine_app = typer.Typer(no_args_is_help=True, help="Engines and precisions: choose by measuring, check, compare.")

ReleaseOption = Annotated[str | None, typer.Option(help="Alias or id; without it, the one that the settings name.")]
ThreadsOption = Annotated[int | None, typer.Option(help="Cores for inference; without it, as set, or all.", min=1)]
SaveOption = Annotated[
    Path | None, typer.Option(help="Write engine_hardware_transport_date.json to this folder.", metavar="DIR")
]


@engine_app.command()
def build(
    release: ReleaseOption = None,
    threads: ThreadsOption = None,
    seconds: Annotated[float, typer.Option(help="Of each round for each candidate.", min=0.0)] = 1.0,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds; medians decide.", min=1)] = 5,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure every engine and precision on this machine and keep the fastest that passes the gate; workers use it.

    Where there is a graphics card, plans for it are compiled first: minutes. Ctrl-C leaves nothing half done.

    Example: spanwatch engine build
    """
    with guarded(), _failures():
        from models.engines.autopilot import Pace
        from models.engines.autopilot import build as measure
        from stream.engines import conditions_of

        section = load_config(config).engine
        opened = _release(section, release)
        err.print("measuring; leave the machine alone for half a minute")
        with _compiling(quiet=as_json) as heed:
            choice = measure(opened, conditions_of(section, threads, heed), Pace(rounds, seconds))
        if as_json:
            print_json(choice)
            return
        table = Table("engine", "precision", "tiles/s", *JUDGED)
        for one in choice.trials:
            speed = "–" if one.tiles_per_second is None else f"{one.tiles_per_second:.1f}"
            table.add_row(one.engine, one.precision, speed, *_judged(one.verdict))
        out.print(table)
        _reasons((f"{one.engine} {one.precision}", one.why_not) for one in choice.trials)
        out.print(f"{opened.id} runs in {choice.engine} {choice.precision} here", markup=False)


@engine_app.command()
def check(
    release: ReleaseOption = None,
    threads: ThreadsOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare every engine and precision with the float32 reference; ends with 1 if the one in use does not pass.

    Example: spanwatch engine check --release candidate
    """
    with guarded(), _failures():
        from models.engines.bench import check as compare
        from stream.engines import conditions_of

        section = load_config(config).engine
        opened = _release(section, release)
        with _compiling(quiet=as_json) as heed:
            under = conditions_of(section, threads, heed)
            engine, used = _in_use(opened, section.precision, under)
            checked = compare(opened, under)
        if as_json:
            in_use = {"engine": engine, "precision": used}
            print_json({"release": opened.id, "in_use": in_use, "results": [_plain(one) for one in checked]})
        else:
            table = Table("engine", "precision", *JUDGED)
            for one in checked:
                table.add_row(one.engine, one.precision, *_judged(one.verdict))
            out.print(table)
            _reasons((f"{one.engine} {one.precision}", one.why_not) for one in checked)
            out.print(f"{opened.id} runs in {engine} {used} here", markup=False)
    if not all(one.passed for one in checked if (one.engine, one.precision) == (engine, used)):
        raise typer.Exit(FAILED)


@engine_app.command()
def bench(
    release: ReleaseOption = None,
    threads: ThreadsOption = None,
    batch: Annotated[str, typer.Option(help="Tiles per request, with commas.")] = "1,4,16",
    only: Annotated[str, typer.Option(help="Engines whose name and precision hold these words.")] = "",
    seconds: Annotated[float, typer.Option(help="Of each round for each engine.", min=0.0)] = 1.0,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds; medians are shown.", min=1)] = 5,
    config: ConfigOption = None,
    save: SaveOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tiles per second of every engine, precision and batch size, in interleaved rounds, with the gate's verdict.

    Example: spanwatch engine bench --only openvino --json
    """
    with guarded(), _failures():
        from models.engines.bench import Plan, environment
        from models.engines.bench import bench as measure
        from stream.engines import conditions_of

        section = load_config(config).engine
        opened = _release(section, release)
        plan = Plan(conditions_of(section, threads).threads, _batches(batch), seconds, rounds, only)
        around = environment()  # the load before anything was measured
        err.print("measuring; leave the machine alone for a minute or two")
        results = measure(opened, plan)
        if save is not None:
            asked = {"release": opened.id, "digest": opened.digest, **msgspec.to_builtins(plan)}
            err.print(f"saved {_saved(save, around, asked, results)}")
        if as_json:
            plain = [msgspec.to_builtins(one) for one in results]
            print_json({"release": opened.id, "environment": around, "results": plain})
            return
        table = Table("engine", "precision", "batch", "tiles/s", "MP/s", "over f32", "gate")
        for one in results:
            ratio = "–" if one.over_f32 is None else f"{one.over_f32:.2f}"
            figures = (f"{one.tiles_per_second:.1f}", f"{one.megapixels_per_second:.1f}", ratio)
            table.add_row(one.engine, one.precision, str(one.batch), *figures, "passed" if one.passed else "not passed")
        out.print(table)
        _reasons((f"{one.engine} {one.precision}", one.why_not) for one in results)


JUDGED = ("mean difference", "largest", "same decisions", "gate")


def _judged(verdict: Verdict | None) -> tuple[str, ...]:
    if verdict is None:
        return "–", "–", "–", "does not run"
    figures = f"{verdict.mean:.4f}", f"{verdict.largest:.3f}", f"{verdict.agreement:.2%}"
    return *figures, f"passed on {verdict.tiles} tiles" if verdict.passed else "not passed"


def _reasons(named: Iterable[tuple[str, str]]) -> None:
    """Below the table: in a cell of it they would be one word a line."""
    for name, why in dict.fromkeys(named):
        if why:
            out.print(f"{name}: {why}", markup=False)


def _plain(one: Checked) -> dict[str, Any]:
    return {**msgspec.to_builtins(one), "passed": one.passed}


def _release(section: EngineSection, name: str | None) -> Release:
    from stream.releases import open_release

    return open_release(section, name)


def _in_use(release: Release, precision: str, under: Conditions) -> tuple[str, str]:
    """Engine and precision that a worker with these settings runs."""
    from models.engines.autopilot import choose
    from models.engines.candidates import candidates
    from stream.engines import precision_of

    asked = precision_of(precision)
    if asked == "auto":
        choice = choose(release, under)
        return choice.engine, choice.precision
    found = next((one.engine for one in candidates(release, under) if one.precision == asked), None)
    if found is None:
        raise Broken(f"{release.id}: no engine here runs in {asked}")
    return found, asked


@contextmanager
def _compiling(quiet: bool) -> Iterator[Heed]:
    """Shows how far a compilation for a graphics card is, while there is one."""
    columns = TextColumn("compiling: {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=err, transient=True, disable=quiet) as bar:
        phases: dict[str, TaskID] = {}

        def heed(phase: str, done: int, steps: int) -> bool:
            if phase not in phases:
                phases[phase] = bar.add_task(phase, total=steps)
            bar.update(phases[phase], completed=done)
            if done >= steps:
                bar.remove_task(phases.pop(phase))
            return True

        yield heed


def _batches(words: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(word) for word in words.split(","))
    except ValueError as error:
        raise Misuse(f"--batch is whole numbers with commas, as in 1,4,16, not {words!r}") from error
    if min(sizes) < 1:
        raise Misuse(f"--batch is numbers of tiles from 1 on, not {words!r}")
    return sizes


def _saved(folder: Path, around: dict[str, Any], asked: dict[str, Any], results: Sequence[EngineResult]) -> Path:
    """Write the file that `spanwatch bench report` reads."""
    try:
        runner = importlib.import_module("benchmarks.runner")
        described = importlib.import_module("benchmarks.environment").describe("local:")
    except ImportError as error:
        raise Misuse("the benchmarks are not installed: run this in a clone (pip install -e .)") from error
    plain = [msgspec.to_builtins(one) for one in results]
    run = runner.Measured(scenario="engine", environment={**described, **around}, results=plain, plan=asked)
    saved: Path = runner.save(run, folder)
    return saved


@contextmanager
def _failures() -> Iterator[None]:
    """In here, an engine that cannot do it ends the command with its own words."""
    from models.engines.protocol import EngineError

    try:
        yield
    except EngineError as error:
        raise Broken(str(error)) from error
