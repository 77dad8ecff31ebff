"""The walls of the house stand: who may import whom, which heavy library has which door, what starts light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in ("stream", "models") for path in (ROOT / package).rglob("*.py"))

DOORS = {
    "aiokafka": ("stream/transport/kafka",),
    "faust": ("stream/findings/faust_app.py",),
    "cv2": ("stream/photo/", "models/"),
    "simplejpeg": ("stream/photo/", "models/"),
    "prometheus_client": ("stream/metrics.py",),
    "openvino": ("models/engines/openvino.py",),
    "onnxruntime": ("models/engines/onnxruntime.py", "models/engines/gpu/graphs.py"),  # one runs, one rewrites graphs
    "tensorrt": ("models/engines/tensorrt.py",),
    "cuda": ("models/engines/gpu/cuda_bindings.py",),
    "pycuda": ("models/engines/gpu/pycuda.py",),
    "timm": ("models/vit.py", "models/training/initial.py"),
}
"""Heavy library -> where it may be imported. A role makes the registry, hence the exception below."""
EXCEPTIONS = {("stream/worker/role.py", "prometheus_client"), ("stream/findings/role.py", "prometheus_client")}

PURE = (
    "stream/worker/tiling.py",
    "stream/worker/batching.py",
    "stream/worker/assembly.py",
    "stream/worker/regions.py",
    "stream/worker/ledger.py",
    "stream/worker/breaker.py",
    "stream/worker/judge.py",
    "stream/findings/order.py",
    "stream/findings/rules.py",
)
NOT_PURE = {"time", "os", "pathlib", "asyncio", "sqlite3", "socket", "logging", "random", "threading", "subprocess"}
ADAPTERS = ("stream/transport/local.py", "stream/transport/kafka.py", "stream/findings/faust_app.py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_each_heavy_library_has_one_door(path: Path) -> None:
    for module in imports(path):
        top = module.partition(".")[0]
        doors = DOORS.get(top)
        allowed = doors is None or name(path).startswith(doors) or (name(path), top) in EXCEPTIONS
        assert allowed, f"{name(path)} imports {module}; its door is {doors}"


@pytest.mark.parametrize("path", [path for path in MODULES if name(path).startswith("models/")], ids=name)
def test_models_never_import_stream(path: Path) -> None:
    assert not [module for module in imports(path) if module.partition(".")[0] == "stream"]


@pytest.mark.parametrize("module", ["stream/messages.py", "stream/errors.py"])
def test_messages_and_errors_import_nothing_of_ours_but_each_other(module: str) -> None:
    ours = {
        found.partition(".")[0] + "." + found.split(".")[1] for found in imports(ROOT / module) if "stream." in found
    }
    assert ours <= {"stream.errors"}


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_do_no_io_and_have_no_clock(module: str) -> None:
    found = set(imports(ROOT / module))
    assert not {one.partition(".")[0] for one in found} & NOT_PURE
    assert not {one for one in found if one.startswith(("stream.config", "stream.metrics"))}


def test_adapters_never_import_one_another() -> None:
    dotted = {adapter.removesuffix(".py").replace("/", ".") for adapter in ADAPTERS}
    for adapter in ADAPTERS:
        if (ROOT / adapter).exists():
            others = dotted - {adapter.removesuffix(".py").replace("/", ".")}
            assert not others & set(imports(ROOT / adapter))


STANDARD_NAMES = {"stream/__main__.py", "models/__main__.py", "stream/site.py"}
"""`site` is the project's own word for a box with all its roles, and it is only ever imported as `stream.site`."""

LIGHT = {
    "stream": {"torch", "openvino", "tensorrt", "faust", "aiokafka", "cv2", "numpy"},
    "stream.uploader": {"torch", "openvino", "cv2", "numpy", "models"},
    "stream.cli": {"torch", "openvino", "tensorrt", "faust"},
    "stream.worker.role": {"torch", "openvino", "timm"},
    "models": {"torch", "openvino", "timm"},
}


@pytest.mark.parametrize("module", LIGHT)
def test_importing_stays_light(module: str) -> None:
    """In a process of its own, since this one has imported everything already."""
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {one.partition(".")[0] for one in done.stdout.split()}
    assert not loaded & LIGHT[module]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_opens_with_one_sentence(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring and docstring.splitlines()[0].rstrip().endswith((".", ":", "`."))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_module_carries_a_standard_library_name_at_the_top_of_a_package(path: Path) -> None:
    if len(path.relative_to(ROOT).parts) == 2 and name(path) not in STANDARD_NAMES:
        assert path.stem not in sys.stdlib_module_names
