"""`spanwatch dead`: the frames that got a reason instead of a result, and the way back for them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from stream import dead as box
from stream.cli.common import ConfigOption, JsonOption, TransportOption, load_config, opened, out, print_json, run

dead_app = typer.Typer(no_args_is_help=True, help="Frames that got a reason instead of a result; their bytes are kept.")

Ids = Annotated[list[str], typer.Argument(help="Frame ids, or their first digits.", metavar="ID...")]


@dead_app.command("list")
def list_(config: ConfigOption = None, transport: TransportOption = None, as_json: JsonOption = False) -> None:
    """List dead frames, newest last, with the reason of each.

    Example: spanwatch dead list --transport local:spanwatch-data
    """

    async def main() -> None:
        async with opened(load_config(config, transport)) as log:
            entries = await box.read(log)
        if as_json:
            for entry in entries:
                print_json(entry.dead)
            return
        table = Table("frame", "name", "reason", "what to do", "last try", "state")
        for entry in entries:
            dead = entry.dead
            name = dead.frame.name if dead.frame and dead.frame.name else "–"
            when = dead.last_try.isoformat(timespec="seconds")
            table.add_row(dead.frame_id[:12], name, dead.reason, dead.detail, when, entry.state)
        out.print(table if entries else "No dead frames.")

    run(main())


@dead_app.command()
def show(ids: Ids, config: ConfigOption = None, transport: TransportOption = None, as_json: JsonOption = False) -> None:
    """Show all that is known of dead frames, and where their bytes are.

    Example: spanwatch dead show 3fa1b2 --transport local:spanwatch-data
    """

    async def main() -> None:
        async with opened(load_config(config, transport)) as log:
            chosen = box.choose(await box.read(log), ids)
        for entry in chosen:
            if as_json:
                print_json(entry.dead)
            else:
                _print(entry)

    run(main())


def _print(entry: box.Entry) -> None:
    dead = entry.dead
    where = f"{dead.position.topic}[{dead.position.partition}] offset {dead.position.offset}"
    kept = f"{dead.blob.url} ({dead.blob.size_bytes} bytes)" if dead.blob else "no bytes came"
    table = Table(show_header=False, box=None)
    for name, value in (
        ("frame", dead.frame_id),
        ("name", dead.frame.name if dead.frame and dead.frame.name else "–"),
        ("reason", dead.reason),
        ("detail", dead.detail),
        ("position", where),
        ("bytes", kept),
        ("first try", dead.first_try.isoformat(timespec="seconds")),
        ("last try", dead.last_try.isoformat(timespec="seconds")),
        ("state", entry.state),
    ):
        table.add_row(name, value)
    out.print(table)


@dead_app.command()
def retry(ids: Ids, config: ConfigOption = None, transport: TransportOption = None) -> None:
    """Send dead frames back to the workers; their attempts are counted anew.

    Example: spanwatch dead retry 3fa1b2 --transport local:spanwatch-data
    """

    async def main() -> None:
        settings = load_config(config, transport)
        async with opened(settings, "operator") as log:
            for entry in box.choose(await box.read(log), ids):
                await box.send_back(log, entry, source=f"{settings.site}/dead", now=datetime.now(UTC))
                out.print(f"{entry.dead.frame_id[:12]} sent back; `spanwatch results --follow` shows its answer")

    run(main())
