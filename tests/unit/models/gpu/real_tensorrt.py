"""The real bindings of TensorRT, imported without TensorRT: on libraries that have every name and do nothing.

`make test` fetches the bindings (a few megabytes each) into the environment's folder `tensorrt`. They are imported in a
process of their own, which prints what classes, signatures and enumerations there are.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(sys.prefix) / "tensorrt"
NEEDED_NAME = re.compile(r"^(create|get|initLib).*(_INTERNAL|Registry|Version|Plugins)$|nvcaffeparser|nvuffparser")
SIGNATURE = re.compile(r"(?:\d+\. )?\w+\(self: [\w.]+(?:, (?P<rest>.*))?\) ->")

DESCRIBE = """
import enum, json, tensorrt_bindings as trt

def members(kind):
    for name in dir(kind):
        if not name.startswith("__"):
            found = getattr(kind, name)
            yield name, ["property", ""] if isinstance(found, property) else ["other", found.__doc__ or ""]

kinds = {name: found for name, found in vars(trt).items() if isinstance(found, type)}
print(json.dumps({
    "version": trt.__version__,
    "classes": {name: dict(members(kind)) for name, kind in kinds.items()},
    "starts": {name: kind.__init__.__doc__ or "" for name, kind in kinds.items()},
    "enums": {name: {one: int(value) for one, value in kind.__members__.items()}
              for name, kind in kinds.items() if hasattr(kind, "__members__")},
}))
"""


def obstacle(version: str) -> str | None:
    """Why the bindings of that version cannot be looked at here; None if they can."""
    missing = [tool for tool in ("cc", "nm", "readelf") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is missing: install a C compiler and binutils"
    if not (FOLDER / version).is_dir():
        return f"the bindings of TensorRT {version} are not installed: run make test, or there are none for this Python"
    return None


def described(version: str, stand_ins: Path) -> dict[str, Any]:
    """What the bindings of that version hold."""
    bindings = FOLDER / version
    library = bindings / "tensorrt_bindings" / "tensorrt.so"
    wanted = _output("nm", "-D", "--undefined-only", library).split()
    names = [name for name in wanted if NEEDED_NAME.search(name)]
    needed = re.findall(r"NEEDED.*\[(libnv[^]]*)\]", _output("readelf", "-d", library))
    for file in needed:
        source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in names if file.startswith("libnvinfer.so"))
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{file}", "-o", str(stand_ins / file), "-x", "c", "-"]
        subprocess.run(command, input=source or "int nothing;", text=True, check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stand_ins), "PYTHONPATH": str(bindings)}
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def parameters(doc: str) -> list[list[str]]:
    """Parameter names of every overload that a docstring of the bindings lists, without the first one, `self`."""
    overloads = (SIGNATURE.match(line) for line in doc.splitlines())
    without_values = (re.sub(r"\[[^]]*\]|<[^>]*>", "", one["rest"] or "") for one in overloads if one)
    return [re.findall(r"(\w+): ", one) for one in without_values]


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
