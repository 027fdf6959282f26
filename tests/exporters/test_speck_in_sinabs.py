"""A Speck's cores and integers, as sinabs has them: its own layers, mapper and discretisation, without a driver.

Runs where sinabs is installed, here or by `make readers`. `sinabs.backend.dynapcnn` imports samna, which on a package
index is a stub that installs another package as it is imported. Its modules are therefore imported one by one, with an
empty module in samna's place.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import snnconvert
from snnconvert.compile.network import compile_network
from snnconvert.cost.chip import cores_of, load_target
from snnconvert.graph.dialect import Builder, sites
from snnconvert.graph.kinds import Conv, Relu
from snnconvert.graph.schedule import Streaming
from snnconvert.graph.types import Ann, Calibrated, NeuronChoice, Origin, SiteCalibration, Snn, Source
from snnconvert.pipeline import Request, run

MADE = Path(snnconvert.__file__).parent.parent / ".readers" / "sinabs" / "bin" / "python"
PYTHON = sys.executable if find_spec("sinabs") else str(MADE) if MADE.is_file() else ""
pytestmark = pytest.mark.skipif(not PYTHON, reason="sinabs is not installed; make readers brings it")

HEAD = """
import json, sys, types
from importlib.util import find_spec
from pathlib import Path

sys.modules["samna"] = types.ModuleType("samna")
own = Path(find_spec("sinabs").origin).parent / "backend" / "dynapcnn"
for name, folder in (("", own), (".chips", own / "chips")):
    package = types.ModuleType("sinabs.backend.dynapcnn" + name)
    package.__path__ = [str(folder)]
    sys.modules[package.__name__] = package

import torch
import sinabs.layers as sl
from sinabs.backend.dynapcnn.chips.dynapcnn import DynapcnnConfigBuilder
from sinabs.backend.dynapcnn.discretize import discretize_conv_spike
from sinabs.backend.dynapcnn.dynapcnn_layer import DynapcnnLayer
from sinabs.backend.dynapcnn.exceptions import InvalidModel
from sinabs.backend.dynapcnn.mapping import find_chip_layers, get_valid_mapping

given = json.loads(sys.stdin.read())
"""
MAP = """
constraints, found = DynapcnnConfigBuilder.get_constraints(), []
for network in given:
    layers = {}
    for index, (channels, outputs, kernel, stride, padding, sides) in enumerate(network):
        conv = torch.nn.Conv2d(channels, outputs, kernel, stride, padding)
        spikes = sl.IAFSqueeze(batch_size=1)
        layers[index] = DynapcnnLayer(conv, spikes, (channels, *sides), [(1, 1)], discretize=False)
    try:
        placed = len(get_valid_mapping(layers, constraints))
    except (InvalidModel, ValueError):
        placed = None
    words = [{name: int(value) for name, value in one.memory_summary().items()} for one in layers.values()]
    found.append({"placed": placed, "words": words,
                  "cores": [find_chip_layers(one, constraints) for one in layers.values()]})
assert not hasattr(sys.modules["samna"], "PYPI_SAMNA")
print(json.dumps(found))
"""
DISCRETISE = """
import load_m
found = {}
for lowest in (None, -16):
    model, graph = load_m.load(lowest=lowest)
    for name, after in graph.edges:
        if name.endswith("conv2") and after.endswith("relu2"):
            layer = getattr(model, after)
            layer.spike_threshold = torch.nn.Parameter(torch.tensor(1.0), requires_grad=False)
            conv, spikes = discretize_conv_spike(getattr(model, name), layer, to_int=True)
            found[str(lowest)] = [float(conv.weight.abs().max()), float(spikes.spike_threshold),
                                  float(spikes.min_v_mem)]
