"""Small random networks with every kind of join and pooling, whose arithmetic is exact in binary."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, fx

from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.graph.dialect import Builder, arguments, calls, output_nodes, sites
from snnconvert.graph.kinds import Add, AveragePool, Concat, Conv, Linear, MaxPool, Op, Pad, Relu, Reshape, Slice
from snnconvert.graph.schedule import Bistable, Schedule, Wait
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, Calibrated, NeuronChoice, Origin, SiteCalibration, Snn, Source

CHANNELS, SIZE = 2, 4


@dataclass
class Network:
    """Builds one random network, block by block; all weights are multiples of 1/8."""

    rng: np.random.Generator
    names: int = 0
    builder: Builder = field(init=False)

    def __post_init__(self) -> None:
        self.builder = Builder({"input": torch.zeros(2, CHANNELS, SIZE, SIZE)})

    def call(self, op: Op, *inputs: fx.Node) -> fx.Node:
        self.names += 1
        return self.builder.call(op, *inputs, origin=Origin(f"{type(op).__name__.lower()}_{self.names}", "test"))

    def dyadic(self, *shape: int, bits: int = 3, reach: int = 8) -> Tensor:
        return torch.tensor(self.rng.integers(-reach, reach + 1, shape), dtype=torch.float32) / 2**bits

    def conv(self, x: fx.Node, channels: int = CHANNELS, kernel: int = 1) -> fx.Node:
        weight = self.dyadic(channels, x.meta["shape"][0], kernel, kernel)
        bias = self.dyadic(channels) if self.rng.random() < 0.7 else None
        pad = (kernel // 2,) * 2
        return self.call(Conv(weight, bias, stride=(1, 1), padding=pad, dilation=(1, 1)), x)

    def relu(self, x: fx.Node) -> fx.Node:
        return self.call(Relu(), x)

    def branch(self, x: fx.Node, layers: int) -> fx.Node:
        for _ in range(layers):
            x = self.conv(self.relu(x) if self.rng.random() < 0.2 else x, kernel=int(self.rng.choice([1, 3])))
            x = self.relu(x)
        return x

    def block(self, x: fx.Node) -> fx.Node:
        channels, fits = x.meta["shape"][0], x.meta["shape"][-1] == SIZE
        blocks = {"plain": self.plain, "residual": self.residual, "projection": self.projection, "pre": self.pre}
        blocks |= {"concat": self.concat, "wide": self.wide}
        if fits:
            blocks |= {"option_a": self.option_a, "max": self.max, "mean": self.mean}
        if fits and channels == CHANNELS:
            blocks |= {"input": self.input}
        return blocks[str(self.rng.choice(sorted(blocks)))](x)

    def plain(self, x: fx.Node) -> fx.Node:
        return self.branch(x, 1)

    def residual(self, x: fx.Node) -> fx.Node:
        main = self.conv(self.branch(x, int(self.rng.integers(0, 3))), x.meta["shape"][0])
        return self.relu(self.call(Add(), main, x))

    def projection(self, x: fx.Node) -> fx.Node:
        return self.relu(self.call(Add(), self.conv(x), self.conv(self.branch(x, 1))))

    def option_a(self, x: fx.Node) -> fx.Node:
        half = self.call(Slice(dim=2, start=0, stop=SIZE, step=2), x)
        half = self.call(Slice(dim=3, start=0, stop=SIZE, step=2), half)
        padded = self.call(Pad(pads=(0, 0, 0, 0, 1, 1)), half)
        return self.relu(self.call(Add(), self.conv(self.mean(self.branch(x, 1)), x.meta["shape"][0] + 2), padded))

    def concat(self, x: fx.Node) -> fx.Node:
        return self.relu(self.conv(self.call(Concat(dim=1), self.branch(x, 1), x, self.branch(x, 2))))

    def wide(self, x: fx.Node) -> fx.Node:
        joined = self.call(Concat(dim=1), x, self.branch(x, 1))
        return self.call(Concat(dim=1), joined, self.branch(joined, 1))

    def max(self, x: fx.Node) -> fx.Node:
        kernel, stride, padding = ((2, 2), (2, 2), (0, 0)) if self.rng.random() < 0.5 else ((3, 3), (1, 1), (1, 1))
        return self.call(MaxPool(kernel=kernel, stride=stride, padding=padding, dilation=(1, 1)), self.relu(x))

    def mean(self, x: fx.Node) -> fx.Node:
        return self.call(AveragePool(kernel=(2, 2), stride=(2, 2), padding=(0, 0)), self.relu(x))

    def pre(self, x: fx.Node) -> fx.Node:
        stream = self.conv(x, x.meta["shape"][0])
        main = self.branch(self.relu(stream), 1)
        stream = self.call(Add(), stream, self.conv(main, x.meta["shape"][0]))
        return self.call(Add(), stream, self.conv(self.relu(stream), x.meta["shape"][0]))

    def input(self, x: fx.Node) -> fx.Node:
        (image,) = self.builder.inputs.values()
        return self.relu(self.call(Add(), self.conv(x, CHANNELS), image))

    def finish(self) -> Ann:
        (x,) = self.builder.inputs.values()
        x = self.relu(self.conv(x))
        for _ in range(int(self.rng.integers(1, 4))):
            x = self.block(x)
        size = int(np.prod(x.meta["shape"]))
        x = self.call(Reshape(shape=(size,)), x)
        x = self.call(Linear(self.dyadic(3, size), self.dyadic(3)), x)
        graph = self.builder.finish([x])
        return Ann(graph, (CHANNELS, SIZE, SIZE), ("logits",), Source("random", "", "", "test"))


def random_ann(seed: int) -> Ann:
    return Network(np.random.default_rng(seed)).finish()


def images(seed: int, count: int = 2) -> Tensor:
    values = np.random.default_rng(seed).integers(-64, 65, (count, CHANNELS, SIZE, SIZE))
    return torch.tensor(values, dtype=torch.float32) / 32


def calibrated(ann: Ann, schedule: Schedule, seed: int) -> Calibrated:
    """Thresholds of one to three significant bits; before a max pooling one per layer."""
    rng = np.random.default_rng(seed)
    found = {}
    for node, _ in sites(ann.graph):
        shape = node.meta["shape"]
        unit = rng.integers(1, 8, (shape[0],)) * 2.0 ** rng.integers(-5, -2)
        threshold = torch.tensor(unit, dtype=torch.float32).reshape(-1, *([1] * (len(shape) - 1)))
        found[node.name] = SiteCalibration(threshold, threshold * 0 + schedule.initial)
    return Calibrated(ann, found, schedule, NeuronChoice(), input_bound=4.0)


def random_snn(seed: int, **options: object) -> tuple[Snn, Ann, Calibrated]:
    """A random network in a bistable schedule of one window, unless `frames` asks for more."""
    frames = int(str(options.pop("frames", 1)))
    ann = random_ann(seed)
    probe = Bistable(10**6, 1, **options)  # type: ignore[arg-type]
    ann = with_identity_sites(ann, probe)
    depth = max(site_depths(ann.graph).values())
    total = (depth + 1 + 2 * (frames - 1)) * probe.window
    schedule = Bistable(total, depth, **options)  # type: ignore[arg-type]
    calibration = calibrated(ann, schedule, seed)
    return compile_network(calibration), ann, calibration


def waiting_snn(seed: int, *, model: str, wait: int, frames: int) -> Snn:
    """A random network in a waiting schedule."""
    ann = with_identity_sites(random_ann(seed), Wait(10**6, 1, wait=wait))
    depth = max(site_depths(ann.graph).values())
    schedule = Wait(depth * wait + frames, depth, wait=wait)
    return compile_network(calibrated(ann, schedule, seed), neuron=NeuronChoice(model))


def quantised(ann: Ann, calibration: Calibrated, schedule: Schedule, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The K-bit quantised ANN in float64, without any notion of time: codes of every site, and the first output."""
    codes: dict[str, Tensor] = {}
    values: dict[fx.Node, Tensor] = {}
    (first,) = [node for node in ann.graph.graph.nodes if node.op == "placeholder"]
    values[first] = x.double()
    for node, op in calls(ann.graph):
        inputs = [values[source] for source in arguments(node)]
        if node.name in calibration.sites:
            unit = calibration.sites[node.name].threshold.double()
            low = -schedule.levels if type(op).__name__ == "Identity" else 0
            codes[node.name] = torch.floor(inputs[0] / unit + schedule.initial).clamp(low, schedule.levels)
            values[node] = codes[node.name] * unit
        else:
            values[node] = _in_double(op, inputs)
    return codes, values[output_nodes(ann.graph)[0]]


def _in_double(op: Op, inputs: list[Tensor]) -> Tensor:
    value: Tensor = op.rebuilt().double()(*inputs)
    return value
