"""Every exact pass keeps the function of every test network, and does what it is named for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from snnconvert.convert.passes import PASSES, Pass, canonicalize
from snnconvert.convert.pytorch import import_module
from snnconvert.graph.dialect import arguments, calls, verify
from snnconvert.graph.edit import copied, finish, kind_of
from snnconvert.graph.kinds import Stage
from snnconvert.graph.walk import propagate_shapes
from tests.convert.networks import NETWORKS, SHAPE, network, samples


class Spelled(nn.Module):
    """SiLU written out, an activation too many, and a leaky rectifier that a convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.linear = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(F.leaky_relu(self.a(x), 0.1))
        x = F.relu(F.max_pool2d(F.relu(x), 2)) - 0.5
        return self.linear((x * torch.sigmoid(x)).mean((2, 3)))


class Factored(nn.Module):
    """Weights in two factors: some that are fewer together, some that are fewer apart, and a border that tells."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d
        self.wide = nn.Sequential(conv(2, 9, 3, stride=2, padding=1), conv(9, 4, 1, stride=2), nn.ReLU())
        self.ahead = nn.Sequential(conv(4, 8, 1, bias=False), conv(8, 6, 3, padding=2, dilation=2), nn.ReLU())
        self.border = nn.Sequential(conv(6, 9, 1), conv(9, 6, 3, padding=1), nn.ReLU())
        self.narrow = nn.Sequential(nn.Flatten(), nn.Linear(96, 2), nn.Linear(2, 24), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(24, 16), nn.Linear(16, 5, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.narrow(self.border(self.ahead(self.wide(x)))))
        return found


def test_factors_are_merged_where_one_operator_multiplies_no_more() -> None:
    torch.manual_seed(0)
    ann = import_module(Factored().eval(), SHAPE)
    graph = canonicalize(ann).graph
    assert torch.allclose(ann.graph(samples(5))[0], graph(samples(5))[0], atol=1e-5)
    weights = [tuple(op.weight.shape) for _, op in calls(graph) if kind_of(_) in {"Conv", "Linear"}]
    kept = [(9, 6, 1, 1), (6, 9, 3, 3), (2, 96), (24, 2)]  # a bias that zeros at the border lack; a bottleneck
    assert weights == [(4, 2, 3, 3), (6, 4, 3, 3), *kept, (5, 24)]


@pytest.mark.parametrize("rewrite", PASSES, ids=lambda rewrite: rewrite.__name__)
def test_every_pass_fires_on_some_network_and_is_exact_on_all(rewrite: Pass) -> None:
    fired = []
    spelled, factored = (import_module(one().eval(), SHAPE) for one in (Spelled, Factored))
    for name, ann in {**{name: network(name) for name in NETWORKS}, "Spelled": spelled, "Factored": factored}.items():
        graph = copied(ann.graph)
        before = graph(samples(3))[0]
        for earlier in PASSES[: PASSES.index(rewrite)]:  # as canonicalize runs them: later ones need the earlier
            earlier(graph)
        described = _described(finish(graph))
        changed = rewrite(graph)
        verify(finish(graph), Stage.ANN)
        assert (_described(graph) != described) == (changed > 0), f"{name}: it says that it changed {changed} places"
        propagate_shapes(graph, SHAPE)
        after = graph(samples(3))[0]
        assert torch.allclose(before, after, rtol=1e-5, atol=1e-5 * float(before.abs().max())), name
        fired += [name] * (changed > 0)
    assert fired, f"{rewrite.__name__} changed nothing in any network"


def _described(graph: fx.GraphModule) -> list[tuple[str, ...]]:
    return [(node.name, kind_of(node), *(source.name for source in arguments(node))) for node, _ in calls(graph)]


@pytest.mark.parametrize("name", NETWORKS)
def test_canonical_network_is_the_same_function(name: str) -> None:
    ann = network(name)
    graph = canonicalize(ann).graph
    before, after = ann.graph(samples(4))[0], graph(samples(4))[0]
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
    for node, _ in calls(graph):
        assert node.meta["shape"], node.name
        assert kind_of(node) != "LeakyRelu"


def test_batch_norm_is_folded_by_data_flow() -> None:
    graph = canonicalize(network("Residual")).graph
    assert "Affine" not in {kind_of(node) for node, _ in calls(graph)}
    pre_activation = canonicalize(network("PreActivation")).graph
    # A norm behind a sum cannot be folded; one behind a convolution is.
    assert sum(kind_of(node) == "Affine" for node, _ in calls(pre_activation)) == 2


def test_no_max_pool_is_left_before_an_activation() -> None:
    graph = canonicalize(network("Plain")).graph
    pools = [node for node, _ in calls(graph) if kind_of(node) == "MaxPool"]
    assert [kind_of(arguments(node)[0]) for node in pools] == ["Relu"]


def test_the_source_graph_is_not_changed() -> None:
    ann = network("Plain")
    nodes = [node.name for node in ann.graph.graph.nodes]
    canonicalize(ann)
    assert [node.name for node in ann.graph.graph.nodes] == nodes
