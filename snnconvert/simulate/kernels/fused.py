"""A neuron layer on a CUDA device in one kernel: all frames, and the counts of what was sent.

Triton comes with torch's CUDA builds and compiles the kernel where it runs. It was written without such a device: tests
run it in Triton's interpreter and compile it for several devices, no more. So before it serves a model it computes a
small layer whose spikes torch computes on the CPU as well, and where it fails, or is not equal, torch takes over and
the caller can say so. What cannot be caught is a fault that leaves the device unusable for the process.
"""

from __future__ import annotations

import importlib.util
import math

import torch
from torch import Tensor

from snnconvert.allocator import out_of_memory
from snnconvert.errors import InternalError
from snnconvert.graph.kinds import Neuron
from snnconvert.neurons import NeuronModel
from snnconvert.simulate.kernels.layout import out_tensor, per_element
from snnconvert.simulate.kernels.native import Current, Membrane
from snnconvert.simulate.over_time import by_frames, send

# neurons a program of the kernel computes: eight for each of its 128 threads, so that loads are wide
BLOCK = 1024
# a block's units have to fit into 32 bits
MOST_LEVELS = 2**20


def triton_available() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


class FusedNeurons:
    """The kernel for one engine.

    Attributes:
        failure: why torch computes neurons for the rest of the run; empty while the kernel serves.
    """

    def __init__(self) -> None:
        self.failure = ""
        self._checked = set[tuple[NeuronModel, int]]()

    def neurons(
        self, current: Current, membrane: Membrane, frames: int, batch: int, shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor] | None:
        """Spikes of a neuron layer, or None where torch has to compute them.

        Returns:
            float32 spikes (frames * batch, *shape), channels last in memory, and int64 counts (2, frames) of spikes and
            units, both on the device of the current.
        """
        tensors = (current.tensor, membrane.threshold, membrane.initial)
        if self.failure or membrane.model.triton is None or membrane.levels > MOST_LEVELS:
            return None
        if any(one.dtype != torch.float32 for one in tensors):
            return None
        try:
            if (membrane.model, membrane.levels) not in self._checked:
                check(membrane.model, membrane.levels, current.tensor.device)
                self._checked.add((membrane.model, membrane.levels))
            return launch(current, membrane, frames, batch, shape)
        except Exception as error:  # compilers, assemblers, linkers and drivers raise whatever they like
            if out_of_memory(error):
                raise
            reason = next(iter(str(error).strip().splitlines()), "")
            self.failure = (
                f"the GPU kernel for neurons did not work here ({type(error).__name__}: {reason[:200]}): torch "
                "computed them instead, which takes longer (SNNCONVERT_KERNELS=torch: as intended)"
            )
            return None


def launch(
    current: Current, membrane: Membrane, frames: int, batch: int, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Run the kernel; arguments and result as for `FusedNeurons.neurons`."""
    from snnconvert.simulate.kernels.fused_kernel import neuron_layer

    device, elements = current.tensor.device, batch * math.prod(shape)
    if tuple(current.tensor.shape) != ((batch if current.constant else frames * batch), *shape):
        raise InternalError(f"a current of shape {tuple(current.tensor.shape)} does not reach neurons of shape {shape}")
    order = torch.channels_last if current.tensor.ndim == 4 else torch.contiguous_format
    ordered = current.tensor.contiguous(memory_format=order)
    out = out_tensor(frames * batch, shape, torch.float32, device)
    several = membrane.model.peak(membrane.levels) > 1
    blocks = -(-elements // BLOCK)
    counts = torch.empty((2 if several else 1, frames, blocks), dtype=torch.int32, device=device)
    with torch.cuda.device(out.get_device()):  # Triton launches on the current device
        neuron_layer[(blocks,)](
            ordered,
            membrane.threshold,
            membrane.initial,
            out,
            counts[0],
            counts[-1],
            elements,
            frames,
            min(membrane.wait, frames),
            float(membrane.levels),
            membrane.threshold.numel(),
            membrane.initial.numel(),
            model=membrane.model.triton,
            several=several,
            constant=current.constant,
            block=BLOCK,
            enable_fp_fusion=False,
        )
    return out, counts.sum(-1, dtype=torch.int64).expand(2, frames)


def check(model: NeuronModel, levels: int, device: torch.device) -> None:
    """Compare the kernel on `device` with torch on the CPU, on one small layer.

    Raises:
        ArithmeticError: if they differ.
    """
    frames, batch, shape = 9, 2, (37, 7, 5)
    random = torch.Generator().manual_seed(levels)
    threshold = torch.rand((37, 1, 1), generator=random) + 0.1
    current = (torch.randn((frames * batch, *shape), generator=random) + 0.3) * threshold * (0.6 * levels)
    op = Neuron(threshold, threshold / 2, model=model.name, levels=levels)
    expected = send(op, by_frames(current, frames), frames, wait=2)
    there = (per_element(one, shape).to(device) for one in (op.threshold, op.initial))
    found, counts = launch(Current(current.to(device), False), Membrane(model, levels, 2, *there), frames, batch, shape)
    flat = expected.view(frames, -1).abs()
    counted = torch.stack([(flat != 0).sum(1), flat.double().sum(1).long()])
    if not (torch.equal(found.cpu(), expected) and torch.equal(counts.cpu(), counted)):
        raise ArithmeticError(f"its {model.name} neurons are not those of torch")
