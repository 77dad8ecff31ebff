"""`spanwatch alerts`: the list an inspection engineer works through, and the words that settle each entry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.text import Text

from stream.cli.common import ConfigOption, JsonOption, TransportOption, load_config, opened, out, print_json, run
from stream.cli.results import AssetOption, FollowOption, Tail, line, new_table, print_table
from stream.config import Config
from stream.errors import Misuse
from stream.findings.geojson import best_position
from stream.findings.words import SAID, count, length, percent, rank, stamp
from stream.messages import (
    Alert,
    AlertState,
    Decision,
    Position,
    Region,
    Result,
    Severity,
    Verb,
    decision_id,
    encode,
    envelope,
)
from stream.transport.protocol import Message, Transport

alerts_app = typer.Typer(invoke_without_command=True)

SHORTEST_PREFIX = 6
SHOWN_DIGITS = 8
COLOURS: dict[Severity, str] = {"high": "red", "medium": "yellow", "low": "blue"}

Ids = Annotated[list[str], typer.Argument(help="Alert ids, or their first 6 digits or more.", metavar="ID...")]
WhyOption = Annotated[str | None, typer.Option("--why", help="Kept in the alert's history.", metavar="TEXT")]
WhoOption = Annotated[
    str | None, typer.Option("--who", help="Who says so.", envvar="USER", show_envvar=True, metavar="NAME")
]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which alerts a list shows; None: all."""

    asset: str | None
    defect: str | None
    state: str | None

    def __contains__(self, alert: Alert) -> bool:
        pairs = ((self.asset, alert.asset), (self.defect, alert.defect), (self.state, alert.state))
        return all(wanted in (None, actual) for wanted, actual in pairs)


