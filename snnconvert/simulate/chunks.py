"""How many images to simulate at once: as many as keep the widest values over time in a fixed amount of memory.

On a CUDA device it is a share of what is free there. Where memory runs out all the same, it is half as many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import fx

from snnconvert.allocator import hand_back_beyond, out_of_memory
from snnconvert.graph.dialect import arguments, calls, neurons_of, role_of
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Conv, Neuron, Op, Role
from snnconvert.graph.types import Snn
from snnconvert.simulate.kernels import choose
from snnconvert.simulate.kernels.native import MOST_TERMS
from snnconvert.simulate.spike_layers import may_wait

# values of so many bytes are read back from the cache that cores share: floats (eight images of ResNet-20 at T = 32
# without native kernels), and spikes (32 of them), which take part in more layers at once
TARGET_BYTES, SPIKE_BYTES = 16 * 2**20, 2 * 2**20
# inputs that vary over time for longer than that are simulated piece by piece
LONG_BYTES = 64 * 2**20
# of a device's free memory: the rest is for weights, workspaces and fragments
DEVICE_SHARE = 0.5
# tensors as large as the widest layer's frames that are alive at once: spikes, current, a shortcut, copies, membranes
ALIVE = 6
MOST_ON_DEVICE = 4096
# what watchers may look at, counted in neurons times frames: 24 images of ResNet-20 at T = 32, 1 of SqueezeNet
WATCHED = 1.5e8
Result = TypeVar("Result")


def widest(graph: fx.GraphModule) -> int:
    """Elements of the largest value of one sample, inputs included."""
    most: int = max(math.prod(node.meta["shape"]) for node in graph.graph.nodes if "shape" in node.meta)
    return most


def frame_bytes(snn: Snn) -> tuple[float, float]:
    """Bytes for each sample and frame of the widest floats that the layer engine keeps, and of its widest spikes.

    What is constant in time, and what kernels compute in passing, takes nothing.
    """
    if snn.schedule.windowed or choose() is None:
        return 4.0 * widest(snn.graph), 0.0
    flow, floats, spikes = flows(snn.graph), 0.0, 0.0
    sent: dict[fx.Node, float] = {}  # bytes of a spike
    for node, op in calls(snn.graph):
        size, sources = math.prod(node.meta["shape"]), arguments(node)
        if flow[node] == Flow.CONSTANT:
            continue
        if op.role == Role.EVENTS:
            sent[node] = 1.0
        elif isinstance(op, Neuron) and op.row.native is not None:
            sent[node] = (op.row.planes(op.levels) or 8) / 8
        elif sources and op.keeps_spikes and all(source in sent for source in sources):
            sent[node] = 1.0 if op.role == Role.POOL else max(sent[source] for source in sources)
        elif not _in_passing(node, op):
            floats = max(floats, 4.0 * size)
        spikes = max(spikes, size * sent.get(node, 0.0))
    return floats, spikes


def _in_passing(node: fx.Node, op: Op) -> bool:
    """Whether the kernel of the neurons that read `node` computes it."""
    by_kernel = may_wait(node, op)
    if isinstance(op, Conv):
        by_kernel = by_kernel and op.weight.ndim == 4 and (op.groups == 1 or op.weight.shape[1] == 1)
    elif op.role == Role.JOIN:  # one of several sums, or too many summands, is finished first
        sums = [source for source in arguments(node) if role_of(source) == Role.JOIN]
        by_kernel = by_kernel and len(sums) < 2 and len(arguments(node)) + len(sums) <= MOST_TERMS
    joined = all(role_of(user) in (Role.NEURON, Role.JOIN) for user in node.users)
    return by_kernel and joined


def chunk_size(snn: Snn, target_bytes: int = TARGET_BYTES, spike_bytes: int = SPIKE_BYTES) -> int:
    """Images per chunk, at least 1; the result of a simulation does not depend on it."""
    floats, spikes = (max(each * snn.schedule.frames, 1.0) for each in frame_bytes(snn))
    return max(1, min(256, int(target_bytes / floats), int(spike_bytes / spikes)))


def steps_at_once(snn: Snn, images: int) -> int:
    """Steps of so many inputs that vary over time that are simulated at once by whoever goes on piece by piece.

    All values over time are floats there, the input doubles.
    """
    each = 4.0 * max(widest(snn.graph), 2 * math.prod(snn.input_shape))
    return max(1, int(TARGET_BYTES / (each * max(images, 1))))


def pieces(snn: Snn, images: int, steps: int) -> Iterator[tuple[int, int]]:
    """Where the pieces of so many steps begin and end.

    What is kept of each (answers, membranes) lies between what is freed, which then does not fit together any more:
    without handing it back memory would grow with the number of pieces.
    """
    each = steps_at_once(snn, images)
    for start in range(0, steps, each):
        yield start, min(start + each, steps)
        hand_back_beyond(LONG_BYTES)


def is_long(snn: Snn, images: int) -> bool:
    """Whether so many inputs that vary over time take too much memory at once."""
    each = max(*frame_bytes(snn), 8.0 * math.prod(snn.input_shape))
    return snn.schedule.frames * each * images > LONG_BYTES


def planned_size(snn: Snn, device: str) -> int:
    """Images per chunk on `device` once nobody watches any more: by its free memory where that is the device's own."""
    if torch.device(device).type != "cuda":
        return chunk_size(snn)
    free, _ = torch.cuda.mem_get_info(device)
    doubles = any(buffer.dtype == torch.float64 for buffer in snn.graph.buffers())
    each = ALIVE * (8 if doubles else 4) * widest(snn.graph) * snn.schedule.frames
    return max(1, min(MOST_ON_DEVICE, int(DEVICE_SHARE * free) // each))


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


def watchable(snn: Snn, most: int) -> int:
    """How many images a report looks at closely: fewer for large networks, at least 1, `most` at most."""
    shapes = [node.meta["shape"] for node in neurons_of(snn.graph)]
    each = snn.schedule.frames * sum(math.prod(shape) for shape in shapes)
    return max(1, min(most, int(WATCHED / max(each, 1))))
