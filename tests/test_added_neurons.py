"""Units of a step as neurons of their own: the same spikes, in all, at every step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import snnconvert
from snnconvert.compile.added import with_added_neurons
from snnconvert.compile.network import compile_network, difference
from snnconvert.graph.dialect import neurons_of
from snnconvert.graph.types import Snn
from snnconvert.recompile import conversion
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine
from tests.test_tiny import command

IMAGES = torch.rand(60, 2, 8, 8, generator=torch.Generator().manual_seed(0))
USUAL = {"timesteps": 8, "schedule": "streaming", "calibration": "mse", "calibration_samples": 40}


class Wired(nn.Module):
    """A shortcut, branches that are joined, a depthwise convolution, pools, a slope below zero, and a dense head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.body = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 1))
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.left, self.right = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 3, 3, padding=1)
        self.slope = nn.PReLU(3)
        self.head = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(28, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.body(x))
        x = torch.relu(self.deep(x))
        found: Tensor = self.head(torch.cat([torch.relu(self.left(x)), self.slope(self.right(x))], 1))
        return found


def both(neuron: str, levels: object) -> tuple[Snn, Snn]:
    asked = {"neuron": neuron, "levels": levels, "linear": "spiking", **USUAL}
    snn = snnconvert.convert_model(Wired().eval(), data=IMAGES, **asked).snn
    assert snn.calibrated is not None
    return snn, compile_network(with_added_neurons(snn.calibrated))


def units_sent(snn: Snn) -> dict[str, Tensor]:
    sent: dict[str, Tensor] = {}

    def probe(name: str, by_frame: Tensor) -> None:
        sent[name] = by_frame.float().clone()

    LayerEngine(snn).run(IMAGES[:20], probe)
    return sent


@pytest.mark.parametrize("neuron", ["if", "ternary", "burst", "graded"])
@pytest.mark.parametrize("levels", [2, 3, "1,2,1,3,2,1,4,2,3"])
def test_together_they_send_the_same_at_every_step(neuron: str, levels: object) -> None:
    one, added = both(neuron, levels)
    units = {node.name: op.levels for node, op in neurons_of(one.graph).items()}
    assert len(units) == 9  # a slope below zero takes two, a sum that weights read one
    assert all(op.levels == 1 for op in neurons_of(added.graph).values())
    wanted, found = units_sent(one), units_sent(added)
    for name, count in units.items():
        shape = wanted[name].shape
        assert found[name].shape[2] == count * shape[2]
        together = found[name].reshape(*shape[:3], count, *shape[3:]).sum(3)
        assert torch.equal(together, wanted[name]), name
        assert float(wanted[name].abs().max()) <= count
    fast, oracle = (engine(added).run(IMAGES[:4]) for engine in (LayerEngine, StepEngine))
    assert all(torch.equal(fast.spikes[name], oracle.spikes[name]) for name in units)
    outputs = [LayerEngine(each).run(IMAGES).outputs[0][-1] for each in (one, added)]
    assert torch.allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-4 * float(outputs[0].abs().max()))


def test_real_values_stay_what_they_were() -> None:
    one, added = both("if", 3)
    assert one.calibrated is not None
    assert added.calibrated is not None
    before, after = (each.calibrated.network.graph(IMAGES)[0] for each in (one, added) if each.calibrated is not None)
    assert torch.allclose(before, after, atol=1e-5)


def test_as_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["zoo:digits-resnet", "-T", "4", "--schedule", "streaming", "--calibration", "mse", "--limit", "50"]
    assert command(monkeypatch, *words, "--budget", "40%", "--added-neurons", "-o", "a.snn", "--quiet") == 0
    assert command(monkeypatch, *words, "--budget", "40%", "-o", "b.snn", "--quiet") == 0
    added, one = snnconvert.load("a.snn"), snnconvert.load("b.snn")
    counts = [
        sum(int(torch.tensor(node.meta["shape"]).prod()) for node in neurons_of(each.graph)) for each in (added, one)
    ]
    assert counts[1] < counts[0] <= 1.4 * counts[1]
    assert difference(added) == ""
    assert added.calibrated is not None
    again = conversion(added.calibrated, added.schedule)
    assert "--added-neurons" in again
    assert "--levels " + ",".join(str(op.levels) for op in neurons_of(one.graph).values()) in again
    assert one.calibrated is not None
    assert again.replace(" --added-neurons", "") == conversion(one.calibrated, one.schedule)
    report = json.loads((tmp_path / "a.json").read_text())
    assert sum(layer["neurons"] for layer in report["layers"]) == counts[0]
    assert report["attribution"]["reference"] == "ANN"
    data = ["--data", "zoo:digits-resnet", "--limit", "50", "--quiet"]
    assert command(monkeypatch, "run", "a.snn", "-T", "8", "-o", "c.snn", *data) == 0
    assert command(monkeypatch, "export", "a.snn", "--to", "onnx", "--form", "step", "--verify", *data) == 0


def test_where_there_is_nothing_to_add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "zoo:digits-cnn", "--added-neurons", "-o", "a.snn", "--quiet") == 2
    snn = snnconvert.convert_model("zoo:digits-cnn", timesteps=4, schedule="streaming", calibration="mse").snn
    assert snn.calibrated is not None
    assert with_added_neurons(snn.calibrated) is snn.calibrated
