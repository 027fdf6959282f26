"""Synchronous neurons: placement, sharing, the verifier and signed sites."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from snnconvert.compile.balance import balance, verify_balanced, with_identity_sites
from snnconvert.errors import InternalError
from snnconvert.graph.dialect import Builder, arguments, calls
from snnconvert.graph.edit import kind_of
from snnconvert.graph.kinds import Add, Concat, Conv, Identity, Op, Pad, Relu
from snnconvert.graph.schedule import Bistable, Schedule, Streaming, Wait
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, Origin, Source
from snnconvert.graph.walk import propagate_shapes

BISTABLE = Bistable(10**6, 1, window=4)
WAIT = Wait(1000, 1, wait=2)


class Net:
    def __init__(self) -> None:
        self.builder = Builder({"input": torch.zeros(2, 2, 4, 4)})
        self.input = self.builder.inputs["input"]

    def __call__(self, op: Op, *inputs: fx.Node, name: str) -> fx.Node:
        return self.builder.call(op, *inputs, origin=Origin(name, "test"))

    def conv(self, x: fx.Node, name: str) -> fx.Node:
        weight = torch.arange(4.0).reshape(2, 2, 1, 1) - 1
        return self(Conv(weight, torch.ones(2), stride=(1, 1), padding=(0, 0), dilation=(1, 1)), x, name=name)

    def layer(self, x: fx.Node, name: str) -> fx.Node:
        return self(Relu(), self.conv(x, f"conv_{name}"), name=f"relu_{name}")

    def ann(self, *outputs: fx.Node) -> Ann:
        return Ann(self.builder.finish(list(outputs)), (2, 4, 4), ("out",), Source("net", "", "", "test"))


def delays(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node, _ in calls(graph) if kind_of(node) == "Synchronous"]


def named(graph: fx.GraphModule, name: str) -> fx.Node:
    (node,) = [node for node in graph.graph.nodes if node.name == name]
    return node


def residual(projection: bool) -> Ann:
    net = Net()
    fork = net.layer(net.input, "fork")
    main = net.conv(net.layer(fork, "inner"), "last")
    shortcut = net.conv(fork, "shortcut") if projection else fork
    return net.ann(net(Relu(), net(Add(), main, shortcut, name="add"), name="out"))


@pytest.mark.parametrize("schedule", [BISTABLE, WAIT], ids=["bistable", "wait"])
def test_an_identity_shortcut_gets_one_synchronous_neuron(schedule: Schedule) -> None:
    graph = balance(residual(projection=False).graph, schedule)
    (delay,) = delays(graph)
    assert [source.name for source in arguments(delay)] == ["relu_fork"]
    assert [user.name for user in delay.users] == ["add"]
    depths = site_depths(graph)
    assert depths[delay.name] == depths["relu_inner"] == 2
    assert depths["out"] == 3


def test_a_projection_is_delayed_before_its_convolution() -> None:
    graph = balance(residual(projection=True).graph, BISTABLE)
    (delay,) = delays(graph)
    assert [user.name for user in delay.users] == ["shortcut"]
    assert [source.name for source in arguments(delay)] == ["relu_fork"]


def test_padding_is_done_after_the_delay() -> None:
    net = Net()
    fork = net.layer(net.input, "fork")
    padded = net(Pad(pads=(0, 0, 0, 0, 0, 2)), fork, name="pad")
    wide = net(Concat(dim=1), net.layer(fork, "a"), net.layer(fork, "b"), name="wide")
    graph = balance(net.ann(net(Relu(), net(Add(), wide, padded, name="add"), name="out")).graph, BISTABLE)
    (delay,) = delays(graph)
    assert [user.name for user in delay.users] == ["pad"]


def test_chains_are_shared() -> None:
    net = Net()
    fork = net.layer(net.input, "fork")
    one = net.layer(fork, "one")
    two = net.layer(one, "two")
    joined = net(Concat(dim=1), fork, one, two, name="first")
    again = net(Concat(dim=1), two, fork, name="second")

    graph = balance(net.ann(net(Relu(), joined, name="out"), net(Relu(), again, name="out2")).graph, BISTABLE)
    by_source = sorted(arguments(delay)[0].name for delay in delays(graph))
    assert by_source == ["relu_fork", "relu_fork_synchronous", "relu_one"]
    verify_balanced(graph)


def test_an_unbalanced_graph_is_refused() -> None:
    with pytest.raises(InternalError) as raised:
        verify_balanced(residual(projection=False).graph)
    assert "add" in raised.value.causes[0]
    assert "depth 1" in raised.value.causes[0]


def test_streaming_needs_no_delay() -> None:
    ann = residual(projection=True)
    schedule = Streaming(8, 3)
    assert balance(ann.graph, schedule) is ann.graph
    assert with_identity_sites(ann, schedule) is ann
    assert balance(ann.graph, Wait(8, 3, wait=0)) is ann.graph


def test_the_input_may_join_at_any_depth() -> None:
    net = Net()
    late = net.conv(net.layer(net.layer(net.input, "a"), "b"), "c")
    graph = balance(net.ann(net(Relu(), net(Add(), late, net.input, name="add"), name="out")).graph, BISTABLE)
    assert delays(graph) == []


def pre_activation() -> Ann:
    net = Net()
    stream = net.conv(net.input, "stem")
    for block in ("a", "b"):
        inner = net(Relu(), net.conv(net(Relu(), stream, name=f"{block}_first"), f"{block}_in"), name=f"{block}_second")
        stream = net(Add(), stream, net.conv(inner, f"{block}_out"), name=f"{block}_sum")
    return net.ann(net.conv(net(Relu(), stream, name="last"), "head"))


def test_a_stream_of_sums_gets_one_signed_site_per_delay() -> None:
    ann = pre_activation()
    marked = with_identity_sites(ann, BISTABLE)
    # the stem does not depend on spikes; the first sum has to wait for the second block
    assert [node.name for node, op in calls(marked.graph) if isinstance(op, Identity)] == ["a_sum_identity"]
    image = torch.randn(2, 2, 4, 4)
    assert torch.equal(marked.graph(image)[0], ann.graph(image)[0])
    assert max(site_depths(marked.graph).values()) == max(site_depths(ann.graph).values())
    convolutions = sum(isinstance(op, Conv) for _, op in calls(ann.graph))
    balanced = balance(marked.graph, BISTABLE)
    assert sum(isinstance(op, Conv) for _, op in calls(balanced)) == convolutions
    assert [arguments(delay)[0].name for delay in delays(balanced)] == ["a_sum_identity"]


def test_without_the_signed_site_the_convolutions_would_be_repeated() -> None:
    ann = pre_activation()
    balanced = balance(ann.graph, BISTABLE)
    convolutions = sum(isinstance(op, Conv) for _, op in calls(ann.graph))
    assert sum(isinstance(op, Conv) for _, op in calls(balanced)) > convolutions


def test_balancing_keeps_the_function_and_the_original() -> None:
    ann = residual(projection=True)
    before = [node.name for node in ann.graph.graph.nodes]
    balanced = balance(ann.graph, BISTABLE)
    propagate_shapes(balanced, ann.input_shape)
    image = torch.randn(3, 2, 4, 4)
    assert torch.equal(balanced(image)[0], ann.graph(image)[0])
    assert [node.name for node in ann.graph.graph.nodes] == before
