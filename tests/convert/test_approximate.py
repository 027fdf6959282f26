"""Functions as spiking units: how well they fit, what is refused, and that the units replace them exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.compile.network import compile_network
from snnconvert.convert.approximate import approximate, candidates, remarks
from snnconvert.convert.doors import open_model
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.passes.logits import keep_logits
from snnconvert.convert.piecewise import fit
from snnconvert.convert.pytorch import import_module
from snnconvert.convert.units import analog_nodes, refuse_analog, with_units
from snnconvert.errors import UnsupportedError
from snnconvert.graph.dialect import arguments, calls, sites
from snnconvert.graph.edit import kind_of
from snnconvert.graph.kinds import FUNCTIONS
from snnconvert.graph.schedule import Streaming
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine

SPELLINGS = {
    "silu": lambda x: x * torch.sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1.0 + torch.erf(x / 2**0.5)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x.pow(3)))),
    "mish": lambda x: x * torch.tanh(F.softplus(x)),
    "hardswish": lambda x: x * F.relu6(x + 3) / 6,
}


class Net(nn.Module):
    """Two convolutions (the second by groups), a concatenation and a classifier around one function."""

    def __init__(self, function: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.a, self.b = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=3)
        self.c = nn.Conv2d(12, 4, 1)
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.function(self.a(x * 3))  # type: ignore[operator]
        y = self.function(self.b(x) * 2)  # type: ignore[operator]
        x = self.function(self.c(torch.cat([x, y], 1)))  # type: ignore[operator]
        return self.linear(x.mean((2, 3)))


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def net(function: object) -> Ann:
    return canonicalize(import_module(Net(function), (2, 8, 8), name="net"))


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_function_is_recognised_however_it_is_spelled(name: str) -> None:
    graph = net(SPELLINGS[name]).graph
    found = [op.arguments() for _, op in calls(graph) if kind_of(_) == "Elementwise"]
    assert found == [{"function": name}] * 3
    assert not {"Multiply", "Clip"} & {kind_of(node) for node, _ in calls(graph)}


@pytest.mark.parametrize(
    "name", ["sigmoid", "tanh", "hardsigmoid", "hardswish", "silu", "gelu", "elu", "softplus", "mish"]
)
def test_units_hold_their_tolerance(name: str) -> None:
    ann = net(FUNCTIONS[name])
    network, records = approximate(ann, images(32))
    assert [record.function for record in records] == [name] * 3
    assert all(0 < record.units <= 10 and record.relative_error <= 0.02 for record in records)
    assert len(sites(network.graph)) == sum(record.units for record in records)
    assert "Elementwise" not in {kind_of(node) for node, _ in calls(network.graph)}
    x = images(8, seed=3)
    before, after = ann.graph(x)[0], network.graph(x)[0]
    assert float((after - before).norm() / before.norm()) < 0.06
    # every layer with weights but the last (which reads an average) reads the units themselves
    weighted = [node for node, _ in calls(network.graph) if kind_of(node) == "Conv"]
    assert all(
        kind_of(arguments(node)[0]) in ("Concat", "Select", "Affine", "Clip", "n") or node is weighted[0]
        for node in weighted
    ) or (name in ("sigmoid", "softplus"))


def test_errors_are_those_of_the_fit() -> None:
    x = np.linspace(-6, 6, 256)
    weights = np.exp(-0.5 * x**2)
    errors = []
    for units in (2, 4, 8):
        y = x / (1 + np.exp(-x))
        found = fit(x, y, weights, units, tolerance=0.0, silent=True)
        assert 0.0 in found.knots
        assert found(np.zeros(1))[0] == 0.0
        direct = np.sqrt((weights * (found(x) - y) ** 2).sum() / weights.sum())
        spread = np.sqrt((weights * (y - (weights * y).sum() / weights.sum()) ** 2).sum() / weights.sum())
        assert found.relative_error == pytest.approx(direct / spread, rel=1e-9)
        errors.append(found.relative_error)
    assert errors[0] > 4 * errors[1] > 8 * errors[2]


def test_a_clamp_is_exact() -> None:
    ann = net(lambda x: x.clamp(-0.4, 0.9))
    network, records = approximate(ann, images(32))
    assert all(record.units in (1, 2) for record in records)
    x = images(8, seed=3)
    assert torch.allclose(ann.graph(x)[0], network.graph(x)[0], rtol=1e-3, atol=1e-3)


def test_what_does_not_fit_stays_analog_and_is_named() -> None:
    ann = net(torch.sigmoid)
    network, records = approximate(ann, images(32), tolerance=1e-5)
    assert network is ann
    assert all(record.units == 0 for record in records)
    assert "stay analog" in remarks(records)[0]
    assert records[0].name in remarks(records)[0]


def test_a_gate_that_only_a_product_reads_is_left_alone() -> None:
    ann = net(lambda x: F.relu(x) * torch.sigmoid(x.mean((2, 3), keepdim=True)))
    assert candidates(ann.graph) == []


def test_strict_spiking_names_every_analog_node() -> None:
    ann = net(lambda x: F.relu(x) * torch.sigmoid(x.mean((2, 3), keepdim=True)))
    with pytest.raises(UnsupportedError, match=r"6 node\(s\)") as caught:
        with_units(ann, images(8), way="units", strict=True)
    assert len(caught.value.causes) == 6
    reference, network = with_units(ann, images(8), way="units")
    assert reference.source.notes == network.source.notes
    assert "6 node(s) stay analog" in network.source.notes[0]


@pytest.mark.parametrize(
    ("function", "way", "start"),
    [
        (FUNCTIONS["silu"], "analog", "--approximate units writes them"),
        (lambda x: F.relu(x) * torch.sigmoid(x.mean((2, 3), keepdim=True)), "units", "leave --strict-spiking away"),
    ],
)
def test_strict_spiking_advises_units_where_they_were_declined(function: Any, way: str, start: str) -> None:
    ann = net(function)
    with pytest.raises(UnsupportedError) as caught:
        with_units(ann, images(8), way=way, strict=True)
    assert caught.value.hint.startswith(start)
    with pytest.raises(UnsupportedError) as caught:
        refuse_analog(ann, spared=way != "analog", untried=way == "analog")
    assert caught.value.hint.startswith(start)


def test_analog_functions_are_sent_as_spikes() -> None:
    ann = net(FUNCTIONS["silu"])
    network = with_units(ann, images(32), way="analog")[1]
    assert "3 node(s) stay analog" in network.source.notes[-1]
    analog = [node for node, _ in calls(network.graph) if kind_of(node) == "Elementwise"]
    assert [[kind_of(user) for user in node.users] for node in analog] == [["Identity"]] * 3
    x = images(8, seed=3)
    assert torch.equal(ann.graph(x)[0], network.graph(x)[0])


@pytest.mark.parametrize(("bound", "analog"), [(1e-6, 3), (0.5, 0)])
def test_auto_writes_units_where_the_outputs_hold(monkeypatch: pytest.MonkeyPatch, bound: float, analog: int) -> None:
    monkeypatch.setattr("snnconvert.convert.units.LARGEST_ERROR", bound)
    network = with_units(net(FUNCTIONS["silu"]), images(32), way="auto")[1]
    assert len([node for node, _ in calls(network.graph) if kind_of(node) == "Elementwise"]) == analog
    assert any("would change the outputs by" in note for note in network.source.notes) is bool(analog)
    strict = with_units(net(FUNCTIONS["silu"]), images(32), way="auto", strict=True)[1]
    assert not analog_nodes(strict.graph)


@pytest.mark.parametrize("way", ["units", "analog"])
@pytest.mark.parametrize("name", ["silu", "tanh"])
def test_the_engines_agree_and_converge(name: str, way: str) -> None:
    network = with_units(net(FUNCTIONS[name]), images(32), way=way)[1]
    x, errors = images(4, seed=3), {}
    for timesteps in (6, 32, 256):
        schedule = Streaming(timesteps, max(site_depths(network.graph).values()))
        wanted = Task(network, in_canonical_order(torch.cat([images(32), x])), schedule, NeuronChoice("ternary"))
        snn = compile_network(METHODS["percentile"](Task(**{**vars(wanted), "options": {"percentile": 100.0}})))
        seen = LayerEngine(snn).run(x)
        if timesteps == 6:
            oracle = StepEngine(snn).run(x)
            assert torch.equal(seen.outputs[0], oracle.outputs[0])
            assert all(torch.equal(seen.units[site], oracle.units[site]) for site in oracle.units)
        limit = network.graph(x)[0]
        errors[timesteps] = float((seen.outputs[0][-1] / timesteps - limit).norm() / limit.norm())
    assert errors[256] < errors[32] / 4


@pytest.mark.parametrize(("function", "noted"), [(torch.softmax, True), (torch.log_softmax, True), (None, False)])
def test_a_final_softmax_is_left_out(function: object, noted: bool) -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(torch.relu)

        def forward(self, x: Tensor) -> Tensor:
            logits = self.net(x)
            return function(logits, 1) if function else logits  # type: ignore[operator]

    ann = canonicalize(import_module(Classifier(), (2, 8, 8), name="net"))
    kept = keep_logits(ann)
    x = images(16)
    assert torch.equal(ann.graph(x)[0].argmax(1), kept.graph(x)[0].argmax(1))
    assert "Softmax" not in {kind_of(node) for node, _ in calls(kept.graph)}
    assert (len(kept.source.notes) == len(ann.source.notes) + 1) is noted
    assert (kept is ann) is not noted


def test_the_sigmoid_network_of_the_data_pack(data_pack: Path) -> None:
    def read(name: str, count: int) -> tuple[Tensor, Tensor]:
        with np.load(data_pack / name) as stored:
            x = torch.from_numpy(stored["x"][:count]).float().unsqueeze(1) / 255
            return x, torch.from_numpy(stored["y"][:count].astype(np.int64))

    ann = canonicalize(open_model(str(data_pack / "models" / "eran_ffnnSIGMOID_6x200.onnx")))
    calibration, (x, labels) = read("mnist_train_small.npz", 64)[0], read("mnist_test.npz", 300)
    network = with_units(ann, in_canonical_order(calibration), way="units", strict=True)[1]
    schedule = Streaming(16, max(site_depths(network.graph).values()))
    wanted = Task(network, in_canonical_order(calibration), schedule, NeuronChoice())
    sums = LayerEngine(compile_network(METHODS["percentile"](wanted))).run(x).outputs[0][-1]
    right = float((sums.argmax(1) == labels).double().mean())
    assert right >= float((ann.graph(x)[0].argmax(1) == labels).double().mean()) - 0.01
