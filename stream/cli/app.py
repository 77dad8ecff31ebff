"""The command's table of contents: every command by its name, and the module that wires it."""

from __future__ import annotations

from typing import Annotated

import typer

import stream
from stream.cli import (
    alerts,
    bench,
    data,
    dead,
    doctor,
    engine,
    evaluate,
    findings,
    gc,
    release,
    results,
    run,
    topics,
    train,
    upload,
    worker,
)

app = typer.Typer(
    name="spanwatch",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Drone photos of concrete structures in, located defects out, without losing a frame.",
)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if show:
        typer.echo(f"spanwatch {stream.__version__}")
        raise typer.Exit


app.command("run")(run.run_photos)
app.command("worker")(worker.worker)
app.command("findings")(findings.findings)
app.command("site")(worker.site)
app.command("results")(results.results)
app.command("doctor")(doctor.doctor)
app.command("gc")(gc.gc)
app.command("evaluate")(evaluate.evaluate)
app.command("pretrain")(train.pretrain)
app.command("train")(train.train)
app.add_typer(upload.upload_app, name="upload")
app.add_typer(alerts.alerts_app, name="alerts")
app.add_typer(dead.dead_app, name="dead")
app.add_typer(topics.topics_app, name="topics")
app.add_typer(release.release_app, name="release")
app.add_typer(engine.engine_app, name="engine")
app.add_typer(data.data_app, name="data")
app.add_typer(bench.bench_app, name="bench")


def main() -> None:
    """The entry point."""
    app()
