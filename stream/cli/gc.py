"""`spanwatch gc`: gives back the disk of what is old enough and done with, while everything else runs on."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.filesize import decimal

from stream.cli import common
from stream.cli.common import ConfigOption, JsonOption, TransportOption
from stream.config import Config
from stream.errors import Misuse
from stream.transport import open_transport
from stream.transport.blobs import FolderBlobs
from stream.transport.local import LocalTransport
from stream.transport.retention import GcReport, gc_blobs
from stream.transport.retention import gc as collect

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")]


def gc(
    config: ConfigOption = None,
    transport: TransportOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove records and photos that are past their time and done with; workers may run.

    Nothing goes that a group has not committed. The times are in the retention section of the configuration. A Kafka
    broker removes records by itself (`spanwatch topics describe`); there, only photos that no record names go.

    Example: spanwatch gc --transport local:/data/spanwatch --dry-run
    """
    with common.guarded():
        settings = common.load_config(config, transport)
    report = common.run(_collect(settings, dry_run))
    if as_json:
        common.print_json(report)
    else:
        _print(report)


async def _collect(config: Config, dry_run: bool) -> GcReport:
    home = await open_transport(config, "operator")
    try:
        if isinstance(home, LocalTransport):
            return await collect(home, config.retention, time.time(), dry_run=dry_run)
        if isinstance(home.blobs, FolderBlobs):
            return await gc_blobs(home, home.blobs, time.time(), dry_run=dry_run)
        raise Misuse(f"the photos of {home.url} lie in no folder")
    finally:
        await home.close()


def _print(report: GcReport) -> None:
    verb = "would remove" if report.dry_run else "removed"
    for counts, why in ((report.removed, "past their time"), (report.compacted, "replaced by a later one")):
        for topic, count in counts.items():
            common.out.print(f"{verb} {count:,} {topic} records {why}")
    if report.blobs or report.leftovers:
        left = f", and {report.leftovers:,} unfinished files" if report.leftovers else ""
        common.out.print(f"{verb} {report.blobs:,} photos that no record names ({decimal(report.blob_bytes)}){left}")
    if not (report.removed or report.compacted or report.blobs or report.leftovers):
        common.out.print("nothing to remove")
    for held in report.held:
        readers = f"group {', '.join(held.groups)} has not done them" if held.groups else "no group has ever read them"
        common.out.print(f"kept {held.records:,} {held.topic} records past their time: {readers}")
    if report.log_bytes is not None and not report.dry_run:
        common.out.print(
            f"the log is {decimal(report.log_bytes)}, {decimal(report.log_bytes_returned)} less than before"
        )
