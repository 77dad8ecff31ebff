"""A role in a process of its own that can be told where to die: `python tests/system/child.py ROLE CONFIG`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import msgspec

from models.engines.gpu.engine import GpuEngine
from models.engines.gpu.numpy_device import NumpyDevice, Troubles
from models.engines.protocol import Engine, Scores, Tile
from models.engines.scripted import Script, ScriptedEngine
from stream.cli.common import TEXT_LINE, state_folder
from stream.config import Config, KafkaSection, LocalSection, MetricsSection, WorkerSection
from stream.errors import SpanwatchError
from stream.findings.role import run_findings
from stream.messages import Severity
from stream.testing import Fault, Faulty
from stream.transport import open_transport
from stream.worker.judge import ClassRule, Judge
from stream.worker.regions import Threshold
from stream.worker.role import Loaded, run_worker, start_engine
from tests.unit.models.gpu.made_engine import MeansNetwork, made_release

DIED = 70
POISON = (255, 0, 254)
"""A photo of this colour ends the scripted engine's process."""
SEVERITIES: dict[str, Severity] = dict.fromkeys(Script().classes, "medium")


Home = Path | Config
"""Where a test's line lives: the folder of an embedded log, or all the settings of a site."""

SMALL = Config(
    local=LocalSection(partitions=4, min_free_bytes=0),
    metrics=MetricsSection(worker_port=-1, findings_port=-1),
    worker=WorkerSection(batch_tiles=16, max_wait_ms=20, blob_deadline_s=1.0, max_pixels=40_000_000),
)
"""Small numbers, so that everything that can happen does."""


def config_of(home: Home) -> Config:
    """The settings of a test's line."""
    if isinstance(home, Config):
        return home
    return msgspec.structs.replace(SMALL, transport=f"local:{home}")


def kafka_config(url: str, folder: Path, prefix: str, **kafka: Any) -> Config:
    """A site on a broker, with topics of its own prefix; sessions end soon, so that a death is noticed soon."""
    section = KafkaSection(
        partitions=4,
        blobs=str(folder / "blobs"),
        min_free_bytes=0,
        session_timeout_s=6.0,
        heartbeat_s=1.0,
        **kafka,
    )
    state = str(folder / "state")
    return msgspec.structs.replace(SMALL, transport=url, topic_prefix=prefix, state=state, kafka=section)


class Gated(ScriptedEngine):
    """An engine that stands before a gate: it infers nothing until a file is there."""

    def __init__(self, script: Script, gate: Path) -> None:
        super().__init__(script)
        self._gate = gate

    def infer(self, tiles: Sequence[Tile]) -> Scores:
        """In the engine's own thread, so nothing else is held up."""
        while not self._gate.exists():
            time.sleep(0.01)
        return super().infer(tiles)


def on_card(lost_at: int, folder: Path) -> Engine:
    """The scripted engine's arithmetic on a card of numpy, which breaks for good at that piece of work."""
    script, device = Script(), NumpyDevice(troubles=Troubles(lost_at=lost_at))
    network = MeansNetwork(device, script=script)
    return GpuEngine(made_release(folder, script), device, network)


def scripted(gate: Path | None, card: Engine | None) -> Loaded:
    """An engine anybody can compute by hand: a red photo cracks."""
    script = Script(exit_on=POISON)
    engine = card or (ScriptedEngine(script) if gate is None else Gated(script, gate))
    rules = tuple(ClassRule(Threshold(name, 0.8, 0.5), True, None) for name in engine.classes)
    return Loaded(engine, Judge(engine.release, engine.precision, rules))


def at(text: str | None, happens: Callable[[], None]) -> Callable[[int], None]:
    """`2:3`: it happens right after step 2 has been done for the third time."""
    if text is None:
        return lambda _: None
    step, time = (int(part) for part in text.split(":"))
    done = 0

    def count(number: int) -> None:
        nonlocal done
        if number == step:
            done += 1
            if done == time:
                happens()

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
    parser.add_argument("config", help="all settings, as JSON")
    parser.add_argument("--exit-at", help="STEP:TIME")
    parser.add_argument("--stop-at", help="STEP:TIME; it stands still until it gets SIGCONT")
    parser.add_argument("--fault", action="append", default=[], help="ON:AT:HOW")
    parser.add_argument("--engine", choices=("scripted", "release"), default="scripted")
    parser.add_argument("--card-lost-at", type=int, help="a scripted engine on a card, and when that breaks")
    parser.add_argument("--gate", type=Path, help="a file; before it is there the engine infers nothing")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format=f"{asked.role} {os.getpid()} {TEXT_LINE}")
    logging.getLogger("stream").setLevel(logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # each of its tries in an outage is an error to it
    config = msgspec.json.decode(asked.config, type=Config)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    transport = await open_transport(config, asked.role)
    faulty = Faulty(transport, faults_of(asked.fault))
    exits = at(asked.exit_at, lambda: os._exit(DIED))
    stops = at(asked.stop_at, lambda: os.kill(os.getpid(), signal.SIGSTOP))

    def step(number: int) -> None:
        exits(number)
        stops(number)

    try:
        if asked.role == "findings":
            await run_findings(faulty, config, stop, severities=SEVERITIES, step=step)
        else:
            state = Path(state_folder(config))
            card = None if asked.card_lost_at is None else on_card(asked.card_lost_at, state / "site")
            engine = scripted(asked.gate, card) if asked.engine == "scripted" else start_engine(config.engine)
            await run_worker(faulty, config, stop, state=state_folder(config), engine=engine, step=step)
    finally:
        await transport.close()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except* SpanwatchError as group:
        sys.exit(f"ended: {group.exceptions}")
