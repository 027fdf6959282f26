"""Operators say the shape of what they make, and are right; whoever asks need not load torch's compiler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch

from snnconvert.graph.dialect import op_of
from snnconvert.graph.kinds import (
    AveragePool,
    CodedNeuron,
    Concat,
    Constant,
    Conv,
    Expand,
    Exponential,
    GroupNorm,
    LayerNorm,
    Linear,
    MatMul,
    MaxPool,
    Mean,
    Neuron,
    Op,
    Pad,
    Permute,
    Reshape,
    Resize,
    Scale,
    Select,
    Slice,
    Snap,
    Softmax,
    Synchronous,
)
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
    assert AveragePool(kernel=(2, 2), stride=(2, 2), padding=(0, 0), ceil_mode=True).result_shape((1, 1, 5, 5)) == (
        1,
        1,
        3,
        3,
    )
    assert Mean(dims=(2, 3), keepdim=False).result_shape((2, 6, 4, 4)) == (2, 6)
    assert Mean(dims=(3,), keepdim=True).result_shape((2, 6, 4, 4)) == (2, 6, 4, 1)
    assert Mean(dims=(4,), keepdim=True).result_shape((2, 6, 4, 4)) is None
    assert Concat(dim=1).result_shape((2, 3, 5), (2, 4, 5)) == (2, 7, 5)
    assert Concat(dim=1).result_shape((2, 3, 5), (2, 4, 6)) is None


SHAPES = ((3, 4, 7, 9), (3, 4, 8, 8), (3, 6, 5), (3, 1, 6), (3, 12))
ALONE: tuple[Callable[[], Op], ...] = (
    *(
        partial(kind, kernel=kernel, stride=stride, padding=padding, ceil_mode=ceil)
        for kernel, stride, padding in product(((2, 3), (3, 3), (4, 2)), ((1, 2), (2, 2), (3, 4)), ((0, 0), (1, 1)))
        for ceil in (False, True)
        for kind in (AveragePool, partial(MaxPool, dilation=(1, 1)), partial(MaxPool, dilation=(2, 1)))
    ),
    *(
        partial(Slice, dim=dim, start=start, stop=99, step=step)
        for dim in (1, 2)
        for start in (0, 2, 7)
        for step in (1, 3)
    ),
    *(partial(Slice, dim=1, start=start, stop=stop) for start, stop in ((0, 3), (2, 2), (3, 1), (0, -1), (-1, 4))),
    *(partial(Select, dim=2, indices=indices) for indices in ((0, 4, 4), (8, 0), (-1,))),
    *(partial(Reshape, shape=shape) for shape in ((4, 63), (12,), (2, 3), (256,))),
    *(partial(Permute, dims=dims) for dims in ((0, 2, 1), (0, 3, 1, 2), (0, 1))),
    *(partial(Pad, pads=pads) for pads in ((1, 0), (-2, 1), (0, 1, 2, 3), (9, 9, 9, 9, 9, 9, 9, 9))),
    *(partial(Expand, shape=shape) for shape in ((5, 6), (1, 6), (4, 8, 8), (2, 12))),
    partial(Constant, torch.zeros(2, 5)),
    *(
        partial(Resize, size=size, mode=mode)
        for size, mode in (((3, 3), "nearest"), ((20, 9), "bilinear"), ((4,), "nearest"))
    ),
    *(partial(Softmax, dim=dim) for dim in (1, 2, -1, 3)),
    *(partial(LayerNorm, torch.ones(shape), None, shape=shape) for shape in ((8,), (8, 8), (5,), (12,))),
    *(
        partial(GroupNorm, torch.ones(channels), None, groups=groups)
        for channels, groups in ((4, 2), (6, 4), (6, 3), (12, 1))
    ),
    partial(Snap, grid=0.25, limit=2.0),
    partial(Scale, torch.ones(4, 1, 1)),
    partial(Neuron, torch.ones(4, 1, 1), torch.zeros(4, 1, 1), model="ternary"),
    partial(Synchronous),
    partial(Exponential),
    partial(CodedNeuron, torch.tensor(1.0), torch.tensor(0.0), spikes=2, slots=4),
)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_operators_alone_say_what_they_make_or_nothing() -> None:
    """And where they cannot be called, they say nothing."""
    said = set()
    for make, shape in product(ALONE, SHAPES):
        try:
            op = make()
            made: tuple[int, ...] | None = tuple(op(torch.rand(shape)).shape)
        except (RuntimeError, IndexError, ValueError):
            made = None
        told = op.result_shape(shape)
        assert told in {None, made}, (make, shape)
        said |= {type(op)} if told else set()
    assert said == {type(make()) for make in ALONE}


@pytest.mark.parametrize("a", [(2, 3, 4), (2, 3, 4, 5), (2, 1, 4, 5), (2, 4)])
@pytest.mark.parametrize("b", [(2, 4, 6), (2, 3, 5, 1), (2, 4, 5, 2), (2, 1, 5, 7)])
def test_matrix_products_say_what_they_make_or_nothing(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    try:
        made: tuple[int, ...] | None = tuple(MatMul()(torch.rand(a), torch.rand(b)).shape)
    except RuntimeError:
        made = None
    assert MatMul().result_shape(a, b) == (made if len(a) == len(b) else None)


@pytest.mark.parametrize("name", ["digits-resnet", "digits-cnn"])
def test_a_checkpoint_loads_no_compiler(name: str, tmp_path: Path) -> None:
    code = (
        "import sys; from snnconvert import convert_model, load\n"
        f"convert_model('zoo:{name}', timesteps=4, calibration='mse', limit=8).save('net.snn'); load('net.snn')\n"
        "print({'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.split()[-1] == "set()"


def test_opening_a_model_loads_no_compiler() -> None:
    """It takes longer than converting a small network does."""
    code = (
        "import sys; from snnconvert.request import Request; from snnconvert.stages import open_ann\n"
        "open_ann(Request(model='zoo:digits-resnet')); print('torch._dynamo' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == "False"
