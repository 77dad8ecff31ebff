"""Importing stays light: each heavy library has one door, and nobody opens it by accident."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[3] / "models"
TORCH_ROOMS = {
    "vit.py",
    "quantizing/snapping.py",
    "training/",
    "engines/torch.py",
    "engines/torch_on_card.py",
}
DOORS = {
    "timm": {"vit.py", "training/initial.py"},
    "openvino": {"engines/openvino.py"},
    "onnxruntime": {"engines/onnxruntime.py", "engines/gpu/graphs.py"},
    "onnx": {"training/export.py", "quantizing/", "releases/foreign.py", "engines/gpu/graphs.py", "engines/gpu/fp8.py"},
    "torch": TORCH_ROOMS,
    "safetensors": {"training/export.py", "training/initial.py", "engines/torch.py"},
    "cv2": {"dataset.py", "evaluation/scoring.py", "training/augment.py", "sources/", "synthesis/"},
    "sklearn": {"training/probe.py"},
    "matplotlib": {"training/curve.py"},
    "stream": set[str](),
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("library", sorted(DOORS))
def test_each_heavy_library_has_its_door(library: str) -> None:
    users = {str(path.relative_to(MODELS)) for path in MODELS.rglob("*.py") if library in imports(path)}
    assert [user for user in sorted(users) if not user.startswith(tuple(DOORS[library]))] == []


@pytest.mark.parametrize(
    "module", ["models", "models.release", "models.runner", "models.engines.openvino", "models.engines.autopilot"]
)
def test_importing_what_serves_brings_in_neither_torch_nor_openvino(module: str) -> None:
    program = f"import sys, {module}; print(*sorted({{'torch', 'timm', 'openvino', 'onnx'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_running_an_engine_needs_no_torch_and_sends_no_telemetry() -> None:
    program = (
        "import sys\n"
        "from models.engines.openvino import openvino_version, telemetry_is_off\n"
        "openvino_version()\n"
        "assert telemetry_is_off()\n"
        "assert 'torch' not in sys.modules\n"
        "assert not any(name.startswith('openvino_telemetry.') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_module_says_in_one_sentence_what_it_is() -> None:
    for path in MODELS.rglob("*.py"):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert text.split("\n")[0].endswith("."), path
