"""A box with a graphics card has little else: what `make gpu-check` runs there imports nothing that it may lack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.gpu import TESTS

ROOT = Path(__file__).parents[4]
LACKING = "aiokafka faust mode openvino cryptography model_signing defusedxml tenacity testcontainers docker"
CODE = f"""
import sys

sys.modules.update(dict.fromkeys({LACKING!r}.split()))  # None there: not to be found
import benchmarks.gpu, pytest
sys.exit(pytest.main(["--collect-only", "-q", "--noconftest", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def test_its_tests_and_its_benchmark_are_found_without_the_packages_it_lacks() -> None:
    done = subprocess.run([sys.executable, "-c", CODE, *TESTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