print(json.dumps(found))
"""


def in_sinabs(code: str, given: object, folder: Path) -> object:
    done = subprocess.run(
        [PYTHON, "-c", HEAD + code], input=json.dumps(given), capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


Layer = tuple[int, int, int, int, int, tuple[int, int]]


def chain(draw: random.Random, most: int) -> list[Layer]:
    """Convolutions, each on what the one before makes: channels, outputs, kernel, stride, padding, sides."""
    channels, side, layers = draw.choice([1, 2, 3]), draw.choice([16, 24, 32, 48]), list[Layer]()
    for _ in range(draw.randint(2, most)):
        kernel, stride = draw.choice([1, 2, 3, 5]), draw.choice([1, 1, 2])
        outputs, padding = draw.choice([4, 10, 24, 48, 96]), kernel // 2
        layers.append((channels, outputs, kernel, stride, padding, (side, side)))
        channels, side = outputs, (side + 2 * padding - kernel) // stride + 1
    return layers


def network_of(layers: list[Layer]) -> Snn:
    channels, *_, sides = layers[0]
    builder = Builder({"input": torch.zeros(1, channels, *sides)})
    x = builder.inputs["input"]
    for index, (inputs, outputs, kernel, stride, padding, _) in enumerate(layers):
        weight = torch.full((outputs, inputs, kernel, kernel), 0.01)
        op = Conv(weight, torch.zeros(outputs), stride=(stride,) * 2, padding=(padding,) * 2, dilation=(1, 1))
        x = builder.call(op, x, origin=Origin(f"conv{index}", "Conv"))
        x = builder.call(Relu(), x, origin=Origin(f"relu{index}", "Relu"))
    ann = Ann(builder.finish([x]), (channels, *sides), ("out",), Source("chain", "", "", "test"))
    found = {
        node.name: SiteCalibration(torch.ones(1, 1, 1), torch.full((1, 1, 1), 0.5)) for node, _ in sites(ann.graph)
    }
    return compile_network(Calibrated(ann, found, Streaming(2, len(layers)), NeuronChoice(), 1.0))


def test_cores_are_those_of_the_mapper(tmp_path: Path) -> None:
    draw, target = random.Random(3), load_target("speck2f")
    networks = [chain(draw, most) for most in (3, 5, 7, 9, 9, 10, 10, 10)]
    networks.append([(1, 4, 3, 1, 1, (16, 16))] + [(4, 4, 3, 1, 1, (16, 16))] * 9)  # ten layers, nine cores
    networks.append([(1, 24, 3, 1, 1, (48, 48)), (24, 48, 3, 1, 1, (48, 48))])  # neurons that no core holds
    theirs = in_sinabs(MAP, networks, tmp_path)
    assert isinstance(theirs, list)
    complete = []
    for layers, found in zip(networks, theirs, strict=True):
        ours = cores_of(network_of(layers), target)
        words = [{"kernel": one.kernel, "neuron": one.neurons, "bias": one.biases} for one in ours]
        assert words == found["words"]
        complete.append(all(one.core is not None for one in ours))
        assert complete[-1] == (found["placed"] == len(layers))
        assert all(one.core in fits for one, fits in zip(ours, found["cores"], strict=True) if one.core is not None)
    assert any(complete)
    assert not all(complete)
    assert not complete[-1]


def test_a_lowest_membrane_leaves_weights_their_bits(tmp_path: Path) -> None:
    asked = Request("zoo:digits-cnn", schedule="streaming", timesteps=4, calibration="mse", limit=20)
    made = snnconvert.export(run(asked).snn, tmp_path / "m.nir", to="nir", reader="sinabs")
    assert any("load(lowest=-16)" in note for note in made.written.notes)
    found = in_sinabs(DISCRETISE, None, tmp_path)
    assert isinstance(found, dict)
    weight, threshold, lowest = found["None"]
    assert weight == 0
    assert threshold <= 1
    assert lowest == -32768
    weight, threshold, lowest = found["-16"]
    assert weight > 100
    assert threshold > 100
    assert lowest == pytest.approx(-16 * threshold, rel=0.02)
