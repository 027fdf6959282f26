"""Which core of a chip a layer would go to: its kernel and its neurons have to fit into the memories of one.

A core holds one kernel, the neurons that it drives, and their biases. As DynapCNN and Speck count memory, with every
side rounded up to a power of two (sinabs, `backend/dynapcnn`):

    kernel words   c 2^(ceil log2 (kh kw) + ceil log2 f)
    neuron words   f 2^(ceil log2 h + ceil log2 w)

for c channels in, f out, kernels of kh x kw and maps of h x w before pooling. A matrix product is a kernel over the
whole map. Layers are assigned to cores by a maximum matching.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from snnconvert.graph.dialect import arguments, neurons_of, op_of, origin_of, output_nodes, role_of
from snnconvert.graph.kinds import Role, Weighted
from snnconvert.graph.types import Snn


@dataclass(frozen=True)
class Placed:
    """A layer: a kernel with the neurons that it drives, or the read-out.

    Attributes:
        layer: the user's name for it.
        kernels: weighted sums and shortcuts that drive the same neurons; a core has room for one.
        kernel, neurons, biases: words of memory; of the largest kernel if there are several.
        core: where it goes; None if no free core holds it.
    """

    layer: str
    kernels: int
    kernel: int
    neurons: int
    biases: int
    core: int | None = None


def placed(snn: Snn, kernel_memory: Sequence[int], neuron_memory: Sequence[int]) -> list[Placed]:
    """Every layer of `snn`, in data-flow order, with the core it goes to.

    Args:
        kernel_memory, neuron_memory: words of each core.
    """
    ends = [*neurons_of(snn.graph), *output_nodes(snn.graph)]
    layers = [_layer(end) for end in ends if role_of(end) == Role.NEURON or not _is_spikes(end)]
    fitting = [
        [core for core, most in enumerate(kernel_memory) if one.kernel <= most and one.neurons <= neuron_memory[core]]
        if one.kernels == 1
        else []
        for one in layers
    ]
    cores = matching(fitting)
    return [
        Placed(one.layer, one.kernels, one.kernel, one.neurons, one.biases, cores.get(index))
        for index, one in enumerate(layers)
    ]


def _is_spikes(node: fx.Node) -> bool:
    """Whether an output is read off spikes, which takes no core: moved, or times what one of them is worth."""
    while role_of(node) in (Role.AFFINE, Role.WIRING) and len(arguments(node)) == 1:
        (node,) = arguments(node)
    return role_of(node) in (Role.NEURON, Role.DELAY)


def matching(fitting: Sequence[Sequence[int]]) -> dict[int, int]:
    """The core of as many layers as possible, by augmenting paths; `fitting` has the cores that each may go to."""
    taken: dict[int, int] = {}

    def place(layer: int, tried: set[int]) -> bool:
        for core in fitting[layer]:
            if core not in tried:
                tried.add(core)
                if core not in taken or place(taken[core], tried):
                    taken[core] = layer
                    return True
        return False

    for layer in range(len(fitting)):
        place(layer, set())
    return {layer: core for core, layer in taken.items()}


def _layer(end: fx.Node) -> Placed:
    found, todo = dict[fx.Node, None](), arguments(end) if role_of(end) == Role.NEURON else [end]
    while todo:
        node = todo.pop()
        if node.op == "call_module" and op_of(node).passes_units:
            todo += arguments(node)
        elif node.op == "call_module":
            found[node] = None
    sizes = [_kernel(node) for node in found if role_of(node) == Role.WEIGHTED]
    channels, *sides = (*tuple(end.meta["shape"]), 1, 1)[:3]
    neurons = channels * 2 ** sum(_bits(side) for side in sides)
    return Placed(str(origin_of(end)), len(found), max(sizes, default=0), neurons, channels)


def _kernel(node: fx.Node) -> int:
    op, source = op_of(node, Weighted), arguments(node)[0]
    if not op.features_last:
        return int(op.inputs * 2 ** (_bits(math.prod(op.weight.shape[2:])) + _bits(op.outputs)))
    while len(source.meta["shape"]) < 3 and role_of(source) == Role.WIRING:
        (source, *_) = arguments(source)
    channels, *sides = tuple(source.meta["shape"]) if math.prod(source.meta["shape"]) == op.inputs else (op.inputs,)
    return int(channels * 2 ** (_bits(math.prod(sides)) + _bits(op.outputs)))


def _bits(size: int) -> int:
    return (size - 1).bit_length()
