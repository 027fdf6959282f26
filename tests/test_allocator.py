"""Freed memory is kept for the next tensor, and can be handed back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from snnconvert.allocator import keep_freed_memory

# 64 MiB blocks taken and freed again and again: how many page faults does that cost, and what stays resident?
PROGRAM = """
import resource, sys
import torch
from snnconvert.allocator import hand_back_memory, keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def resident(): return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20
torch.zeros(1 << 24)
before = faults()
for _ in range(60):
    torch.ones(1 << 24)
used, kept = faults() - before, resident()
hand_back_memory()
print(used, kept - resident())
"""


def measured(how: str) -> tuple[int, int]:
    """Page faults, and MiB handed back at the end."""
    found = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout
    faults, handed_back = map(int, found.split())
    return faults, handed_back


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_kept_memory_is_not_faulted_in_again() -> None:
    faults, handed_back = measured("leave")
    assert handed_back < 32
    kept_faults, kept_handed_back = measured("keep")
    assert kept_faults < faults / 4
    assert kept_handed_back >= 56


ACCOUNT = """
import torch
from snnconvert.allocator import keep_freed_memory, kept_memory
keep_freed_memory()
block = torch.ones(1 << 24)
before = kept_memory()
del block
print(kept_memory() - before)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_kept_memory_is_accounted_for() -> None:
    found = subprocess.run([sys.executable, "-c", ACCOUNT], capture_output=True, text=True, check=True).stdout
    assert abs(int(found) - (1 << 26)) < 1 << 20


BEYOND = """
import resource
import torch
from snnconvert.allocator import hand_back_beyond, keep_freed_memory
keep_freed_memory()
def resident(): return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20
blocks = [torch.ones(1 << 24) for _ in range(12)]
last = torch.ones(1 << 10)
del blocks
full = resident()
hand_back_beyond(1 << 40)
enough = resident()
hand_back_beyond(1 << 29)
print(full - enough, enough - resident())
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_only_what_is_beyond_the_limit_is_handed_back() -> None:
    found = subprocess.run([sys.executable, "-c", BEYOND], capture_output=True, text=True, check=True).stdout
    early, late = map(int, found.split())
    assert early == 0
    assert late > 500


GROWN = BEYOND.replace("blocks =", "import snnconvert.allocator as own\nown._next_asked[0] = float('inf')\nblocks =")


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_however_lately_the_library_was_asked_memory_does_not_pile_up() -> None:
    assert GROWN != BEYOND
    found = subprocess.run([sys.executable, "-c", GROWN], capture_output=True, text=True, check=True).stdout
    assert int(found.split()[1]) > 500
