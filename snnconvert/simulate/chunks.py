"""How many images to simulate at once: as many as keep the widest layer's frames in a fixed amount of memory.

On a CUDA device it is a share of what is free there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import fx

from snnconvert.graph.dialect import calls
from snnconvert.graph.neuron_ops import Neuron
from snnconvert.graph.types import Snn

# layers of so many bytes are read back from the cache that cores share; eight images of ResNet-20 at T = 32
TARGET_BYTES = 16 * 2**20
# of a device's free memory: the rest is for weights, workspaces and fragments
DEVICE_SHARE = 0.5
# tensors as large as the widest layer's frames that are alive at once: spikes, current, a shortcut, copies, membranes
ALIVE = 6
MOST_ON_DEVICE = 4096
# what watchers may look at, counted in neurons times frames: 24 images of ResNet-20 at T = 32, 1 of SqueezeNet
WATCHED = 1.5e8
MEMORY_SIGNS = ("allocate memory", "not enough memory", "out of memory")
Result = TypeVar("Result")


def widest(graph: fx.GraphModule) -> int:
    """Elements of the largest value of one sample, inputs included."""
    most: int = max(math.prod(node.meta["shape"]) for node in graph.graph.nodes if "shape" in node.meta)
    return most


def chunk_size(snn: Snn, target_bytes: int = TARGET_BYTES) -> int:
    """Images per chunk, at least 1; the result of a simulation does not depend on it."""
    return max(1, min(256, target_bytes // (4 * widest(snn.graph) * snn.schedule.frames)))


def planned_size(snn: Snn, device: str) -> int:
    """Images per chunk on `device` once nobody watches any more: by its free memory where that is the device's own."""
    if torch.device(device).type != "cuda":
        return chunk_size(snn)
    free, _ = torch.cuda.mem_get_info(device)
    doubles = any(buffer.dtype == torch.float64 for buffer in snn.graph.buffers())
    each = ALIVE * (8 if doubles else 4) * widest(snn.graph) * snn.schedule.frames
    return max(1, min(MOST_ON_DEVICE, int(DEVICE_SHARE * free) // each))


def watchable(snn: Snn, most: int) -> int:
    """How many images a report looks at closely: fewer for large networks, at least 1, `most` at most."""
    shapes = [node.meta["shape"] for node, op in calls(snn.graph) if isinstance(op, Neuron)]
    each = snn.schedule.frames * sum(math.prod(shape) for shape in shapes)
    return max(1, min(most, int(WATCHED / max(each, 1))))


def out_of_memory(error: Exception) -> bool:
    """Whether `error` says that memory ran out, in Python, torch or the native kernels."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in MEMORY_SIGNS)


def with_smaller_chunks(size: int, work: Callable[[int], Result]) -> tuple[Result, tuple[str, ...]]:
    """`work(size)`, begun again with half the size as often as memory runs out.

    Returns:
        the result, and a note if the size had to change.

    Raises:
        Exception: what `work` raised, if it is not about memory or a single image does not fit.
    """
    now = size
    while True:
        try:
            result = work(now)
        except (MemoryError, RuntimeError) as error:
            if now == 1 or not out_of_memory(error):
                raise
            now //= 2
            continue
        images = "1 image" if now == 1 else f"{now} images"
        note = f"memory ran out with {size} images at once: simulated {images} at a time"
        return result, () if now == size else (note,)
