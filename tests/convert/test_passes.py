"""Every exact pass keeps the function of every test network, and does what it is named for."""

from __future__ import annotations

import pytest
import torch

from snnconvert.convert.passes import PASSES, canonicalize
from snnconvert.graph.dialect import arguments, calls, verify
from snnconvert.graph.edit import copied, finish, kind_of
from snnconvert.graph.kinds import Stage
from snnconvert.graph.walk import propagate_shapes
from tests.convert.networks import NETWORKS, SHAPE, network, samples


@pytest.mark.parametrize("rewrite", PASSES, ids=lambda rewrite: rewrite.__name__)
@pytest.mark.parametrize("name", NETWORKS)
def test_pass_is_exact(name: str, rewrite: object) -> None:
    graph = copied(network(name).graph)
    before = graph(samples(3))[0]
    changed = rewrite(graph)  # type: ignore[operator]
    verify(finish(graph), Stage.ANN)
    propagate_shapes(graph, SHAPE)
    after = graph(samples(3))[0]
    assert torch.allclose(before, after, rtol=1e-5, atol=1e-6 * float(before.abs().max()))
    assert changed >= 0


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
