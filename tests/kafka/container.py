"""The same broker in a container, for machines with a Docker engine; not run on the machine it was written on."""

from __future__ import annotations

import os
import socket

import docker
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer

from tests.kafka.broker import VERSION, Broker, NoBroker, free_port


def docker_answers() -> bool:
    """Whether there is an engine to ask for a container."""
    scheme, _, path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition("://")
    if scheme == "unix":  # the library leaves its socket open when nobody answers, so we knock first
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path):
                return False
    try:
        client = docker.from_env(timeout=5)
    except DockerException:
        return False
    client.close()
    return True


class ContainerBroker:
    """Kafka's own image with the settings of `Broker`, on a port of this machine that stays the same."""

    def __init__(self) -> None:
        self.port = free_port()
        self._container = DockerContainer(f"apache/kafka:{VERSION}").with_bind_ports(self.port, self.port)
        for name, value in Broker.plain_settings(self.port, "/tmp/kafka-data").items():
            # The client's listener is reached from outside, so it listens on all addresses of the container.
            bound = value.replace(f"127.0.0.1:{self.port}", f"0.0.0.0:{self.port}") if name == "listeners" else value
            self._container.with_env(f"KAFKA_{name.upper().replace('.', '_')}", bound)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"kafka://{self.address}"

    def start(self) -> None:
        """Fetch the image if need be, start, and wait until clients are accepted."""
        try:
            self._container.start()
        except DockerException as error:
            raise NoBroker(f"the Docker engine did not start apache/kafka:{VERSION}: {error}") from error
        try:
            Broker.await_port(self.port)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._container.stop()
