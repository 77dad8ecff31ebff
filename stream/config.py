"""The settings of one site: a TOML file and `SPANWATCH_…` variables, read strictly; keys carry their units.

Two sources only. A variable is named by one mechanical rule: `SPANWATCH_` and the path in capitals, joined by two
underscores, so `SPANWATCH_WORKER__BATCH_TILES=32` is `batch_tiles = 32` under `[worker]`. Variables win over the file.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from stream.errors import Misuse

RoleName = Literal["uploader", "worker", "findings", "operator", "reader"]
"""Who opens a transport. An `operator` decides on alerts and sends dead frames back; a `reader` only looks: an alert
consumer."""

MIB = 1024 * 1024
GIB = 1024 * MIB

# Numbers outside these would fail far from here, with a frame in hand that bears the blame.
MOST, LONGEST = 2**62, 1e9
Count = Annotated[int, msgspec.Meta(ge=1, le=MOST)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
Partitions = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Port = Annotated[int, msgspec.Meta(ge=-1, le=65535)]
Time = Annotated[float, msgspec.Meta(gt=0, le=LONGEST)]
Span = Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every settings section."""


class LocalSection(Section, frozen=True, kw_only=True):
    """The embedded log (`transport = "local:DIR"`)."""

    partitions: Partitions = 4
    """Of every topic; fixed when the log is made. More workers than partitions have nothing to do."""
    min_free_bytes: Amount = 1 * GIB
    """Uploads are refused before the disk has less left than this."""


class Login(Section, frozen=True, kw_only=True):
    """Who a role is to the broker. A password comes from the environment only, and is never printed."""

    username: str | None = None
    password: str | None = None
    certificate: str | None = None
    """PEM file of a client certificate, instead of or beside a password; its key may lie in the same file."""
    key: str | None = None

    def __repr__(self) -> str:
        return f"Login(username={self.username!r}, certificate={self.certificate!r})"

    __str__ = __repr__


class KafkaSection(Section, frozen=True, kw_only=True):
    """The distributed log (`transport = "kafka://HOST:PORT[,HOST:PORT]"`)."""

    partitions: Partitions = 12
    """Of every topic `spanwatch topics create` makes: at least twice the workers there will ever be."""
    replication: Count = 1
    """Copies of every topic; 3 with three brokers or more."""
    min_insync: Count = 1
    """How many copies must have a record before it is acknowledged; 2 with a replication of 3."""
    max_inline_bytes: Amount = 40 * MIB
    """The largest photo that travels inside a record; 0: always by reference."""
    blobs: str = "spanwatch-data/blobs"
    """Folder of photos that travel by reference and of dead frames' bytes; all roles must see the same one."""
    min_free_bytes: Amount = 1 * GIB
    """Of that folder's disk: uploads are refused before it has less left than this."""
    member: str | None = None
    """Static membership: a name for this process that outlives it, so that a restart within the session costs no
    rebalance. `spanwatch site` gives each of its roles one."""
    session_timeout_s: Time = 45.0
    """After so long without a heartbeat a member is dead and its partitions go to others."""
    heartbeat_s: Time = 3.0
    """How often a member asks whether the group has changed: the others hear of a new member after about so long."""
    rebalance_timeout_s: Time = 60.0
    """How long members may take to give partitions back; longer than a worker's budget for it (20 s)."""
    security: Literal["plaintext", "tls", "sasl", "sasl_tls"] = "plaintext"
    """`sasl` sends frames in the clear and belongs on loopback or in a tunnel."""
    mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    ca: str | None = None
    """PEM file of the authority that signed the brokers' certificates; None: those the system trusts."""
    login: Login = Login()
    """For every role that has no login of its own below, and for commands that read."""
    uploader: Login = Login()
    worker: Login = Login()
    findings: Login = Login()
    operator: Login = Login()

    def __post_init__(self) -> None:
        if self.min_insync > self.replication:
            raise ValueError(f"min_insync is {self.min_insync}, but of a record there are {self.replication} copies")
        if self.heartbeat_s >= self.session_timeout_s:
            raise ValueError(f"heartbeat_s is {self.heartbeat_s}, not less than a session of {self.session_timeout_s}")

    def login_of(self, role: RoleName) -> Login:
        """Who this role is: its own login, or the one for all."""
        own = {
            "uploader": self.uploader,
            "worker": self.worker,
            "findings": self.findings,
            "operator": self.operator,
        }
        chosen = own.get(role, Login())
        return chosen if chosen != Login() else self.login


class EngineSection(Section, frozen=True, kw_only=True):
    """Which release runs, and how."""

    release: str = "champion"
    """An alias or a release id."""
    store: str | None = None
    """Folder of the site's own releases, over the ones that ship with spanwatch; None: only those."""
    trusted_keys: str | None = None
    """Folder of public keys (`*.pub.pem`) whose releases run here, beside the keys that ship; None: only those."""
    backend: str = "auto"
    """`tensorrt`, `torch` (graphics cards) or `openvino` (CPUs) alone; `auto` is the fastest of them here."""
    precision: str = "auto"
    """`auto` takes the fastest of f32, f16, bf16, int8 and fp8 that passes the gate here (spanwatch engine build)."""
    threads: Amount = 0
    """Cores for inference on a CPU; 0: all."""
    cache: str | None = None
    """Folder where measurements and compiled plans are kept; None: `~/.cache/spanwatch`."""


