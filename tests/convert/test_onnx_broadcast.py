"""Constants with more axes than the activation that they meet, and batches that a file says are empty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_graphs import CONV, WEIGHT, Nodes, checked, floats, save

from snnconvert.convert.onnx_import import import_onnx
from snnconvert.errors import UnsupportedError

OPERATORS = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum", "Where", "Pow")


def meets(operator: str, constant: np.ndarray, *, first: bool = False) -> tuple[Nodes, dict[str, np.ndarray]]:
    """A square of the input, which `operator` joins with `constant`."""
    names = ["c", "s"] if first and operator != "Pow" else ["s", "c"]
    truth = {"t": np.ones((1,) * constant.ndim, dtype=bool)} if operator == "Where" else {}
    value = np.full_like(constant, 2) if operator == "Pow" else constant
    return [("Relu", ["x"], ["s"], {}), (operator, [*truth, *names], ["y"], {})], {"c": value, **truth}


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_constant_that_adds_an_axis_is_refused(operator: str, tmp_path: Path) -> None:
    for shape in ((1, 1, 1, 1, 1), (1, 1, 3, 1, 1), (1, 1, 1, 1, 1, 1), (2, 1, 1, 1, 1)):
        if operator == "Pow" and np.prod(shape) > 1:
            continue
        nodes, constants = meets(operator, floats(*shape) + 2)
        with pytest.raises(UnsupportedError) as caught:
            import_onnx(save(tmp_path / "net.onnx", nodes, constants))
        assert "would add axes to a tensor with 4 axes" in caught.value.render()


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_constant_with_axes_of_size_one_is_read(operator: str, tmp_path: Path) -> None:
    for shape in ((), (1,), (1, 1, 1, 1), (1, 3, 1, 1), (3, 1, 1), (1, 1, 8, 8)):
        if operator == "Pow" and np.prod(shape) > 1:
            continue
        for first in (False, True):
            if operator == "Div" and first:
                continue  # by 0
            nodes, constants = meets(operator, np.asarray(floats(*shape) + 2, np.float32), first=first)
            checked(save(tmp_path / "net.onnx", nodes, constants))


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_batch_that_was_squeezed_away_may_come_back(operator: str, tmp_path: Path) -> None:
    shape = (1, 1) if operator == "Pow" else (1, 3)
    nodes, constants = meets(operator, floats(*shape) + 2)
    nodes = [("Squeeze", ["x", "axes"], ["z"], {}), ("Relu", ["z"], ["s"], {}), *nodes[1:]]
    nodes[-1] = (*nodes[-1][:2], ["r"], {})
    nodes.append(("Gemm", ["r", "w"], ["y"], {}))
    constants |= {"axes": np.array([0]), "w": floats(3, 2)}
    checked(save(tmp_path / "net.onnx", nodes, constants, shape=(1, 3)), samples=3)


def test_an_empty_batch_is_an_open_one(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", CONV, WEIGHT, shape=(0, 3, 8, 8))
    ann = checked(path, samples=3)
    assert ann.input_shape == (3, 8, 8)
    with torch.no_grad():
        (found,) = ann.graph(torch.rand(2, 3, 8, 8))
    assert found.shape == (2, 4, 6, 6)


def test_sizes_of_0_are_given_by_the_user(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", CONV, WEIGHT, shape=(0, 3, 0, 0))
    assert checked(path, samples=3, input_shape=(3, 8, 8)).input_shape == (3, 8, 8)
