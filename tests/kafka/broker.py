"""A real Apache Kafka broker of one node, from Maven's jars: for tests, and for people as `make kafka`."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

VERSION = "4.1.1"
POM = Path(__file__).with_name("pom.xml")
READY_S = 120.0
"""After a SIGKILL a broker first recovers its log, and the machine may be busy."""


class NoBroker(Exception):
    """There is no broker here; the message says what is missing."""


def jars() -> Path:
    """The folder of the broker's jars, fetched by Maven when it is not there yet (54 MB).

    Raises:
        NoBroker: no Java, no Maven, or Maven could not fetch them.
    """
    for program, package in (("java", "a JDK 17 or newer"), ("mvn", "Maven")):
        if shutil.which(program) is None:
            raise NoBroker(f"{package} is not installed (no `{program}` on the PATH)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "spanwatch" / f"kafka-{VERSION}"
    if folder.is_dir():
        return folder
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
    fetch = subprocess.run(["mvn", "-q", "-B", "-f", str(POM), *goal], capture_output=True, text=True, check=False)
    if fetch.returncode:
        shutil.rmtree(fresh, ignore_errors=True)
        raise NoBroker(f"Maven could not fetch Kafka {VERSION}: {(fetch.stdout + fetch.stderr).strip()[-500:]}")
    try:
        fresh.rename(folder)  # whole or not at all: two runs may fetch at once
    except OSError:
        shutil.rmtree(fresh)
    return folder


SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""A tool is gone before the better compiler would pay."""


def java(main: str, *arguments: str, heap: str = "256m", options: Sequence[str] = SHORT_LIVED) -> list[str]:
    """The command line of one of Kafka's programs, for example its console tools."""
    log4j = f"-Dlog4j2.configurationFile={POM.with_name('log4j2.properties')}"
    return [
        "java",
        f"-Xmx{heap}",
        "-XX:ActiveProcessorCount=2",
        log4j,
        *options,
        "-cp",
        f"{jars()}/*",
        main,
        *arguments,
    ]


@dataclass
class Broker:
    """One node, broker and controller in one process, on loopback. Its data and log lie in `folder`."""

    folder: Path
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    """On top of the plain ones, in the words of server.properties."""
    format_options: Sequence[str] = ()
    """For `kafka.tools.StorageTool format`, for example `--add-scram`."""
    heap: str = "1g"
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"kafka://{self.address}"

    @property
    def log(self) -> Path:
        """What the broker says."""
        return self.folder / "broker.log"

    def start(self) -> Broker:
        """Start, or start again on the same data, and wait until clients are served.

        Raises:
            NoBroker: what is missing or in the way, in one line.
        """
        if _accepts(self.port):
            raise NoBroker(f"port {self.port} is in use: end what listens there, or choose another port")
        self.folder.mkdir(parents=True, exist_ok=True)
        properties = self.folder / "server.properties"
        # Written at each start: data that is kept may be served on another port the next time.
        plain = self.plain_settings(self.port, str(self.folder / "data"))
        lines = (plain | dict(self.settings)).items()
        properties.write_text("".join(f"{key}={value}\n" for key, value in lines))
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(properties)
        # A session of its own: Ctrl-C in a terminal reaches only us, and we stop it in order.
        with self.log.open("ab") as log:
            command = java("kafka.Kafka", str(properties), heap=self.heap, options=["-Xms256m"])
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            self._await_ready()
        except BaseException:  # also Ctrl-C: nobody else would end it
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """In order; killed if it takes longer than 30 s."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """As a machine that swaps: the sockets stay open and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _format(self, properties: Path) -> None:
        identity = ["--cluster-id=c3BhbndhdGNoLWJyb2tlcg", "-c", str(properties), *self.format_options]
        made = subprocess.run(
            java("kafka.tools.StorageTool", "format", *identity), capture_output=True, text=True, check=False
        )
        if made.returncode:
            said = (made.stdout + made.stderr).strip()
            if "UnsupportedClassVersionError" in said:
                raise NoBroker(f"Kafka {VERSION} needs Java 17 or newer, and `java` on the PATH is older")
            raise NoBroker(f"Kafka could not format {self.folder}: {said[-500:]}")

    @staticmethod
    def plain_settings(port: int, data: str) -> dict[str, str]:
        """One node that is broker and controller, without any security, in the words of server.properties."""
        client, controller = f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"CLIENT://{client},CONTROLLER://{controller}",
            "advertised.listeners": f"CLIENT://{client}",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "CLIENT",
            "log.dirs": data,
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            "num.network.threads": "2",
            "num.io.threads": "2",
            "log.segment.bytes": "134217728",
            "log.cleaner.dedupe.buffer.size": "16777216",
        }

    def _await_ready(self) -> None:
        try:
            self.await_port(self.port, lambda: self.process is not None and self.process.poll() is None)
        except NoBroker as error:
            self.kill()
            raise NoBroker(f"{error}; see {self.log}: {_tail(self.log)}") from error

    @staticmethod
    def await_port(port: int, lives: Callable[[], bool] = lambda: True) -> None:
        """Wait until a broker serves clients on this port, which must be a plaintext one.

        Raises:
            NoBroker: it has ended, or takes too long.
        """
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if not lives():
                raise NoBroker("Kafka ended at its start")
            if _serves(port):
                return
            time.sleep(0.1)
        raise NoBroker(f"Kafka did not answer on port {port} in {READY_S:.0f} s")


def free_port() -> int:
    """A port that nobody uses now; it is asked for again soon enough."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _serves(port: int) -> bool:
    """Whether the broker names itself in a metadata answer: before that, it accepts and refuses what is asked."""
    # Key 3 (metadata) version 1, correlation 0, no client id; of no topic.
    request = struct.pack(">hhihi", 3, 1, 0, -1, 0)
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            # Length, correlation, how many brokers.
            answer = connection.recv(12, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(answer) == 12 and struct.unpack(">iii", answer)[2] > 0


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-500:] if path.exists() else ""


def main() -> None:
    """`make kafka`: a broker in the foreground until Ctrl-C."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where its data lies; kept between runs")
    parser.add_argument("--port", type=int, default=9092)
    asked = parser.parse_args()
    broker = Broker(asked.folder.resolve(), asked.port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    sys.stderr.write(f"Apache Kafka {VERSION} starts; its data and its log lie in {broker.folder}\n")
    try:
        broker.start()
        sys.stderr.write(f"it listens on {broker.address}; Ctrl-C stops it\n")
        sys.stderr.write(f"next, in another terminal: spanwatch topics create --transport {broker.url}\n")
        assert broker.process is not None
        code = broker.process.wait()
        sys.exit(f"Kafka ended by itself with exit code {code}, see {broker.log}: {_tail(broker.log)}")
    except NoBroker as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.stderr.write("stopping\n")
    finally:
        broker.stop()


if __name__ == "__main__":
    main()
