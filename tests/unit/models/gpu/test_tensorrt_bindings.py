"""What the tests take for TensorRT has the classes, signatures and enumerations of the real 8.6, 10 and 11."""

from __future__ import annotations

import enum
import inspect
from typing import Any

import pytest

from models.engines.gpu.numpy_device import NumpyDevice
from tests.unit.models.gpu import real_tensorrt
from tests.unit.models.gpu.fake_tensorrt import VERSIONS, library
from tests.unit.models.gpu.real_tensorrt import described, obstacle, parameters

ENUMS = {"NetworkDefinitionCreationFlag", "BuilderFlag", "TacticSource", "LayerType", "DataType", "MemoryPoolType"}
DECIDING = (
    ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"),
    ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
    ("ICudaEngine", "create_execution_context_without_device_memory"),
    ("ICudaEngine", "get_device_memory_size_for_profile_v2"),
    ("IExecutionContext", "set_device_memory"),
)
"""What `models/engines/tensorrt.py` asks for to tell the versions apart."""


@pytest.fixture(scope="module", params=VERSIONS)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if reason := obstacle(request.param):
        pytest.skip(reason)
    found = described(request.param, tmp_path_factory.mktemp("stand-ins"))
    assert found["version"] == request.param
    return found


def fake_classes(version: str) -> dict[str, type]:
    found = vars(library(version, NumpyDevice()))
    return {name: one for name, one in found.items() if isinstance(one, type)}


def test_every_class_and_method_is_a_real_one_with_the_same_parameters(real: dict[str, Any]) -> None:
    checked = 0
    for name, kind in fake_classes(real["version"]).items():
        if issubclass(kind, enum.Enum):
            continue
        members = real["classes"][name]
        for member, one in vars(kind).items():
            if member.startswith("__") or isinstance(one, type):
                continue
            assert member in members, f"{name}.{member}"
            if isinstance(one, property):
                assert members[member][0] == "property", f"{name}.{member}"
            elif inspect.isfunction(one):
                wanted = list(inspect.signature(one).parameters)[1:]
                assert wanted in parameters(members[member][1]), f"{name}.{member}"
            checked += 1
    assert checked > 30


def test_what_is_set_on_an_object_is_a_real_property(real: dict[str, Any]) -> None:
    for name, member in (("ILayer", "type"), ("IExecutionContext", "device_memory")):
        assert real["classes"][name][member][0] == "property"
    assert ("precision" in real["classes"]["ILayer"]) == (not real["version"].startswith("11"))
    assert ("progress_monitor" in real["classes"]["IBuilderConfig"]) == ("IProgressMonitor" in real["classes"])


def test_every_enumeration_has_the_names_that_are_used(real: dict[str, Any]) -> None:
    fakes = fake_classes(real["version"])
    for name in ENUMS:
        assert {one.name for one in fakes[name]} <= set(real["enums"][name]), name  # type: ignore[attr-defined]
    for name in ("NetworkDefinitionCreationFlag", "TacticSource"):  # these are sent as bits of one number
        bits = {one.name: int(one) for one in fakes[name]}  # type: ignore[attr-defined]
        assert real["enums"][name] == {**real["enums"][name], **bits}


def test_it_is_told_apart_as_the_real_one_is(real: dict[str, Any]) -> None:
    fakes = fake_classes(real["version"])
    for name, member in DECIDING:
        there = member in real["enums"].get(name, {}) or member in real["classes"][name]
        assert hasattr(fakes[name], member) == there, f"{name}.{member}"
    for name in ("IProgressMonitor", "ExecutionContextAllocationStrategy"):
        assert (name in fakes) == (name in real["classes"]), name
    gone = {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"} & set(real["enums"]["BuilderFlag"])
    assert bool(gone) == (not real["version"].startswith("11"))


def test_starting_objects_take_what_they_are_given(real: dict[str, Any]) -> None:
    wanted = {"Builder": ["logger"], "Runtime": ["logger"], "OnnxParser": ["network", "logger"]}
    for name, names in wanted.items():
        assert names in parameters(real["starts"][name]), name


def test_a_missing_version_is_said_and_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "TensorRT 1.2.3 are not installed" in (obstacle("1.2.3") or "")
    monkeypatch.setattr(real_tensorrt.shutil, "which", lambda _: None)
    assert "cc, nm, readelf is missing" in (obstacle(VERSIONS[0]) or "")
