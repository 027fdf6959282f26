"""The hints of refusals: what they advise can be converted, and computes the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnconvert.convert.doors import open_model
from snnconvert.convert.pytorch import import_module, relative_difference, seeded_samples
from snnconvert.errors import UnsupportedError

SHAPE = (2, 6, 6)
torch.manual_seed(0)
GRID = torch.rand(1, 4, 5, 2) * 2 - 1
MATRIX = F.grid_sample(torch.eye(36).reshape(1, 36, 6, 6), GRID, align_corners=False).reshape(36, 20)
Function = Callable[[Tensor], Tensor]


def sampled(x: Tensor) -> Tensor:
    return F.grid_sample(x, GRID.expand(x.shape[0], -1, -1, -1), align_corners=False).flatten(2)


def automatic(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return x @ x


class Net(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.sampler, self.function = nn.ReLU(), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.sampler(x)).float()


@pytest.mark.parametrize(
    ("refused", "node", "part", "advised"),
    [
        (sampled, "grid_sampler", "x.flatten(2) @ matrix", lambda x: x.flatten(2) @ MATRIX),
        (lambda x: x.cumsum(-1), "cumsum", "x @ torch.ones(n, n).triu()", lambda x: x @ torch.ones(6, 6).triu()),
        (automatic, "wrap_with_autocast", "without torch.autocast", lambda x: x @ x),
    ],
)
def test_advice_can_be_followed(refused: Function, node: str, part: str, advised: Function, tmp_path: Path) -> None:
    module, path = Net(refused).eval(), tmp_path / "net.pt2"
    with pytest.raises(UnsupportedError) as caught:
        import_module(module, SHAPE)
    assert node in caught.value.faults[0].operator and part in caught.value.hint
    torch.export.save(torch.export.export(module, (torch.rand(2, *SHAPE),)), path)
    with pytest.raises(UnsupportedError) as caught:
        open_model(str(path))
    assert node in caught.value.faults[0].operator and part in caught.value.hint
    samples = seeded_samples(3, SHAPE, 1)
    found = import_module(Net(advised).eval(), SHAPE).graph(samples)[0]
    exact = 1e-2 if refused is automatic else 1e-6  # half precision is what cannot be had
    assert relative_difference(module(samples), found) < exact


def test_both_doors_name_the_node_of_a_sampled_grid(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Net(sampled).eval(), (torch.rand(2, *SHAPE),), str(path), dynamo=False, opset_version=20)
    with pytest.raises(UnsupportedError) as caught:
        open_model(str(path))
    (fault,) = caught.value.faults
    assert (fault.name, fault.operator) == ("/GridSample", "GridSample") and str(path) in str(caught.value)
    assert "F.interpolate" in caught.value.hint
