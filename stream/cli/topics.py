"""`spanwatch topics`: the topics on a Kafka broker: made, compared with how they should be, and who may use them."""

from __future__ import annotations

import shlex
from typing import Any

import typer
from rich.table import Table

from stream.cli.common import (
    FAILED,
    ConfigOption,
    JsonOption,
    TransportOption,
    complain,
    load_config,
    out,
    print_json,
    run,
)
from stream.config import Config
from stream.errors import Misuse

topics_app = typer.Typer(no_args_is_help=True, help="The topics on a Kafka broker.")


def _settings(config: Any, transport: str | None) -> Config:
    settings = load_config(config, transport)
    if not settings.transport.startswith("kafka:"):
        raise Misuse(
            f"topics are for a Kafka broker; {settings.transport} makes its own: --transport kafka://HOST:PORT"
        )
    return settings


@topics_app.command()
def create(config: ConfigOption = None, transport: TransportOption = None, as_json: JsonOption = False) -> None:
    """Make the topics that are missing; what is there is left as it is.

    Example: spanwatch topics create --transport kafka://127.0.0.1:9092
    """

    async def main() -> None:
        from stream.transport.kafka_topics import create_topics

        settings = _settings(config, transport)
        for name, made in (await create_topics(settings)).items():
            if as_json:
                print_json({"topic": name, "made": made})
            else:
                out.print(f"{name}: {'made' if made else 'is there; `spanwatch topics describe` compares it'}")

    run(main())


@topics_app.command()
def describe(config: ConfigOption = None, transport: TransportOption = None, as_json: JsonOption = False) -> None:
    """Show what differs from how the topics should be, and what to type; exit code 1 if anything does.

    Example: spanwatch topics describe --transport kafka://127.0.0.1:9092
    """

    async def main() -> bool:
        from stream.transport.kafka_topics import describe_topics, troubles

        states = await describe_topics(_settings(config, transport))
        table = Table("topic", "partitions", "kept", "largest record", "differs (is, should be)")
        for state in states:
            differs = {name: {"is": have, "should_be": want} for name, (have, want) in state.differs.items()}
            if as_json:
                shown = {"topic": state.spec.stored, "partitions": state.partitions, "differs": differs}
                print_json(shown | {"type": list(state.fix)})
            lines = [f"{name}: {have or 'unset'}, {want}" for name, (have, want) in state.differs.items()]
            table.add_row(
                state.spec.stored,
                str(state.partitions or "missing"),
                _kept(state.settings),
                _mebibytes(state.settings.get("max.message.bytes")),
                "\n".join(lines),
            )
        if not as_json:
            out.print(table)
            for state in states:
                for line in state.fix:
                    out.print(line, soft_wrap=True)
        for trouble in troubles(states):
            complain(trouble)
        return any(state.differs or not state.partitions for state in states)

    if run(main()):
        raise typer.Exit(FAILED)


def _kept(settings: Any) -> str:
    if settings.get("cleanup.policy") == "compact":
        return "the latest of each key"
    milliseconds = settings.get("retention.ms")
    if milliseconds is None:
        return ""
    return "for ever" if milliseconds == "-1" else f"{int(milliseconds) / 86_400_000:.3g} days"


def _mebibytes(text: str | None) -> str:
    return "" if text is None else f"{int(text) / 1024**2:.3g} MiB"


@topics_app.command()
def acls(config: ConfigOption = None, transport: TransportOption = None, as_json: JsonOption = False) -> None:
    """Print the commands that give each role the rights it needs, and no other.

    Principals are the user names of the configuration; a role without one is shown as User:ROLE. On a broker that asks
    for a login, each line also needs --command-config FILE with that of an administrator.

    Example: spanwatch topics acls --transport kafka://broker:9093
    """

    async def main() -> None:
        from stream.transport.access import commands

        last = None
        for role, arguments in commands(_settings(config, transport)):
            line = shlex.join(["kafka-acls.sh", *arguments])
            if as_json:
                print_json({"role": role, "command": line})
                continue
            if role != last:
                out.print(f"# {role}")
            last = role
            out.print(line, soft_wrap=True)

    run(main())
