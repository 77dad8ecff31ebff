"""A broker that trusts nobody: TLS, a login for each role, rights for each topic, and one listener past its date."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.kafka.broker import Broker, free_port, java

USERS = {role: f"secret-of-{role}" for role in ("uploader", "worker", "findings", "operator", "reader", "stranger")}
"""User -> password; a stranger may log in and do nothing."""
_STORE_PASSWORD = "changeit"


class SecuredBroker:
    """`open` is for administration only; `port` is what roles use; `expired` shows an old certificate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.port, self.expired_port = free_port(), free_port()
        self.ca = folder / "ca.pem"
        good = make_certificate(folder, "good")
        expired = make_certificate(folder, "expired", "-startdate", "-10d", "-validity", "3")
        self.ca.write_bytes(good + expired)
        plain = free_port()
        self.open = Broker(folder / "broker", plain, self._settings(plain), tuple(self._users()))

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"

    @property
    def expired_url(self) -> str:
        return f"kafka://127.0.0.1:{self.expired_port}"

    def allow(self, commands: Iterable[list[str]]) -> None:
        """Give rights by Kafka's own tool, in the arguments of `kafka-acls.sh`."""
        for arguments in commands:
            done = subprocess.run(
                java("org.apache.kafka.tools.AclCommand", *arguments), capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr

    def _users(self) -> Iterable[str]:
        for name, password in USERS.items():
            yield from ("--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]")

    def _settings(self, plain: int) -> dict[str, str]:
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        settings = {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",  # whoever reaches the plain listener, on loopback
        }
        for name, store in (("roles", "good"), ("expired", "expired")):
            prefix = f"listener.name.{name}"
            settings |= {
                f"{prefix}.sasl.enabled.mechanisms": "SCRAM-SHA-512",
                f"{prefix}.scram-sha-512.sasl.jaas.config": scram,
                f"{prefix}.ssl.keystore.location": str(self.folder / f"{store}.p12"),
                f"{prefix}.ssl.keystore.password": _STORE_PASSWORD,
                f"{prefix}.ssl.keystore.type": "PKCS12",
            }
        controller = free_port()
        ports = {"CLIENT": plain, "ROLES": self.port, "EXPIRED": self.expired_port}
        advertised = ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
        return settings | {
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"{advertised},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": advertised,
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,ROLES:SASL_SSL,EXPIRED:SASL_SSL",
        }


def make_certificate(folder: Path, name: str, *options: str) -> bytes:
    """A self-signed certificate for 127.0.0.1 by the JDK's keytool: a key store for the broker, a PEM for clients."""
    store = folder / f"{name}.p12"
    common = ["-keystore", str(store), "-storepass", _STORE_PASSWORD, "-alias", "broker"]
    make = ["-genkeypair", "-keyalg", "EC", "-dname", f"CN={name}", "-ext", "san=ip:127.0.0.1", "-ext", "bc=ca:true"]
    subprocess.run(["keytool", *make, *common, *options], check=True, capture_output=True)
    return subprocess.run(["keytool", "-exportcert", "-rfc", *common], check=True, capture_output=True).stdout