class WorkerSection(Section, frozen=True, kw_only=True):
    """From photo to result."""

    group: str = "worker"
    max_inflight_bytes: Count = 512 * MIB
    """Decoded pixels and encoded bytes held at once. One frame is always admitted when nothing is open."""
    decode_threads: Count = 1
    batch_tiles: Count = 64
    max_wait_ms: Amount = 50
    """The longest a tile waits for its batch to fill."""
    overlap_px: Amount = 0
    """By so many pixels neighbouring tiles overlap; less than the side of the release's tiles."""
    max_pixels: Count = 200_000_000
    blob_deadline_s: Span = 600.0
    """How long a missing blob is asked for before its frame is dead."""
    breaker_run: Count = 20
    """This many dead frames in a row stop the worker."""
    breaker_window: Count = 200
    """Half of the last so many frames dead stop it as well."""


class FindingsSection(Section, frozen=True, kw_only=True):
    """From result to alert."""

    group: str = "findings"
    least_tiles: Count = 1
    """A defect that fewer tiles of a photo show is in its result and opens no alert; `spanwatch evaluate` says what
    that would spare and cost. All tiles of a smaller photo are always enough. The same for all members of the group."""


class UploadSection(Section, frozen=True, kw_only=True):
    """The drone's side."""

    outbox: str | None = None
    """SQLite file; None: `spanwatch/outbox.sqlite` under $XDG_STATE_HOME or ~/.local/state."""
    max_bytes_per_s: Amount = 0
    """0: as fast as it goes."""
    settle_s: Span = 2.0
    """`--watch` takes a file when it has not grown for this long."""


class MetricsSection(Section, frozen=True, kw_only=True):
    """`/metrics`, `/healthz` and `/readyz` of each role; loopback unless told otherwise."""

    host: str = "127.0.0.1"
    findings_port: Port = 9463
    worker_port: Port = 9464
    """0: any free port, written to the log; -1: off. `spanwatch site` counts up from here, one for each worker."""


class RetentionSection(Section, frozen=True, kw_only=True):
    """What `spanwatch gc` removes; never past any group's commit."""

    frames_hours: Span = 7 * 24
    results_hours: Span = 30 * 24
    decisions_hours: Span = 365 * 24
    dead_frames_hours: Span = 90 * 24


class Config(Section, frozen=True, kw_only=True):
    """The whole file."""

    transport: str = "local:spanwatch-data"
    topic_prefix: str = ""
    state: str | None = None
    """Folder of what a box keeps for itself (the attempt journal); None: `state` beside the log or the blobs."""
    site: str = "site"
    """Names this box in `ce_source`."""
    local: LocalSection = LocalSection()
    kafka: KafkaSection = KafkaSection()
    engine: EngineSection = EngineSection()
    worker: WorkerSection = WorkerSection()
    findings: FindingsSection = FindingsSection()
    upload: UploadSection = UploadSection()
    metrics: MetricsSection = MetricsSection()
    retention: RetentionSection = RetentionSection()


def load(path: Path | None = None, env: Mapping[str, str] | None = None) -> Config:
    """Read settings from a TOML file (None: defaults) and from `SPANWATCH_…` variables.

    Raises:
        Misuse: unreadable file, unknown key (with the closest known one), wrong type, a number out of its range; the
            message names the path.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise Misuse(f"cannot read the configuration {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Misuse(f"{path} is not TOML: {error}") from error
    origin = str(path) if path is not None else "configuration"
    _refuse_secrets(tree, "", origin)
    config = _convert(tree, Config, origin, strict=True)
    overrides = _from_env(env or {})
    if overrides:
        # Variables are text, so numbers are read from it (strict=False); the file was checked strictly above.
        config = _convert(_merge(tree, overrides), Config, "SPANWATCH_… variables", strict=False)
    return config


def _convert(tree: Mapping[str, Any], kind: type[Config], origin: str, *, strict: bool) -> Config:
    _refuse_unknown(tree, kind, "", origin)
    try:
        return msgspec.convert(tree, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise Misuse(f"{origin}: {re.sub(r' - at `[$].?', ' - at `', str(error))}") from error


def _refuse_unknown(tree: Mapping[str, Any], kind: type[Section], prefix: str, origin: str) -> None:
    """Name the path of an unknown key and the known key closest to it: msgspec names only the key."""
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in tree.items():
        where = f"{prefix}{key}"
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {prefix}{close[0]}?" if close else f"; known here: {', '.join(sorted(fields))}"
            raise Misuse(f"{origin}: unknown key {where}{hint}")
        section = fields[key]
        if isinstance(section, type) and issubclass(section, Section):
            if not isinstance(value, Mapping):
                raise Misuse(f"{origin}: {where} is a section: write [{where}]")
            _refuse_unknown(value, section, f"{where}.", origin)


def _refuse_secrets(tree: Mapping[str, Any], prefix: str, origin: str) -> None:
    """A file is copied, mailed and committed; a password in it would go along."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _refuse_secrets(value, f"{prefix}{key}.", origin)
        elif key == "password":
            variable = "SPANWATCH_" + f"{prefix}{key}".upper().replace(".", "__")
            raise Misuse(f"{origin}: {prefix}{key} is a secret and is read from the environment only: set {variable}")


def _from_env(env: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in env.items():
        if not name.startswith("SPANWATCH_"):
            continue
        *sections, key = name.removeprefix("SPANWATCH_").lower().split("__")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise Misuse(f"{name}: {section} is a setting to another variable, and a section here; unset one")
        node[key] = value
    return tree


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        nested = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merge(below, value) if nested and isinstance(below, Mapping) else value
    return merged
