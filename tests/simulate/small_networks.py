"""Small networks with every kind of synapse, whose operations can be counted one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from snnconvert.compile.network import compile_network
from snnconvert.graph.dialect import Builder, sites
from snnconvert.graph.kinds import Add, AveragePool, Conv, Linear, MaxPool, Mean, Pad, Relu, Reshape
from snnconvert.graph.schedule import SCHEDULES
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, Calibrated, NeuronChoice, Origin, SiteCalibration, Snn, Source

SHAPE = (2, 6, 6)


def small_ann(seed: int = 0, *, pool: str = "sum") -> Ann:
    """Stem, strided grouped convolution, residual block, pooling (sum, max, mean or none) and a classifier."""
    draw = torch.Generator().manual_seed(seed)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw) * 0.5

    def conv(*shape: int, stride: int = 1, groups: int = 1) -> Conv:
        pad = shape[-1] // 2
        weight = tensor(*shape)
        weight[0, 0] = 0.0
        return Conv(weight, tensor(shape[0]), stride=(stride,) * 2, padding=(pad,) * 2, dilation=(1, 1), groups=groups)

    builder = Builder({"input": torch.rand(2, *SHAPE, generator=draw)})
    names: list[str] = []

    def call(op: torch.nn.Module, *inputs: object) -> object:
        names.append(type(op).__name__.lower())
        return builder.call(op, *inputs, origin=Origin(f"{names[-1]}{len(names)}", "test"))  # type: ignore[arg-type]

    x = call(Relu(), call(conv(4, 2, 3, 3), builder.inputs["input"]))
    x = call(Relu(), call(conv(6, 2, 3, 3, stride=2, groups=2), x))
    x = call(Relu(), call(Add(), call(conv(6, 6, 3, 3), x), x))
    pools = {
        "sum": AveragePool(kernel=(2, 2), stride=(1, 1), padding=(0, 0)),
        "max": MaxPool(kernel=(2, 2), stride=(1, 1), padding=(1, 1), dilation=(1, 1)),
        "mean": Mean(dims=(2, 3), keepdim=True),
        "none": Pad(pads=(1, 0, 0, 1)),
    }
    x = call(pools[pool], x)
    if pool != "mean":
        x = call(Relu(), call(conv(5, 6, 3, 3), x))
    size = int(torch.tensor(x.meta["shape"]).prod())  # type: ignore[attr-defined]
    x = call(Linear(tensor(3, size), tensor(3)), call(Reshape(shape=(size,)), x))
    graph = builder.finish([x])  # type: ignore[list-item]
    return Ann(graph, SHAPE, ("logits",), Source("small", "", "", "test"))


def small_snn(
    seed: int = 0,
    *,
    pool: str = "sum",
    timesteps: int = 7,
    neuron: str = "if",
    levels: int = 1,
    kind: str = "streaming",
    unit: float = 0.6,
    **schedule: object,
) -> tuple[Snn, Ann]:
    """The network as a spiking one; `unit` is the value of the largest activation that can be sent."""
    ann = small_ann(seed, pool=pool)
    depth = max(site_depths(ann.graph).values())
    plan = SCHEDULES[kind](timesteps, depth, **schedule)
    found = {}
    for node, _ in sites(ann.graph):
        channels = node.meta["shape"][0]
        bound = unit * (1 + torch.arange(channels, dtype=torch.float32) % 3).reshape(-1, 1, 1)
        if pool == "max" or len(node.meta["shape"]) == 1:
            bound = torch.full_like(bound, unit)
        each = plan.levels if kind == "bistable" else levels
        found[node.name] = SiteCalibration(bound / each, bound * 0 + 0.5)
    found_for = Calibrated(ann, found, plan, NeuronChoice(neuron, levels), input_bound=2.0)
    return compile_network(found_for), ann


def pictures(count: int, seed: int = 1) -> Tensor:
    values = torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(seed))
    return values * (values > 0.3)
