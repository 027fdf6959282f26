"""A real residual network: the spiking network is the quantised ANN, and both engines agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx

from snnconvert.calibrate import METHODS, Task
from snnconvert.compile.network import compile_network
from snnconvert.convert.doors import open_model
from snnconvert.convert.passes import canonicalize
from snnconvert.graph.dialect import arguments, calls, output_nodes
from snnconvert.graph.kinds import Neuron, Synchronous
from snnconvert.graph.schedule import Bistable
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import NeuronChoice, Snn
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.simulate.layer_engine import LayerEngine


def timeless(snn: Snn, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The network with its neurons read as quantisers, in float64: no windows, no spikes."""
    codes: dict[str, Tensor] = {}
    values: dict[fx.Node, Tensor] = {node: x.double() for node in snn.graph.graph.nodes if node.op == "placeholder"}
    for node, op in calls(snn.graph):
        inputs = [values[source] for source in arguments(node)]
        if isinstance(op, Neuron):
            codes[node.name] = torch.floor((inputs[0] + op.initial) / op.threshold).clamp(0, op.levels)
            values[node] = codes[node.name]
        else:
            values[node] = op.rebuilt().double()(*inputs)
    return codes, values[output_nodes(snn.graph)[0]]


def test_resnet20_is_its_quantised_ann_and_the_oracle_agrees(data_pack: Path) -> None:
    models = data_pack / "models"
    weights, arch = models / "resnet20-12fca82f.th", f"{models / 'resnet_cifar.py'}:resnet20"
    ann = canonicalize(open_model(str(weights), arch=arch, input_shape=(3, 32, 32)))
    depth = max(site_depths(ann.graph).values())
    assert depth == 19
    with np.load(data_pack / "cifar10_train_small.npz") as data:
        images = (torch.from_numpy(data["x"][:32]).permute(0, 3, 1, 2) / 255.0 - 0.45) / 0.225
    schedule = Bistable(60, depth, window=3)
    task = Task(ann, images.float(), schedule, NeuronChoice())
    snn = compile_network(METHODS["mse"](task))
    assert sum(isinstance(op, Synchronous) for _, op in calls(snn.graph)) == 9
    batch = images[:2].float()
    found: dict[str, Tensor] = {}
    fast = LayerEngine(snn).run(batch, lambda name, frames: found.__setitem__(name, frames[0].double()))
    codes, logits = timeless(snn, batch)
    for name, code in codes.items():
        assert torch.equal(found[name], code), name
    assert torch.equal(fast.outputs[0][0], logits)
    oracle = BistableEngine(snn).run(batch)
    for name, counts in oracle.spikes.items():
        assert torch.equal(fast.spikes[name], counts), name
    assert torch.equal(fast.outputs[0], oracle.outputs[0])
