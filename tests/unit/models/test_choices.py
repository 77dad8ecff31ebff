"""A measurement is made once per machine and release, and a cache that cannot be read is only made again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from models.engines.autopilot import explain, fastest
from models.engines.candidates import AnyPrecision, default_folder
from models.engines.choices import FILE, KEPT, Choice, Machine, Trial, read_choice, write_choice
from models.engines.gate import Verdict
from models.engines.processor import cpu_flags, cpu_model, has_bf16

HERE = Machine(processor="a", flags="b", cores=2, openvino="c", card="e", backend="", release="d")


def trial(precision: AnyPrecision, speed: float | None, *reasons: str) -> Trial:
    verdict = Verdict(tiles=9, mean=0.0, largest=0.0, agreement=1.0, ap_drops={}, reasons=reasons, sane=True)
    return Trial(engine="openvino", precision=precision, tiles_per_second=speed, verdict=verdict)


def lacking(precision: AnyPrecision, why: str) -> Trial:
    return Trial(engine="openvino", precision=precision, failed=why)


def choice(machine: Machine = HERE, precision: AnyPrecision = "bf16") -> Choice:
    trials = (trial("f32", 1.0), trial(precision, 2.0))
    chosen = {"engine": "openvino", "precision": precision, "tiles_per_second": 2.0, "why": "because"}
    return Choice(machine=machine, release="r.1", trials=trials, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trials", "taken"),
    [
        ([trial("f32", 50.0), trial("bf16", 90.0), trial("int8", 130.0)], "int8"),
        ([trial("f32", 50.0), trial("bf16", 90.0), trial("int8", 130.0, "it decides otherwise")], "bf16"),
        ([trial("f32", 50.0), trial("bf16", 40.0), lacking("int8", "there is none")], "f32"),
        ([trial("f32", 50.0, "wrong"), lacking("bf16", "no")], None),
        ([], None),
    ],
)
def test_the_fastest_that_passes_the_gate_is_taken(trials: list[Trial], taken: str | None) -> None:
    best = fastest(trials)
    assert (best and best.precision) == taken


def test_the_reason_names_every_other_candidate_and_what_is_wrong_with_it() -> None:
    trials = [trial("f32", 50.0), trial("bf16", 90.0, "it lies"), lacking("int8", "there is none")]
    assert explain(trials[0], trials) == (
        "50 tiles/s and the gate passed; openvino bf16 with 90: it lies; openvino int8: there is none"
    )


def test_what_was_measured_is_read_back_under_the_same_conditions_and_no_others(tmp_path: Path) -> None:
    write_choice(tmp_path, choice())
    assert read_choice(tmp_path, HERE) == choice()
    for name in Machine.__struct_fields__:
        other = msgspec.structs.replace(HERE, **{name: 3 if name == "cores" else "x"})
        assert read_choice(tmp_path, other) is None, name


def test_a_second_measurement_replaces_the_first_and_leaves_the_others(tmp_path: Path) -> None:
    other = msgspec.structs.replace(HERE, release="other")
    write_choice(tmp_path, choice(other))
    write_choice(tmp_path, choice())
    write_choice(tmp_path, choice(precision="int8"))
    assert read_choice(tmp_path, HERE) == choice(precision="int8")
    assert read_choice(tmp_path, other) == choice(other)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_the_file_does_not_grow_without_end(tmp_path: Path) -> None:
    machines = [msgspec.structs.replace(HERE, release=str(number)) for number in range(KEPT + 3)]
    for machine in machines:
        write_choice(tmp_path, choice(machine))
    kept = [machine for machine in machines if read_choice(tmp_path, machine)]
    assert kept == machines[3:]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 99, "choices": []}', b"\xff"])
def test_a_cache_that_cannot_be_read_is_empty_and_is_written_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert read_choice(tmp_path, HERE) is None
    write_choice(tmp_path, choice())
    assert read_choice(tmp_path, HERE) == choice()


def test_the_cache_lies_where_the_users_caches_lie() -> None:
    assert default_folder().name == "spanwatch"


def test_the_processor_is_read_and_its_absence_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("model name\t: A Processor\nflags\t\t: fpu avx512_bf16\n\nflags\t\t: other\n")
    assert (cpu_model(file), cpu_flags(file)) == ("A Processor", {"fpu", "avx512_bf16"})
    assert cpu_flags(tmp_path / "nothing") == frozenset() and cpu_model(tmp_path / "nothing")
    assert has_bf16() == bool({"avx512_bf16", "amx_bf16"} & cpu_flags())