@alerts_app.callback()
def alerts(
    context: typer.Context,
    *,
    config: ConfigOption = None,
    transport: TransportOption = None,
    asset: AssetOption = None,
    defect: Annotated[str | None, typer.Option(help="Only of this class, for example crack.")] = None,
    state: Annotated[str | None, typer.Option(help=f"Only {', '.join(get_args(AlertState))}.")] = None,
    follow: FollowOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the defects that were found, the most severe first; or show one, or say what you make of it.

    Example: spanwatch alerts --state open --transport local:spanwatch-data
    """
    # `spanwatch alerts --transport X confirm ID` means the same as the option after `confirm`.
    context.obj = (config, transport)
    if context.invoked_subcommand is None:
        run(_list(lambda: load_config(config, transport), Chosen(asset, defect, state), follow, as_json))


async def _list(settings: Callable[[], Config], chosen: Chosen, follow: bool, as_json: bool) -> None:
    if chosen.state not in (None, *get_args(AlertState)):
        raise Misuse(f"--state is one of {', '.join(get_args(AlertState))}, not {chosen.state!r}")
    async with opened(settings()) as log:
        tail = Tail(log, "alerts")
        latest = await _latest(tail)
        shown = sorted((alert for alert in latest.values() if alert in chosen), key=rank)
        if as_json:
            for alert in shown:
                print_json(alert)
        else:
            _print_table(shown)
        if follow:
            sys.stdout.flush()  # whoever reads the pipe wants these before the first new one
            async for _, alert in tail.from_now_on(Alert):
                if alert in chosen and latest.get(alert.alert_id) != alert:
                    print_json(alert) if as_json else out.print(line(_cells(alert)), soft_wrap=True)
                    sys.stdout.flush()  # whoever reads the pipe waits for this one
                latest[alert.alert_id] = alert


@alerts_app.command()
def show(
    context: typer.Context,
    ids: Ids,
    config: ConfigOption = None,
    transport: TransportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all that is known of an alert: photos, regions, position and what people said.

    Example: spanwatch alerts show 3fa1b2 --transport local:spanwatch-data
    """

    async def main() -> None:
        async with opened(_settings(context, config, transport)) as log:
            partitions: dict[str, int] = {}
            latest: dict[str, Alert] = {}
            async for record, alert in Tail(log, "alerts").so_far(Alert):
                latest[alert.alert_id] = alert
                partitions[alert.alert_id] = record.partition
            for alert in choose(latest.values(), ids):
                if as_json:
                    print_json(alert)
                else:
                    _print_one(alert, await _position(log, alert, partitions[alert.alert_id]))

    run(main())


VERBS: dict[Verb, tuple[str, str]] = {
    "ack": ("Say that you have seen alerts and will look into them.", "ack 3fa1b2"),
    "confirm": ("Say that the defects are real.", 'confirm 3fa1b2 99c0de --why "seen from the lift"'),
    "dismiss": ("Say that there is no such defect.", 'dismiss 3fa1b2 --why "formwork seam"'),
    "reopen": ("Take back what was said; the history keeps it.", 'reopen 3fa1b2 --why "wrong photo"'),
}
"""What each word means, and an example of its use."""


def _add_verb(what: Verb, means: str, example: str) -> None:
    """The four words differ in nothing but their meaning."""

    def command(
        context: typer.Context,
        *,
        ids: Ids,
        why: WhyOption = None,
        who: WhoOption = None,
        config: ConfigOption = None,
        transport: TransportOption = None,
    ) -> None:
        run(_decide(what, ids, why, who, lambda: _settings(context, config, transport)))

    alerts_app.command(what, help=f"{means}\n\nExample: spanwatch alerts {example}")(command)


for _what, (_means, _example) in VERBS.items():
    _add_verb(_what, _means, _example)


async def _decide(
    what: Verb, ids: Sequence[str], why: str | None, who: str | None, settings: Callable[[], Config]
) -> None:
    if not who:
        raise Misuse("nobody to write into the history: name yourself with --who NAME")
    config = settings()
    async with opened(config, "operator") as log:
        chosen = choose((await _latest(Tail(log, "alerts"))).values(), ids)
        for alert in chosen:
            now = datetime.now(UTC)
            ident = decision_id(alert.alert_id, what, who, now)
            decision = Decision(
                decision_id=ident, alert_id=alert.alert_id, asset=alert.asset, what=what, who=who, when=now, why=why
            )
            headers = envelope(Decision, ident, f"{config.site}/alerts", now)
            message = Message(topic="decisions", key=alert.asset, value=encode(decision), headers=headers)
            await log.send(message)
            about = f"{alert.defect} on {alert.asset}, {_photo(alert)}"
            out.print(
                Text(f"{SAID[what]} {alert.alert_id[:SHOWN_DIGITS]} ({about}); sent to findings as {who}"),
                soft_wrap=True,
            )


def choose(alerts: Iterable[Alert], ids: Sequence[str]) -> list[Alert]:
    """The alerts that ids or unique beginnings of ids name, in the order they were named, each once.

    Raises:
        Misuse: a beginning is too short, fits none or fits several; the message names the candidates.
    """
    known = sorted(alerts, key=rank)
    chosen: dict[str, Alert] = {}
    for given in ids:
        prefix = given.strip().lower()
        if len(prefix) < SHORTEST_PREFIX:
            raise Misuse(f"{given!r} is too short for an alert id: give at least its first {SHORTEST_PREFIX} digits")
        fitting = [alert for alert in known if alert.alert_id.startswith(prefix)]
        if not fitting:
            near = ", ".join(alert.alert_id[:SHOWN_DIGITS] for alert in known[:5])
            raise Misuse(f"no alert {given!r}" + (f"; there are {near} …" if near else ": there are no alerts yet"))
        if len(fitting) > 1:
            raise Misuse(f"{given!r} fits several alerts: {', '.join(alert.alert_id for alert in fitting)}")
        chosen[fitting[0].alert_id] = fitting[0]
    return list(chosen.values())


def _settings(context: typer.Context, config: Path | None, transport: str | None) -> Config:
    before = context.obj or (None, None)
    return load_config(config or before[0], transport or before[1])


async def _latest(tail: Tail) -> dict[str, Alert]:
    """The compacted view: the last state of each alert."""
    return {alert.alert_id: alert async for _, alert in tail.so_far(Alert)}


async def _position(log: Transport, alert: Alert, partition: int) -> Position | None:
    """Where the camera was; only the results know, and they lie in the alert's own partition."""
    wanted = {one.result_id for one in alert.evidence}
    positions: dict[str, Position] = {}
    async for _, result in Tail(log, "results", partition).so_far(Result):
        if result.result_id in wanted and result.frame.position:
            positions[result.result_id] = result.frame.position
    return best_position(alert, positions)


# ── looks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _photo(alert: Alert) -> str:
    best = max(alert.evidence, key=lambda one: one.score)
    more = len({one.frame_id for one in alert.evidence}) - 1
    return (best.name or best.frame_id[:12]) + (f" and {count(more, 'more photo')}" if more else "")


def _print_table(shown: Sequence[Alert]) -> None:
    if not shown:
        hint = "No such alerts. That is no proof of soundness: `spanwatch results` says what could be judged."
        out.print(hint, soft_wrap=True)
        return
    whole = ("alert", "severity", "defect", "score", "state")
    table = new_table("alert", "severity", "defect", "score", "asset", "photo", "seen", "state", whole=whole)
    for alert in shown:
        table.add_row(*_cells(alert))
    print_table(table)


def _cells(alert: Alert) -> list[Text]:
    """Names come from strangers: Text, so that a `[red]` in a file's name is not taken for markup."""
    return [
        Text(alert.alert_id[:SHOWN_DIGITS]),
        Text(alert.severity, style=COLOURS[alert.severity]),
        Text(alert.defect),
        Text(percent(alert.score)),
        Text(alert.asset),
        Text(_photo(alert)),
        Text(stamp(alert.last_seen)),
        Text(alert.state),
    ]


def _print_one(alert: Alert, position: Position | None) -> None:
    table = new_table("", "")
    table.show_header = False
    where = "unknown"
    if position:
        where = f"{position.latitude_deg:.6f}, {position.longitude_deg:.6f}"
        where += f", {position.altitude_m:.0f} m" if position.altitude_m is not None else ""
    rows = [
        ("alert", alert.alert_id),
        ("defect", f"{alert.defect}, {alert.severity}"),
        ("state", alert.state + (f", merged into {alert.merged_into}" if alert.merged_into else "")),
        ("score", percent(alert.score)),
        ("asset", alert.asset),
        ("place", alert.place),
        ("camera at", where),
        ("first seen", stamp(alert.first_seen) or "unknown"),
        ("last seen", stamp(alert.last_seen) or "unknown"),
    ]
    for one in alert.evidence:
        rows.append(("photo", f"{one.name or one.frame_id}  {stamp(one.captured_at)}  release {one.release}"))
        rows += [("  region", _region(region)) for region in one.regions]
    for step in alert.history:
        rows.append(
            (SAID[step.what].lower(), f"{stamp(step.when)} by {step.who}" + (f": {step.why}" if step.why else ""))
        )
    for name, value in rows:
        table.add_row(name, Text(value))
    print_table(table)


def _region(region: Region) -> str:
    xs, ys = zip(*region.polygon, strict=True)
    size = f", {length(region.size_mm)}" if region.size_mm is not None else ""
    return (
        f"{percent(region.score)}, x {min(xs)}–{max(xs)}, y {min(ys)}–{max(ys)} px, {count(region.tiles, 'tile')}{size}"
    )
