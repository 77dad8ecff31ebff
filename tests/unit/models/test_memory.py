"""What a training step freed, the next one takes: nothing is mapped and cleared again."""

import subprocess
import sys
from pathlib import Path

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


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
WELCOME = """
from models.training.memory import ROOM, keep_freed_memory

if keep_freed_memory():
    sizes, flags = [], []
    for line in open("/proc/self/smaps"):
        words = line.split()
        if "-" in words[0]:
            in_heap = words[-1] == "[heap]"
        elif in_heap and words[0] == "Size:":
            sizes.append(int(words[1]) << 10)
        elif in_heap and words[0] == "VmFlags:":
            flags.append("hg" in words)
    print(sum(size for size, welcome in zip(sizes, flags, strict=True) if welcome) >= ROOM)
"""


def test_what_is_kept_may_come_in_huge_pages() -> None:
    if not HUGE_PAGES.exists():
        pytest.skip(f"this kernel has no huge pages to give: {HUGE_PAGES} is missing")
    done = subprocess.run([sys.executable, "-c", WELCOME], capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip("this C library has no mallopt: only glibc keeps freed memory when asked to")
    assert done.stdout.strip() == "True"
