"""Our figures against the neurobench package on the same network (skipped where it is not installed)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import pictures, small_snn
from test_operations import watched
from torch import Tensor, nn

from snnconvert.graph.dialect import arguments, op_of, output_nodes
from snnconvert.graph.kinds import Conv, Linear, Neuron
from snnconvert.graph.types import Snn
from snnconvert.neurons import NEURONS, State
from snnconvert.study.operations import operations

pytest.importorskip("neurobench", reason="neurobench is not installed")


class Spikes(nn.Module):
    """A neuron layer as neurobench hooks it."""

    def __init__(self, op: Neuron) -> None:
        super().__init__()
        self.op = [op]
        self.state: State | None = None

    def forward(self, current: Tensor) -> Tensor:
        model, op = NEURONS[self.op[0].model], self.op[0]
        before = self.state or model.init(current, op.initial)
        spikes, self.state = model.fire(State(before.v + current, before.sent), op.threshold, op.levels)
        return spikes


class Played(nn.Module):
    """The spiking network as a plain module, one forward for all steps; the first convolution is called once."""

    def __init__(self, snn: Snn) -> None:
        super().__init__()
        self.snn = snn.graph
        self.steps = snn.schedule.timesteps
        self.outputs = output_nodes(snn.graph)
        self.parts = nn.ModuleDict()
        for node in snn.graph.graph.nodes:
            op = op_of(node) if node.op == "call_module" else None
            if isinstance(op, Conv):
                made: Any = nn.Conv2d(
                    op.weight.shape[1] * op.groups, len(op.weight), tuple(op.weight.shape[2:]),
                    stride=op.stride, padding=op.padding, groups=op.groups, bias=op.bias is not None,
                )  # fmt: skip
            elif isinstance(op, Linear):
                made = nn.Linear(op.weight.shape[1], len(op.weight), bias=op.bias is not None)
            elif isinstance(op, Neuron):
                self.parts[node.name] = Spikes(op)
                continue
            else:
                continue
            made.weight.data = op.weight.clone()
            if op.bias is not None:
                made.bias.data = op.bias.clone()
            self.parts[node.name] = made

    def forward(self, x: Tensor) -> Tensor:
        constant: dict[Any, Tensor] = {}
        for step in range(self.steps):
            values: dict[Any, Tensor] = {}
            for node in self.snn.graph.nodes:
                if node.op == "placeholder":
                    values[node] = constant[node] = x.double()
                elif node.op == "call_module":
                    sources = arguments(node)
                    if step and node in constant:
                        values[node] = constant[node]
                        continue
                    inputs = [values[source] for source in sources]
                    part = self.parts[node.name] if node.name in self.parts else op_of(node)
                    if isinstance(part, nn.Conv2d | nn.Linear):
                        inputs = [inputs[0].to(part.weight.dtype)]
                    if isinstance(part, Spikes):
                        inputs = [inputs[0].to(part.op[0].threshold.dtype)]
                    values[node] = part(*inputs)
                    if all(source in constant for source in sources) and not isinstance(part, Spikes):
                        constant[node] = values[node]
        return values[self.outputs[0]]


def test_figures_equal_those_of_neurobench() -> None:
    from neurobench.metrics.static import ConnectionSparsity, Footprint  # type: ignore[import-not-found]
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations  # type: ignore[import-not-found]
    from neurobench.models import TorchModel  # type: ignore[import-not-found]

    snn, _ = small_snn(pool="none", neuron="ternary")
    images = pictures(4)
    found = operations(watched(snn, images))
    assert found is not None
    network = Played(snn)
    model = TorchModel(network)
    model.add_activation_module(Spikes)
    model.register_hooks()
    with torch.inference_mode(False), torch.no_grad():
        model(images)
        synaptic = SynapticOperations()(model, None, (images, None))
        sparsity = ActivationSparsity()(model, None, (images, None))
    ours = found.neurobench
    assert ours["effective_acs"] == pytest.approx(synaptic["Effective_ACs"])
    assert ours["effective_macs"] == pytest.approx(synaptic["Effective_MACs"])
    # NeuroBench counts a dense operation for each call: the first convolution is called once, the others in every step.
    first, *others = [row.synapses for row in found.layers if row.synapses]
    assert first + network.steps * sum(others) == pytest.approx(synaptic["Dense"])
    assert ours["activation_sparsity"] == pytest.approx(sparsity)
    assert ours["connection_sparsity"] == pytest.approx(float(ConnectionSparsity()(model)), abs=5.1e-4)
    assert ours["footprint"] == Footprint()(TorchModel(snn.graph))
