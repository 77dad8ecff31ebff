"""What a training step freed, the next one takes: nothing is mapped and cleared again."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from models.training.memory import keep_freed_memory

def fault(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"1" * (megabytes << 20)  # touched, and freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

knows = keep_freed_memory() if "keep" in sys.argv else True
fault(64)
print(knows, sum(fault(size) for size in (64, 33, 64, 48)))
"""


def run(*words: str) -> tuple[bool, int]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True)
    knows, faults = done.stdout.split()
    return knows == "True", int(faults)


def test_freed_memory_is_taken_again_without_the_kernel() -> None:
    knows, faults = run("keep")
    if not knows:
        pytest.skip("this C library has no mallopt: only glibc keeps freed memory when asked to")
    assert faults < 1000  # of 53,504 pages of 4 KiB touched


def test_else_it_is_not() -> None:
    """The reason for asking; were it gone, so could be the asking."""
    if not run("keep")[0]:
        pytest.skip("this C library has no mallopt")
    assert run()[1] > 10_000
