"""Settings are read strictly: what is wrong is named by its path, and the file that ships is complete."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from models.engines.gpu.opening import BUCKETS
from stream.config import Config, load
from stream.errors import Misuse
from stream.schemas import schemas

CONFIGS = Path(__file__).parents[2] / "configs"


def written(folder: Path, text: str) -> Path:
    path = folder / "edge.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[worker]\nbatch_tile = 3", "unknown key worker.batch_tile; did you mean worker.batch_tiles"),
        ("wroker = 3", "unknown key wroker; did you mean worker"),
        ("[worker]\nzzz = 3", "unknown key worker.zzz; known here: batch_tiles"),
        ("worker = 3", "worker is a section: write \\[worker\\]"),
        ("[worker]\nbatch_tiles = '3'", "Expected `int`, got `str` - at `worker.batch_tiles`"),
        ("[findings]\nleast_tiles = 0", "Expected `int` >= 1 - at `findings.least_tiles`"),
        ("[worker]\nbatch_tiles = 0", "Expected `int` >= 1 - at `worker.batch_tiles`"),
        ("[worker]\noverlap_px = -10", "Expected `int` >= 0 - at `worker.overlap_px`"),
        ("[engine]\nthreads = -3", "Expected `int` >= 0 - at `engine.threads`"),
        ("[metrics]\nworker_port = 99999", "Expected `int` <= 65535 - at `metrics.worker_port`"),
        ("[local]\npartitions = 99999", "Expected `int` <= 10000 - at `local.partitions`"),
        ("[kafka]\nheartbeat_s = inf", "Expected `float` <= 1000000000.0 - at `kafka.heartbeat_s`"),
        ("[kafka]\nheartbeat_s = 50.0", "heartbeat_s is 50.0, not less than a session of 45.0 - at `kafka`"),
        ("[kafka]\nmin_insync = 2", "min_insync is 2, but of a record there are 1 copies - at `kafka`"),
        ("[kafka]\nheartbeat_s = 0.0", "Expected `float` > 0.0 - at `kafka.heartbeat_s`"),
        ("[worker", "is not TOML"),
    ],
)
def test_a_wrong_file_names_the_path_and_the_way_out(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Misuse, match=message):
        load(written(tmp_path, text))


def test_no_number_but_the_ports_may_be_negative_and_each_has_a_least_value() -> None:
    for section in msgspec.structs.fields(Config):
        if not (isinstance(section.type, type) and issubclass(section.type, msgspec.Struct)):
            continue
        for field in msgspec.structs.fields(section.type):
            if isinstance(field.default, int | float) and not field.name.endswith("_port"):
                with pytest.raises(Misuse, match=f"at `{section.name}.{field.name}`"):
                    load(None, {f"SPANWATCH_{section.name}__{field.name}".upper(): "-1"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"cannot read the configuration .*none\.toml"):
        load(tmp_path / "none.toml")


def test_variables_win_over_the_file_by_one_mechanical_rule(tmp_path: Path) -> None:
    path = written(tmp_path, 'transport = "local:a"\n[worker]\nbatch_tiles = 3\nmax_wait_ms = 7')
    config = load(path, {"SPANWATCH_WORKER__BATCH_TILES": "32", "SPANWATCH_TRANSPORT": "local:b", "HOME": "/"})
    assert (config.transport, config.worker.batch_tiles, config.worker.max_wait_ms) == ("local:b", 32, 7)


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(Misuse, match=r"SPANWATCH_… variables: unknown key worker\.batch_tile;"):
        load(None, {"SPANWATCH_WORKER__BATCH_TILE": "32"})
    with pytest.raises(Misuse, match=r"worker\.batch_tiles"):
        load(None, {"SPANWATCH_WORKER__BATCH_TILES": "many"})
    with pytest.raises(Misuse, match=r"worker\.max_wait_ms"):
        load(None, {"SPANWATCH_WORKER__MAX_WAIT_MS": "-5"})
    with pytest.raises(Misuse, match="SPANWATCH_LOCAL__PARTITIONS: local is a setting to another variable"):
        load(None, {"SPANWATCH_LOCAL": "1", "SPANWATCH_LOCAL__PARTITIONS": "2"})


def test_the_edge_file_is_complete_and_says_the_defaults() -> None:
    path = CONFIGS / "edge.toml"
    assert msgspec.structs.replace(load(path), transport=Config().transport) == Config()
    text = path.read_text()
    told = tomllib.loads(text)
    logins = {"username", "password", "certificate", "key"}

    def check(section: msgspec.Struct, tree: dict[str, object], where: str) -> None:
        for field in section.__struct_fields__:
            # None has no word in TOML: such a line is there as a comment.
            there = field in tree or field in logins or (f"\n# {field} = " in text and getattr(section, field) is None)
            assert there, f"{where}{field} is missing in configs/edge.toml"
            value = getattr(section, field)
            if isinstance(value, msgspec.Struct):
                check(value, tree[field], f"{where}{field}.")  # type: ignore[arg-type]

    check(Config(), told, "")


@pytest.mark.parametrize("section", ["kafka.login", "kafka.worker"])
def test_a_password_is_taken_from_the_environment_only_and_never_printed(tmp_path: Path, section: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(f'[{section}]\npassword = "hunter2"\n')
    variable = f"SPANWATCH_{section.upper().replace('.', '__')}__PASSWORD"
    with pytest.raises(Misuse, match=f"{section}.password is a secret .* set {variable}") as refused:
        load(path)
    assert "hunter2" not in str(refused.value)
    config = load(None, {variable: "hunter2"})
    assert "hunter2" in msgspec.json.encode(config).decode() and "hunter2" not in repr(config)


def test_the_committed_schemas_are_those_of_the_code() -> None:
    committed = {path.name: path.read_bytes() for path in (CONFIGS / "schemas").glob("*.json")}
    assert committed == dict(schemas()), "run: python -m stream.schemas configs/schemas"


def test_the_file_for_a_graphics_card_loads_and_fills_the_largest_batch() -> None:
    config = load(CONFIGS / "edge-gpu.toml")
    assert config.worker.batch_tiles == BUCKETS[-1] and config.engine.cache is not None
