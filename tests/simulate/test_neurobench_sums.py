"""Effective operations are those of the NeuroBench package; runs where `neurobench` is installed.

NeuroBench calls a step's operations of a layer MACs if any input of that call is none of -1, 0 and 1. Two things are
counted otherwise here, and told apart below: what is constant in time is computed once instead of in every step, and a
layer behind a sum of spikes counts as MACs in all steps if it does in one."""

from __future__ import annotations

import pytest
from torch import Tensor, fx, nn

from snnconvert.data.selection import images_for
from snnconvert.graph.dialect import calls
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Op, Weighted
from snnconvert.graph.types import Snn
from snnconvert.pipeline import Request, run
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine
from snnconvert.study.operations import OperationCounter, operations

macs = pytest.importorskip("neurobench.metrics.utils.layers.macs")


def torch_layer(op: Weighted) -> nn.Module:
    weight = op.weight.float()
    if op.features_last:
        layer: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    else:
        layer = nn.Conv2d(
            op.inputs, op.outputs, weight.shape[2:], stride=op.stride, padding=op.padding, groups=op.groups, bias=False
        )
    layer.weight.data = weight
    return layer


class Watched(StepEngine):
    """Counts every weighted layer and step as NeuroBench does: (layer, step) -> (operations, whether all are units)."""

    def __init__(self, snn: Snn) -> None:
        super().__init__(snn)
        self.found: dict[tuple[str, int], tuple[int, bool]] = {}

    def _step(self, node: fx.Node, op: Op, inputs: list[Tensor], step: int) -> Tensor:
        if isinstance(op, Weighted):
            count, unit = macs.single_layer_MACs(inputs[0].float(), torch_layer(op))
            self.found[node.name, step] = count, bool(unit)
        return super()._step(node, op, inputs, step)


@pytest.mark.parametrize("name", ["digits-cnn", "digits-resnet"])
def test_effective_operations_are_those_of_neurobench(name: str) -> None:
    asked = Request(
        f"zoo:{name}", schedule="streaming", timesteps=8, calibration="mse", calibration_samples=32, limit=8
    )
    snn = run(asked).snn
    batch = images_for(snn, f"zoo:{name}", 8).images()
    counter = OperationCounter(snn, images=8)
    probe = counter.begin(batch)
    counter.end(LayerEngine(snn).run(batch, probe))
    ours = operations(counter)
    assert ours is not None
    theirs = Watched(snn)
    theirs.run(batch)
    domains = {node.name: flow for node, flow in flows(snn.graph).items()}
    layers = [(node.name, domains[node.all_input_nodes[0].name]) for node, _ in calls(snn.graph, Weighted)]
    multiplied = accumulated = every_step = 0
    for layer, flow in layers:
        steps = [theirs.found[layer, step] for step in range(8)]
        total, unit = sum(count for count, _ in steps), all(one for _, one in steps)
        if flow == Flow.CONSTANT:
            every_step += total
            multiplied += steps[0][0]
        elif unit:
            accumulated += total
        else:
            multiplied += total
    assert ours.neurobench["effective_macs"] == pytest.approx(multiplied / 8, rel=1e-9)
    assert ours.neurobench["effective_acs"] == pytest.approx(accumulated / 8, rel=1e-9)
    assert every_step == 8 * theirs.found[layers[0][0], 0][0] > 0
