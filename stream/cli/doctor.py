"""`spanwatch doctor`: what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import typer
from rich.table import Table
from rich.text import Text

from stream.cli.common import (
    DONE,
    FAILED,
    ConfigOption,
    JsonOption,
    TransportOption,
    guarded,
    load_config,
    out,
    print_json,
)
from stream.doctor import as_plain, examine

COLOURS = {"ok": "green", "note": "yellow", "bad": "red"}


def doctor(config: ConfigOption = None, transport: TransportOption = None, as_json: JsonOption = False) -> None:
    """Look at decoder, engine, release, processor, GPU, memory and disk; exit 1 if something must be mended.

    Example: spanwatch doctor --transport local:/var/lib/spanwatch
    """
    with guarded():
        findings = examine(load_config(config, transport))
    if as_json:
        for finding in findings:
            print_json(as_plain(finding))
    else:
        table = Table("", "what", "says", "do")
        for finding in findings:
            verdict = Text(finding.verdict, COLOURS[finding.verdict])
            table.add_row(verdict, finding.what, finding.says, finding.do)
        out.print(table)
    raise typer.Exit(FAILED if any(finding.verdict == "bad" for finding in findings) else DONE)
