"""Threads that wait must not spin.

torch's idle threads look for work for milliseconds before they go to sleep (libgomp's default). They take the core from
whatever runs between two of torch's parallel operators: on two virtual cores of one physical core a simulation took
three times as long with two threads as with one, and where other processes compete for the cores the owner of the work
waits for threads that are not even running.
"""

from __future__ import annotations

import os


def wait_quietly() -> None:
    """Let torch's idle threads sleep, unless the environment says how they wait; call it before torch is loaded."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
