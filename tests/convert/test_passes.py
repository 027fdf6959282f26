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


@pytest.mark.parametrize("rewrite", PASSES, ids=lambda rewrite: rewrite.__name__)
def test_every_pass_fires_on_some_network_and_is_exact_on_all(rewrite: Pass) -> None:
    fired = []
    spelled = import_module(Spelled().eval(), SHAPE)
    for name, ann in {**{name: network(name) for name in NETWORKS}, "Spelled": spelled}.items():
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
        assert torch.allclose(before, after, rtol=1e-5, atol=1e-6 * float(before.abs().max())), name
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
