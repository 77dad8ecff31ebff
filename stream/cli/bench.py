"""`spanwatch bench`: honest figures of this machine, interleaved, as a table or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from stream.cli.common import JsonOption, TransportOption, err, guarded, out, print_json
from stream.errors import Misuse

bench_app = typer.Typer(
    no_args_is_help=True, help="Measure this machine; needs a clone, since benchmarks/ is not installed."
)


@bench_app.callback()
def bench() -> None:
    """Measure this machine."""


@bench_app.command()
def pipeline(
    photos: Annotated[Path, typer.Option(help="Folder of photos.", metavar="DIR", exists=True, file_okay=False)] = Path(
        "tests/data/flight"
    ),
    release: Annotated[str, typer.Option(help="Alias or id.")] = "champion",
    precision: Annotated[str, typer.Option(help="auto, bf16 or f32.")] = "auto",
    frames: Annotated[int, typer.Option(help="Frames per run; photos are repeated.", min=1)] = 36,
    repeats: Annotated[int, typer.Option(help="Interleaved runs; medians are shown.", min=1)] = 3,
    transport: TransportOption = None,
    save: Annotated[Path | None, typer.Option(help="Write the JSON to this file as well.", metavar="FILE")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the whole line with the engine alone, and with torch fp32 where it is installed.

    Example: spanwatch bench pipeline --photos tests/data/flight --json
    """
    with guarded():
        try:
            from benchmarks.pipeline import Plan, run
        except ImportError as error:
            raise Misuse("the benchmarks are not installed: run this in a clone (pip install -e .)") from error
        err.print("measuring; leave the machine alone for a few minutes")
        plan = Plan(
            photos=photos, release=release, transport=transport, frames=frames, repeats=repeats, precision=precision
        )
        measured = run(plan)
    if save is not None:
        import msgspec

        save.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=2) + b"\n")
    if as_json:
        print_json(measured)
        return
    table = Table("figure", "value")
    for name, value in measured["results"][0].items():
        table.add_row(name, str(value))
    out.print(table)
