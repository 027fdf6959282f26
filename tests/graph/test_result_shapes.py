"""Operators say the shape of what they make, and are right; whoever asks need not load torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from snnconvert.graph.dialect import op_of
from snnconvert.graph.kinds import AveragePool, Concat, Conv, Linear, MaxPool, Mean
from snnconvert.graph.walk import walk
from tests.convert.networks import NETWORKS, network, samples


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_said_is_what_is_made(name: str) -> None:
    said = set()
    for node, inputs, value in walk(network(name).graph, samples(3)):
        if node.op != "call_module":
            continue
        op = op_of(node)
        shape = op.result_shape(*(tuple(one.shape) for one in inputs))
        assert shape is None or shape == tuple(value.shape), node.name
        said.add(type(op).__name__ if shape else "")
    assert said & {"Conv", "Linear"}


def test_nothing_is_said_of_what_does_not_fit() -> None:
    conv = Conv(torch.zeros(4, 3, 3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1))
    assert conv.result_shape((5, 3, 8, 9)) == (5, 4, 4, 5)
    assert conv.result_shape((5, 2, 8, 9)) is None
    assert Linear(torch.zeros(4, 3)).result_shape((5, 7, 3)) == (5, 7, 4)
    assert Linear(torch.zeros(4, 3)).result_shape((5, 4)) is None
    pool = MaxPool(kernel=(3, 3), stride=(2, 2), padding=(0, 0), dilation=(2, 1))
    assert pool.result_shape((1, 6, 8, 9)) == (1, 6, 2, 4)
    assert pool.result_shape((1, 6, 4, 9)) is None
    assert MaxPool(kernel=(3,), stride=(1,), padding=(2,), dilation=(1,)).result_shape((1, 6, 8)) is None
    assert AveragePool(kernel=(2, 2), stride=(2, 2), padding=(0, 0), ceil_mode=True).result_shape((1, 1, 5, 5)) is None
    assert Mean(dims=(2, 3), keepdim=False).result_shape((2, 6, 4, 4)) == (2, 6)
    assert Mean(dims=(3,), keepdim=True).result_shape((2, 6, 4, 4)) == (2, 6, 4, 1)
    assert Mean(dims=(4,), keepdim=True).result_shape((2, 6, 4, 4)) is None
    assert Concat(dim=1).result_shape((2, 3, 5), (2, 4, 5)) == (2, 7, 5)
    assert Concat(dim=1).result_shape((2, 3, 5), (2, 4, 6)) is None


def test_opening_a_model_loads_no_compiler() -> None:
    """It takes longer than converting a small network does."""
    code = (
        "import sys; from snnconvert.request import Request; from snnconvert.stages import open_ann\n"
        "open_ann(Request(model='zoo:digits-resnet')); print('torch._dynamo' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == "False"
