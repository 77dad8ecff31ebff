"""What a training step freed, the next one takes: nothing is mapped and cleared again."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from models.training.memory import keep_freed_memory

def fault(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"1" * (megabytes << 20)  # touched, and freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

knows = keep_freed_memory()
fault(64)
print(knows, sum(fault(size) for size in (64, 33, 64, 48)))
"""


def test_freed_memory_is_taken_again_without_the_kernel() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    knows, faults = done.stdout.split()
    if knows == "False":
        pytest.skip("this C library has no mallopt: only glibc keeps freed memory when asked to")
    assert int(faults) < 100  # without, of 53,504 pages of 4 KiB all are, and of the 105 huge ones where there are such
