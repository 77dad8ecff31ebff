"""A role in a process of its own that can be told where to die: `python tests/system/child.py ROLE LOG`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from models.engines.protocol import Engine
from models.engines.scripted import Script, ScriptedEngine
from stream.config import Config, LocalSection, MetricsSection, WorkerSection
from stream.errors import SpanwatchError
from stream.findings.role import run_findings
from stream.messages import Severity
from stream.testing import Fault, Faulty
from stream.transport import open_transport
from stream.worker.judge import ClassRule, Judge
from stream.worker.regions import Threshold
from stream.worker.role import run_worker, start_engine

DIED = 70
POISON = (255, 0, 254)
"""A photo of this colour ends the scripted engine's process."""
SEVERITIES: dict[str, Severity] = dict.fromkeys(Script().classes, "medium")


def config_of(log: Path) -> Config:
    """Small numbers, so that everything that can happen does."""
    return Config(
        transport=f"local:{log}",
        local=LocalSection(partitions=4, min_free_bytes=0),
        metrics=MetricsSection(worker_port=-1, findings_port=-1),
        worker=WorkerSection(batch_tiles=16, max_wait_ms=20, blob_deadline_s=1.0, max_pixels=40_000_000),
    )


def scripted() -> tuple[Engine, Judge]:
    """An engine anybody can compute by hand: a red photo cracks."""
    engine = ScriptedEngine(Script(exit_on=POISON))
    rules = tuple(ClassRule(Threshold(name, 0.8, 0.5), True, None) for name in engine.classes)
    return engine, Judge(engine.release, engine.precision, rules)


def exit_at(text: str | None) -> Callable[[int], None]:
    """`2:3` dies right after step 2 has been done for the third time."""
    if text is None:
        return lambda _: None
    step, time = (int(part) for part in text.split(":"))
    done = 0

    def count(number: int) -> None:
        nonlocal done
        done += number == step
        if done == time:
            os._exit(DIED)

    return count


def faults_of(texts: list[str]) -> list[Fault]:
    """`send:3:exit_after`."""
    faults = []
    for text in texts:
        on, at, how = text.split(":")
        faults.append(Fault(on=on, at=int(at), how=how, code=DIED))  # type: ignore[arg-type]
    return faults


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("worker", "findings"))
    parser.add_argument("log", type=Path)
    parser.add_argument("--exit-at", help="STEP:TIME")
    parser.add_argument("--fault", action="append", default=[], help="ON:AT:HOW")
    parser.add_argument("--engine", choices=("scripted", "release"), default="scripted")
    asked = parser.parse_args()
    config = config_of(asked.log)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    transport = await open_transport(config)
    faulty, step = Faulty(transport, faults_of(asked.fault)), exit_at(asked.exit_at)
    try:
        if asked.role == "findings":
            await run_findings(faulty, config, stop, severities=SEVERITIES, step=step)
        else:
            engine = scripted() if asked.engine == "scripted" else start_engine(config.engine)
            await run_worker(faulty, config, stop, state=asked.log / "state", engine=engine, step=step)
    finally:
        await transport.close()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except* SpanwatchError as group:
        sys.exit(f"ended: {group.exceptions}")
