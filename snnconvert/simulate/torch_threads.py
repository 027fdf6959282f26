"""One thread for torch operators that are done before a second one is awake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from snnconvert.graph.kinds import Op

# multiply-adds or elements: a quarter of a millisecond, several times what it takes to wake a thread
SMALL = 1e6


@contextmanager
def threads_for(work: float) -> Iterator[None]:
    """Let torch use one thread only inside the block if `work`, in multiply-adds or elements, is small."""
    usual = torch.get_num_threads()
    if usual == 1 or work >= SMALL:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def work_of(op: Op, inputs: list[Tensor]) -> float:
    """Multiply-adds of a weighted operator (give or take its borders), elements of any other."""
    elements = float(sum(tensor.numel() for tensor in inputs))
    return op.work(elements)
