"""A scale or a batch norm between neurons and weights costs no spikes: the weights take it, whatever lies between."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnconvert.convert.check import check
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.pytorch import import_module, relative_difference
from snnconvert.graph.dialect import arguments, calls, role_of
from snnconvert.graph.edit import kind_of
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Role
from snnconvert.graph.types import Ann

SHAPE = (3, 12, 12)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Padded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (1, 0, 2, 1))


def norm(*more: nn.Module) -> list[nn.Module]:
    return [nn.BatchNorm2d(8), *more]


MIDDLE = {
    "nothing": lambda: [],
    "factor": lambda: [Times(1.5)],
    "norm": norm,
    "norm twice": lambda: norm(*norm()),
    "norm and max pool": lambda: norm(nn.MaxPool2d(2)),
    "max pool and norm": lambda: [nn.MaxPool2d(3, 2, 1), *norm()],
    "factor and max pool": lambda: [Times(0.3), nn.MaxPool2d(2)],
    "norm and average pool": lambda: norm(nn.AvgPool2d(2, padding=1)),
    "norm, both pools and factor": lambda: norm(nn.MaxPool2d(2), nn.AvgPool2d(2), Times(2.0)),
    "norm and uneven padding": lambda: norm(Padded()),
    "negative factor": lambda: [Times(-2.0)],
}
READERS = {
    "convolution": lambda: nn.Conv2d(8, 5, 3, padding=1),
    "no padding": lambda: nn.Conv2d(8, 5, 3, stride=2),
    "depthwise": lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
    "transposed": lambda: nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1),
    "dense": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5)),
}


def trained(module: nn.Module) -> Ann:
    torch.manual_seed(3)
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(16, *SHAPE))
    return import_module(module.eval(), SHAPE)


def all_read_spikes(ann: Ann) -> bool:
    """Whether all weights do that do not read the input."""
    graph = canonicalize(ann).graph
    moving = flows(graph)
    read = [moving[arguments(node)[0]] for node, _ in calls(graph) if role_of(node) == Role.WEIGHTED]
    return Flow.SPIKES in read and Flow.CURRENT not in read


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("middle", MIDDLE)
def test_weights_behind_read_spikes(middle: str, reader: str) -> None:
    torch.manual_seed(1)
    first = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()]
    ann = trained(nn.Sequential(*first, *MIDDLE[middle](), READERS[reader](), nn.ReLU()))
    samples = torch.randn(4, *SHAPE)
    assert relative_difference(ann.graph(samples)[0], canonicalize(ann).graph(samples)[0]) < 1e-5
    assert all_read_spikes(ann)


class Joined(nn.Module):
    """Two branches, one with a norm, concatenated; and a norm that a convolution and a sum read."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.norm, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(8)
        self.c, self.d = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.cat([self.norm(self.a(x).relu()), self.b(x).relu()], 1), 2)
        x = self.second(self.c(x).relu())
        return self.d(x) + x


def test_branches_and_several_readers() -> None:
    ann = trained(Joined())
    samples = torch.randn(4, *SHAPE)
    assert relative_difference(ann.graph(samples)[0], canonicalize(ann).graph(samples)[0]) < 1e-5
    assert all_read_spikes(ann)


def test_the_share_that_adds_is_that_without_the_norm() -> None:
    def share(*middle: nn.Module) -> float:
        torch.manual_seed(1)
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *middle, nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
        return check(trained(nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4)))).operation_coverage

    assert share(*norm()) == share() > 0.5


def test_a_maximum_of_negative_multiples_stays_where_it_is() -> None:
    """-max(x) is not max(-x)."""
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), Times(-1.0), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.ReLU()]
    ann = trained(nn.Sequential(*layers))
    samples = torch.randn(4, *SHAPE)
    graph = canonicalize(ann).graph
    assert "Affine" in {kind_of(node) for node, _ in calls(graph)}
    assert relative_difference(ann.graph(samples)[0], graph(samples)[0]) < 1e-5
