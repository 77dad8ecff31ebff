"""`spanwatch release`: which releases there are, which one runs, and what its card says."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from stream.cli.common import ConfigOption, JsonOption, load_config, out, print_json, run
from stream.releases import open_release, release_store

release_app = typer.Typer(no_args_is_help=True, help="Models, their figures, and which of them is the champion.")


@release_app.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the releases of this box; the champion is the one that runs.

    Example: spanwatch release list
    """

    async def main() -> None:
        store = release_store(load_config(config).engine)
        releases, aliases = [store.open(name) for name in store.ids()], store.aliases()
        if as_json:
            for release in releases:
                names = [alias for alias, target in aliases.items() if target == release.id]
                print_json({"id": release.id, "aliases": names, "created": release.created})
            return
        table = Table("release", "plays", "made", "classes trained", "parent")
        for release in releases:
            trained = [c.name for c in release.classes if c.trained]
            plays = ", ".join(alias for alias, target in aliases.items() if target == release.id) or "–"
            counted = f"{len(trained)} of {len(release.classes)}: {', '.join(trained)}"
            table.add_row(release.id, plays, str(release.created)[:10], counted, release.parent or "–")
        out.print(table)

    run(main())


@release_app.command()
def show(
    name: Annotated[str, typer.Argument(help="A release id or an alias.")] = "champion",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a release's card: what it was tested on, how well it did, what it cannot do.

    Example: spanwatch release show champion
    """

    async def main() -> None:
        release = open_release(load_config(config).engine, name)
        if as_json:
            print_json(release)
        else:
            out.print(release.path("CARD.md").read_text(encoding="utf-8"), markup=False)

    run(main())
