"""Units a step that differ from layer to layer: by hand, within a budget, and what becomes of them afterwards."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import snnconvert
from snnconvert.capacity import MOST_UNITS, greedy
from snnconvert.compile.network import compile_network, difference
from snnconvert.convert.channels import can_be_apart, with_channels_apart
from snnconvert.convert.doors import import_fitting
from snnconvert.convert.passes import canonicalize
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import neurons_of, sites
from snnconvert.graph.types import NeuronChoice, Snn
from snnconvert.recompile import Change, conversion, recompiled
from snnconvert.request import Request, check_request, read_budget, read_levels
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine
from tests.test_added_neurons import Wired
from tests.test_tiny import command

IMAGES = np.random.default_rng(0).integers(0, 17, (4, 1, 8, 8)).astype(np.uint8)
USUAL = {"timesteps": 4, "schedule": "streaming", "calibration": "mse", "calibration_samples": 64, "limit": 100}


def units_of(snn: Snn) -> list[tuple[str, int]]:
    return [(op.model, op.levels) for op in neurons_of(snn.graph).values()]


@pytest.fixture(scope="module")
def by_hand() -> snnconvert.Conversion:
    return snnconvert.convert_model("zoo:digits-cnn", levels=[1, 3, 1, 2], **USUAL)


def test_units_by_hand_are_those_of_the_layers(by_hand: snnconvert.Conversion, tmp_path: Path) -> None:
    snn = by_hand.snn
    assert units_of(snn) == [("if", 1), ("burst", 3), ("if", 1), ("burst", 2)]
    images = torch.rand(5, *snn.input_shape, generator=torch.Generator().manual_seed(0))
    fast, oracle = LayerEngine(snn).run(images), StepEngine(snn).run(images)
    assert all(torch.equal(fast.spikes[name], oracle.spikes[name]) for name in oracle.spikes)
    assert torch.equal(fast.outputs[0], oracle.outputs[0])
    by_hand.save(tmp_path / "m.snn")
    loaded = snnconvert.load(tmp_path / "m.snn")
    assert loaded.neuron == snn.neuron
    assert difference(loaded) == ""
    report = json.loads((tmp_path / "m.json").read_text())
    assert [layer["units"] for layer in report["layers"]] == [1, 3, 1, 2]
    sizes = [layer["neurons"] for layer in report["layers"]]
    assert report["neuron"]["added"] == pytest.approx((2 * sizes[1] + sizes[3]) / sum(sizes))
    longer, _ = recompiled(loaded, Change(timesteps=8))
    assert units_of(longer) == units_of(snn)
    assert loaded.calibrated is not None
    assert "--levels 1,3,1,2" in conversion(loaded.calibrated, longer.schedule)


@pytest.mark.parametrize(("neuron", "model"), [("if", "burst"), ("ternary", "graded")])
def test_several_units_obey_the_equations_of_several(neuron: str, model: str) -> None:
    made = [snnconvert.convert_model("zoo:digits-cnn", neuron=name, levels=2, **USUAL) for name in (neuron, model)]
    one, other = (conversion.snn for conversion in made)
    assert units_of(one) == units_of(other) == [(model, 2)] * 4
    images = torch.rand(5, *one.input_shape, generator=torch.Generator().manual_seed(0))
    outputs = [LayerEngine(replace(snn)).run(images).outputs[0] for snn in (one, other)]
    if neuron == "ternary":  # thresholds of burst neurons are fitted as those of neurons without memory, too
        assert torch.equal(*outputs)


@pytest.mark.parametrize("option", ["budget", "spike_budget"])
def test_a_budget_is_not_exceeded_and_helps(option: str) -> None:
    usual = {**USUAL, "calibration": "reconstruct", "timesteps": 2}
    also = {"budgets": "40%,0"} if option == "budget" else {}
    plain = snnconvert.convert_model("zoo:digits-cnn", **also, **usual)
    spent = snnconvert.convert_model("zoo:digits-cnn", **{option: "40%"}, **usual)
    units = units_of(spent.snn)
    assert len(set(units)) > 1
    if option == "budget":
        assert 0 < spent.report["neuron"]["added"] <= 0.4
        assert spent.curve[-1]["agreement"] >= plain.curve[-1]["agreement"]
        nothing, room = plain.report["capacity"]
        assert (nothing["budget"], nothing["added"], set(nothing["units"])) == (0.0, 0.0, {1})
        assert nothing["spikes_per_image"] == plain.report["analysis"]["final"]["spikes_per_image"]
        assert (room["budget"], room["added"]) == (0.4, spent.report["neuron"]["added"])
        assert room["units"] == [layer["units"] for layer in spent.report["layers"]]
        assert (room["metric"], room["value"]) == ("accuracy", spent.report["analysis"]["final"]["value"])
    assert spent.report["layers"][0]["units"] < max(layer["units"] for layer in spent.report["layers"])


def test_the_next_unit_goes_where_it_helps_most() -> None:
    sizes = {"wide": 100.0, "narrow": 10.0, "useless": 1.0}
    effects = {"wide": 1.0, "narrow": 0.5, "useless": -0.1}
    found = greedy(effects, lambda name, levels: levels * sizes[name], 0.2, 1)
    assert found == {"wide": 1, "narrow": 3, "useless": 1}
    assert greedy(effects, lambda name, levels: levels * sizes[name], 0.0, 1) == dict.fromkeys(sizes, 1)
    assert max(greedy(effects, lambda name, levels: levels * sizes[name], 1e9, 1).values()) == MOST_UNITS


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"levels": (1, 2)}, "levels has 2 numbers, digits_cnn has 4 layers of neurons"),
        ({"budget": 0.1, "spike_budget": 0.1}, "--budget and --spike-budget say twice"),
        ({"budget": 0.1, "levels": (2,)}, "--budget and --levels 2 say twice"),
        ({"levels": "auto", "neuron": "ternary-late"}, "--levels auto does not fit --neuron ternary-late"),
        ({"budget": 0.1, "schedule": "bistable"}, "--schedule bistable brings neurons of its own"),
        ({"levels": (3,), "neuron": "auto"}, "--levels 3 does not fit --neuron auto"),
    ],
)
def test_what_does_not_fit_is_refused(asked: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        if asked == {"levels": (1, 2)}:  # how many layers there are shows when the model has been read
            snnconvert.convert_model("zoo:digits-cnn", **asked, **USUAL)
        check_request(Request("m.onnx", **asked))  # type: ignore[arg-type]
    assert re.search("leave|choose|relu1", caught.value.hint)


@pytest.mark.parametrize("given", ["", "1,,2", "0", "1.5", 70000, True, "all", [1, "x"]])
def test_levels_that_are_none(given: object) -> None:
    with pytest.raises(OptionError, match="no number of units"):
        read_levels(given)


def test_shares_in_several_spellings() -> None:
    assert read_budget("budget", "15%") == read_budget("budget", 0.15) == read_budget("budget", "0.15") == 0.15
    for wrong in ("-1%", "fifteen", True, "2000%", "nan"):
        with pytest.raises(OptionError, match="no share from 0"):
            read_budget("budget", wrong)


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["zoo:digits-cnn", "-T", "4", "--schedule", "streaming", "--calibration", "mse", "--limit", "50"]
    assert command(monkeypatch, *words, "--levels", "1,1,2,2", "-o", "a.snn", "--quiet") == 0
    assert [count for _, count in snnconvert.load("a.snn").neuron.sites] == [1, 1, 2, 2]
    assert command(monkeypatch, *words, "--levels", "1,1,2", "-o", "b.snn", "--quiet") == 2


def test_alike_units_are_one_number() -> None:
    snn = snnconvert.convert_model("zoo:digits-cnn", levels=(2, 2, 2, 2), **USUAL).snn
    assert snn.neuron == NeuronChoice("if", 2)
    assert snn.calibrated is not None
    assert units_of(compile_network(snn.calibrated, neuron=NeuronChoice("if", 1))) == [("if", 1)] * 4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"levels": "auto"}, ["--levels", "auto"]),
        ({"levels": "auto", "budget": 0.4}, ["--levels", "auto", "--budget", "40%"]),
        ({"levels": "1,1,2,2"}, ["--levels", "1,1,2,2"]),
        ({"levels": 2}, ["--levels", "2"]),
        ({"levels": torch.tensor([1, 1, 2, 2])}, ["--levels", "1,1,2,2"]),
    ],
)
def test_python_takes_what_the_command_line_takes(
    given: dict[str, object], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    usual = ["-T", "4", "--schedule", "streaming", "--calibration", "mse", "--calibration-samples", "64"]
    assert command(monkeypatch, "zoo:digits-cnn", *usual, "--limit", "100", *words, "-o", "a.snn", "--quiet") == 0
    made = snnconvert.convert_model("zoo:digits-cnn", **given, **USUAL).snn
    assert units_of(made) == units_of(snnconvert.load("a.snn"))


def test_budgets_in_python_as_on_the_command_line() -> None:
    made = snnconvert.convert_model("zoo:digits-cnn", budgets="0%,40%", **USUAL)
    assert [row["budget"] for row in made.report["capacity"]] == [0.0, 0.4]


def test_channels_that_need_them_get_more_units_than_others() -> None:
    usual = {**USUAL, "budget": 0.4, "budget_by": "channel"}
    one, added = (snnconvert.convert_model("zoo:digits-resnet", added_neurons=more, **usual) for more in (False, True))
    assert one.snn.calibrated is not None
    graph = one.snn.calibrated.network.graph
    assert one.snn.calibrated.original is not None
    wholes = {node.name: math.prod(node.meta["shape"]) for node, _ in sites(one.snn.calibrated.original.graph)}
    units = {node.name: one.snn.neuron.units_at(node.name) for node, _ in sites(graph)}
    sizes = {node.name: math.prod(node.meta["shape"]) for node, _ in sites(graph)}
    apart = [name for name in sizes if name not in wholes]
    assert len({units[name] for name in apart}) > 1
    assert sum(sizes.values()) == sum(wholes.values())
    spent = sum(units[name] * size for name, size in sizes.items()) / sum(wholes.values()) - 1
    assert 0.2 < spent <= 0.4
    assert sum(layer["neurons"] for layer in added.report["layers"]) == round((1 + spent) * sum(wholes.values()))
    assert one.accuracy == added.accuracy
    again = conversion(one.snn.calibrated, one.snn.schedule)
    assert "--budget 0.4 --budget-by channel" in again
    assert "--levels" not in again
    fast, oracle = (engine(one.snn).run(one.snn.prepare(IMAGES)) for engine in (LayerEngine, StepEngine))
    assert torch.equal(fast.outputs[0], oracle.outputs[0])


def test_channels_apart_compute_the_same() -> None:
    ann = canonicalize(import_fitting(Wired().eval(), ((2, 8, 8),), {}, name="wired"))
    able = can_be_apart(ann)
    assert 4 <= len(able) < len(list(sites(ann.graph)))  # a sum, and what one operator gives two sites, stay whole
    groups = {}
    for node, _ in sites(ann.graph):
        order = torch.randperm(node.meta["shape"][0], generator=torch.Generator().manual_seed(1))
        parts = order.tensor_split(3) if node.name in able else [order.sort().values]
        groups[node.name] = {count + 1: part for count, part in enumerate(parts) if len(part)}
    network, numbers = with_channels_apart(ann, groups)
    x = torch.rand(5, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(ann.graph(x)[0], network.graph(x)[0], atol=1e-5)
    assert set(numbers) == {node.name for node, _ in sites(network.graph)}
    assert len(numbers) == sum(map(len, groups.values()))


@pytest.mark.parametrize("asked", [{}, {"spike_budget": 0.1}, {"levels": (1, 2, 1, 2)}])
def test_channels_without_a_budget_to_give_out(asked: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="--budget-by channel says how a budget of units"):
        check_request(Request("zoo:digits-cnn", budget_by="channel", **asked))  # type: ignore[arg-type]
