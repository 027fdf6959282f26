"""Small networks with the shapes that calibration has to cope with."""

from __future__ import annotations

import torch
from torch import Tensor

from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.calibrate.task import Task
from snnconvert.graph.dialect import Builder
from snnconvert.graph.kinds import Add, Affine, AveragePool, Clip, Concat, Conv, Linear, MaxPool, Op, Relu, Reshape
from snnconvert.graph.schedule import SCHEDULES
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice, Origin, Source

SHAPE = (3, 8, 8)


def conv(draw: torch.Generator, outputs: int, inputs: int, *, size: int = 3, groups: int = 1, stride: int = 1) -> Conv:
    """A convolution with weights that keep the variance."""
    weight = (
        torch.randn(outputs, inputs // groups, size, size, generator=draw) * (2 / (inputs // groups * size**2)) ** 0.5
    )
    bias = torch.randn(outputs, generator=draw) * 0.1
    pad = size // 2
    return Conv(weight, bias, stride=(stride,) * 2, padding=(pad,) * 2, dilation=(1, 1), groups=groups)


def network(kind: str, seed: int = 0) -> Ann:
    """`residual`, `preactivation`, `depthwise`, `concat` (with a max pool), `units` (of a function) or `plain`."""
    draw = torch.Generator().manual_seed(seed)
    builder = Builder({"input": torch.rand(2, *SHAPE, generator=draw)})
    count = iter(range(100))

    def call(op: Op, *inputs: torch.fx.Node) -> torch.fx.Node:
        return builder.call(op, *inputs, origin=Origin(f"{type(op).__name__.lower()}{next(count)}", "test"))

    x = call(conv(draw, 8, 3), builder.inputs["input"])
    if kind == "preactivation":
        for _ in range(2):
            x = call(Add(), x, call(conv(draw, 8, 8), call(Relu(), call(conv(draw, 8, 8), call(Relu(), x)))))
        x = call(Relu(), x)
    else:
        if kind == "units":
            shifts = [torch.tensor([-0.5 * index]) for index in range(4)]
            pieces = [call(Clip(high=0.5), call(Affine(torch.ones(1), shift), x)) for shift in shifts]
            x = call(conv(draw, 8, 32), call(Concat(dim=1), *pieces))
        x = call(Relu(), x)
        if kind == "residual":
            inner = call(Relu(), call(conv(draw, 8, 8), x))
            x = call(Relu(), call(Add(), call(conv(draw, 8, 8), inner), x))
        elif kind == "depthwise":
            x = call(Relu(), call(conv(draw, 8, 8, groups=8), x))
            x = call(Relu(), call(conv(draw, 8, 8, size=1, groups=2), x))
        elif kind == "concat":
            pooled = call(MaxPool(kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1)), x)
            left = call(Relu(), call(conv(draw, 4, 8, size=1), pooled))
            right = call(Relu(), call(conv(draw, 4, 8), pooled))
            x = call(Concat(dim=1), left, right)
        x = call(Relu(), call(conv(draw, 8, 8), x))
    x = call(AveragePool(kernel=(4, 4), stride=(4, 4), padding=(0, 0)), x)
    x = call(Reshape(shape=(x.meta["shape"][0] * x.meta["shape"][1] * x.meta["shape"][2],)), x)
    features = x.meta["shape"][0]
    weight = torch.randn(5, features, generator=draw) / features**0.5
    graph = builder.finish([call(Linear(weight, torch.zeros(5)), x)])
    return Ann(graph, SHAPE, ("logits",), Source(kind, "", "", "test"))


def images(count: int, seed: int = 1) -> Tensor:
    """Smooth random images."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 3, 3, generator=draw)
    return torch.nn.functional.interpolate(coarse, size=SHAPE[1:], mode="bilinear", align_corners=True)


def task(
    ann: Ann,
    inputs: Tensor,
    *,
    timesteps: int = 6,
    neuron: str = "if",
    levels: int = 1,
    kind: str = "streaming",
    options: dict[str, object] | None = None,
    **plan: object,
) -> Task:
    """A calibration task."""
    schedule = SCHEDULES[kind](timesteps, max(site_depths(ann.graph).values()), **plan)
    return Task(ann, in_canonical_order(inputs), schedule, NeuronChoice(neuron, levels), dict(options or {}))
