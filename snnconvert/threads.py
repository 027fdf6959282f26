"""Threads that wait must not spin, and small operators need no second one.

torch's idle threads look for work for milliseconds before they go to sleep (libgomp's default). They take the core from
whatever runs between two of torch's parallel operators: on two virtual cores of one physical core a simulation took
three times as long with two threads as with one, and where other processes compete for the cores the owner of the work
waits for threads that are not even running.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# multiply-adds or elements: a quarter of a millisecond, several times what it takes to wake a thread
SMALL = 1e6


def wait_quietly() -> None:
    """Let torch's idle threads sleep, unless the environment says how they wait; call it before torch is loaded."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


@contextmanager
def threads_for(work: float) -> Iterator[None]:
    """Let torch use one thread only inside the block if `work`, in multiply-adds or elements, is small."""
    import torch  # `wait_quietly` comes before

    usual = torch.get_num_threads()
    with threads(1 if work < SMALL else usual):
        yield


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside the block: floating sums round alike only among as many."""
    import torch

    usual = torch.get_num_threads()
    if usual == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(usual)
