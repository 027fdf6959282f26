"""Time to first spike: engines against their oracles, exactness in continuous time, and what cannot be had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnconvert import convert_model
from snnconvert.data.memory import Memory
from snnconvert.errors import BudgetError, OptionError
from snnconvert.exporters.export import export
from snnconvert.exporters.integers import compiler
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.dialect import neurons_of
from snnconvert.graph.schedule import FirstSpike
from snnconvert.graph.schedule.first_spike import MOST_BITS
from snnconvert.pipeline import Outcome, Request, run
from snnconvert.recompile import Change, recompiled
from snnconvert.report.from_run import document_of
from snnconvert.simulate.event_engine import EventEngine
from snnconvert.simulate.integer import IntegerEngine
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.study.jitter import Noise
from tests.engines import assert_engines_agree


class Residual(nn.Module):
    """Strides, shortcuts, depthwise, ReLU6, both kinds of pooling, and a linear bottleneck, whose values have signs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
        self.depthwise = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU6())
        self.project = nn.Conv2d(6, 4, 1)
        self.inner = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))
        self.expand = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        narrow = self.project(self.depthwise(x))
        x = torch.relu(self.expand(self.inner(narrow) + narrow) + x)
        return torch.as_tensor(self.head(self.down(x).mean((2, 3))))


class Wired(nn.Module):
    """Spikes that wiring moves: a shortcut of padded and left-out values, which is held back, and a concatenation
    of which the maximum is taken."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.same = nn.Conv2d(6, 6, (1, 3), padding=(0, 1))
        self.left, self.right = nn.Conv2d(6, 3, 3, padding=2, dilation=2), nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        shortcut = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        x = torch.relu(self.same(torch.relu(self.down(x))) + shortcut)
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        x = nn.functional.max_pool2d(x, 3, stride=1, padding=1)
        return torch.as_tensor(self.head(nn.functional.avg_pool2d(x, 4).flatten(1)))


MODULES = {"residual": Residual, "wired": Wired}


def converted(module: nn.Module | None = None, model: str = "zoo:digits-resnet", **options: Any) -> Outcome:
    shape = {} if module is None else {"input_shape": (2, 8, 8)}
    usual = {"schedule": "ttfs", "calibration_samples": 64}
    limit = {} if module is not None else {"limit": 40}
    return run(Request(model, **{**usual, **shape, **limit, **options}), memory=Memory(module=module))


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("model", ["zoo:digits-cnn", "zoo:digits-resnet"])
def test_slots_are_those_of_the_oracle(model: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = converted(model=model, time_bits=bits, calibration="mse")
    assert_engines_agree(found.snn, found.inputs.calibration[:6], monkeypatch)


@pytest.mark.parametrize("which", MODULES)
def test_values_of_either_sign_and_wiring_take_slots_too(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = converted(MODULES[which]().eval(), which, time_bits=4, calibration="mse")
    seen = assert_engines_agree(found.snn, found.inputs.calibration[:5], monkeypatch)
    assert any(op.row.negative for op in neurons_of(found.snn.graph).values()) == (which == "residual")
    for node, op in neurons_of(found.snn.graph).items():
        assert int(seen.spikes[node.name].sum()) <= 5 * int(np.prod(node.meta["shape"])), op.model


def test_a_neuron_spikes_once_and_sixteen_slots_are_sixteen_levels() -> None:
    found = converted(time_bits=4, calibration="mse")
    snn, images = found.snn, found.inputs.calibration[:8]
    seen = LayerEngine(snn).run(images)
    for node, op in neurons_of(snn.graph).items():
        assert (op.model, op.levels) == ("first-spike", 16)
        assert 0 < int(seen.spikes[node.name].sum()) <= 8 * int(np.prod(node.meta["shape"]))
    assert snn.schedule.timesteps == (snn.schedule.depth + 1) * 16
    assert found.evaluation.curve.correct[-17] is None
    assert all(right is not None for right in found.evaluation.curve.correct[-16:])


@pytest.mark.parametrize("which", ["zoo:digits-cnn", "zoo:digits-resnet", *MODULES])
def test_continuous_time_is_the_original_network(which: str) -> None:
    """Against float64, and spike by spike against events sorted by time."""
    found = converted(MODULES[which]().eval() if which in MODULES else None, which)
    images = found.inputs.calibration[:4]
    original = found.ann.graph.double()(images.double())[0].numpy()
    engine = LayerEngine(found.snn)
    seen = engine.run(images)
    assert np.abs(seen.outputs[0][-1].numpy() - original).max() < 1e-12 * max(1.0, np.abs(original).max())
    (made,), sent = EventEngine(found.snn).run(images)
    assert np.abs(made - original).max() < 1e-12 * max(1.0, np.abs(original).max())
    for node in neurons_of(found.snn.graph):
        assert int(seen.spikes[node.name].sum()) == sum(len(one[node.name].times) for one in sent)
        depth = round(float(np.ceil(max(one[node.name].times.max() for one in sent)))) - 1
        assert all(((one[node.name].times >= depth) & (one[node.name].times < depth + 1)).all() for one in sent)
        assert all(len(set(one[node.name].neurons.tolist())) == len(one[node.name].neurons) for one in sent)
    assert not engine.notes


def test_the_mapping_by_hand() -> None:
    """W = [.5, -.25], b = .1 on activations .8 and .4 is .4 (Stanojevic et al. 2023)."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        for layer, weight, bias in (
            (module[0], torch.eye(2), torch.zeros(2)),
            (module[2], torch.tensor([[0.5, -0.25]]), torch.tensor([0.1])),
            (module[4], torch.ones(1, 1), torch.zeros(1)),
        ):
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    snn = run(
        Request("mlp", schedule="ttfs", input_shape=(2,), calibration_samples=32), memory=Memory(module=module)
    ).snn
    (made,), ((sent),) = EventEngine(snn).run(torch.tensor([[0.8, 0.4]]))
    first, second = neurons_of(snn.graph)
    threshold = [float(op.threshold.flatten()[0]) for op in neurons_of(snn.graph).values()]
    assert made[0, 0] == pytest.approx(0.4, abs=1e-7)
    assert sorted(sent[first.name].times) == pytest.approx([2 - 0.8 / threshold[0], 2 - 0.4 / threshold[0]])
    assert list(sent[second.name].times) == pytest.approx([3 - 0.4 / threshold[1]])


@pytest.mark.parametrize("options", [{}, {"time_bits": 4, "calibration": "mse"}])
def test_a_called_network_answers_on_the_scale_of_the_original(options: dict[str, Any]) -> None:
    found = converted(model="zoo:digits-cnn", **options)
    images = found.inputs.calibration[:20]
    original = found.ann.graph(images)[0]
    snn = convert_model("zoo:digits-cnn", schedule="ttfs", calibration_samples=64, limit=20, **options).snn
    made = snn(images)
    made = made.to(original.dtype)
    assert float((made * original).sum() / original.square().sum()) == pytest.approx(1.0, abs=0.05)
    assert torch.allclose(torch.as_tensor(snn.simulate(images).outputs)[-1].to(made.dtype), made, atol=1e-4)


def test_exports_of_slots_are_equal_and_real_times_are_refused(tmp_path: Path) -> None:
    found = converted(model="zoo:digits-cnn", time_bits=3, calibration="mse")
    for to, name in (("torch", "module"), ("onnx", "m.onnx"), ("integers", "integers")):
        if to == "integers" and compiler() is None:
            continue
        made = export(found.snn, tmp_path / name, to=to, verify=True, data="zoo:digits-cnn", limit=16).verified
        assert made is not None
        assert sum(made.differing.values()) == 0
        assert (made.agreed, made.images) == (16, 16)
        assert made.logits < 1e-3
    with pytest.raises(OptionError, match="no spikes in continuous time"):
        export(converted(model="zoo:digits-cnn").snn, tmp_path / "c.onnx", to="onnx")


def test_integers_with_bits_to_spare_are_the_network() -> None:
    snn, images = converted(model="zoo:digits-resnet", time_bits=3, calibration="mse").snn, torch.rand(6, 1, 8, 8)
    wide = IntegerEngine(snn, weight_bits=44, state_bits=53).run(images)
    seen = LayerEngine(snn).run(images)
    assert wide.spikes == {node.name: int(seen.spikes[node.name].sum()) for node in neurons_of(snn.graph)}
    assert torch.allclose(wide.outputs[-1], seen.outputs[0][-1] / 8, rtol=1e-6, atol=1e-9)
    assert len(wide.outputs) == len(snn.schedule.answer_steps) == 8
    with pytest.raises(OptionError, match="real times"):
        IntegerEngine(converted(model="zoo:digits-cnn").snn, weight_bits=8, state_bits=16)


def test_values_beyond_a_window_are_counted_and_said() -> None:
    found = converted(options={"zeta": 0.0}, calibration="first-spike")
    engine = LayerEngine(found.snn)
    images = found.inputs.calibration[:6]
    engine.run(images)
    assert not engine.notes
    engine.run(torch.cat([images[:2], 3.0 * images[2:5]]))
    (note,) = engine.notes
    assert note.startswith("on 3 of 11 inputs a value lies beyond its layer's window")


def test_relu6_is_cut_off_where_it_cuts_off_itself() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(108, 2)).eval()
    snn = converted(module, "relu6").snn
    large = 50.0 * torch.rand(4, 2, 8, 8)
    engine = LayerEngine(snn)
    made = engine.run(large).outputs[0][-1]
    clipped = engine.beyond[-1]
    expected = module.double()(large.double())
    assert torch.allclose(made[~clipped], expected[~clipped], atol=1e-9)
    loud = converted(module.float(), "relu6", options={"zeta": 50.0}, calibration="first-spike").snn
    engine = LayerEngine(loud)
    assert torch.allclose(engine.run(large).outputs[0][-1], module.double()(large.double()), atol=1e-9)
    assert not engine.notes


def test_units_of_a_sigmoid_saturate_and_nothing_is_said_of_windows() -> None:
    """Their ceilings are no float32 numbers, as thresholds are."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Flatten(), nn.Linear(128, 16), nn.Sigmoid(), nn.Linear(16, 12), nn.Sigmoid())
    module.append(nn.Linear(12, 3))
    with torch.no_grad():
        for layer in (module[1], module[3]):
            layer.weight *= 6
    found = converted(module.eval(), "sigmoid", options={"zeta": 1.0}, calibration="first-spike")
    assert found.snn.calibrated is not None
    ceilings = [op.ceiling for op in neurons_of(found.snn.graph).values() if op.ceiling is not None]
    assert any(torch.tensor(one).double() < one for one in ceilings)
    engine, images = LayerEngine(found.snn), found.inputs.calibration[:8]
    made = engine.run(images).outputs[0][-1]
    units = found.snn.calibrated.network.graph.double()
    assert torch.allclose(made, units(images.double())[0], atol=1e-6)
    assert not engine.notes


def test_steps_follow_from_bits_or_bits_from_steps() -> None:
    depth = 5
    free = converted(time_bits=3, calibration="mse")
    assert free.snn.schedule == FirstSpike(8 * (depth + 1), depth, time_bits=3)
    assert document_of(free, command_line="")["latency"]["asked"] is None
    fitting = converted(timesteps=100, calibration="mse")
    assert fitting.snn.schedule == FirstSpike(16 * (depth + 1), depth, time_bits=4)
    assert document_of(fitting, command_line="")["latency"]["asked"] == 100
    assert converted(timesteps=32, calibration="mse").snn.schedule.timesteps == 24
    real = converted().snn.schedule
    assert (real.timesteps, real.continuous) == (depth + 1, True)
    with pytest.raises(BudgetError, match="no schedule fits") as refused:
        converted(timesteps=96, time_bits=4)
    assert "the same in two ways" in str(refused.value.causes)
    with pytest.raises(BudgetError, match="no schedule fits"):
        converted(timesteps=11)
    with pytest.raises(OptionError, match=f"from 1 to {MOST_BITS}"):
        converted(time_bits=MOST_BITS + 1)


def test_auto_tries_it_only_when_asked() -> None:
    request = Request("zoo:digits-cnn", timesteps=20, calibration="rnl", calibration_samples=32, limit=20)
    for schedule in ("auto", "auto,ttfs"):
        rows = run(replace(request, schedule=schedule)).snn.calibration["schedules"]
        assert any("first spike, 2 bits" in row["name"] and row["eligible"] for row in rows) == ("ttfs" in schedule)
    with pytest.raises(OptionError, match="--time-bits is for --schedule ttfs, which auto does not try"):
        converted(schedule="auto", time_bits=4)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Sigmoid(), nn.Flatten()), "real values"),
        (nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.MaxPool2d(2), nn.Flatten()), "below zero"),
    ],
)
def test_what_has_no_time_is_refused_by_name(module: nn.Module, why: str) -> None:
    whole = nn.Sequential(*module, nn.LazyLinear(2))
    whole(torch.zeros(1, 2, 8, 8))
    with pytest.raises(OptionError, match=why) as refused:
        converted(whole.eval(), "analog", approximate="analog")
    assert "ttfs" in str(refused.value)


def test_a_checkpoint_keeps_it_and_a_calibration_compiles_for_it(tmp_path: Path) -> None:
    found = converted()
    save_snn(found.snn, tmp_path / "m.snn")
    loaded, images = load_snn(tmp_path / "m.snn"), found.inputs.calibration[:3]
    assert loaded.schedule == found.snn.schedule
    assert torch.equal(LayerEngine(loaded).run(images).outputs[0], LayerEngine(found.snn).run(images).outputs[0])
    streaming = converted(schedule="streaming", timesteps=16, calibration="mse").snn
    made, _ = recompiled(streaming, Change("ttfs", None, None, {"time_bits": 4}))
    assert made.schedule.timesteps == 96
    again, _ = recompiled(made, Change(None, 50, None, {}))
    assert again.schedule == FirstSpike(48, 5, time_bits=3)


def test_noise_in_spike_times() -> None:
    sent = torch.tensor([[0.0, 0.5, 1.0, -0.5]])
    still = Noise(0.0, None, torch.Generator().manual_seed(0))
    assert torch.equal(still(sent), sent)
    moved = Noise(0.1, None, torch.Generator().manual_seed(0))(sent.expand(4000, 4))
    assert torch.equal(moved[:, 0], torch.zeros(4000))
    assert float(moved[:, 1].std()) == pytest.approx(0.1, rel=0.05)
    assert float(moved.max()) <= 1.0 and float(moved[:, 3].max()) <= 0.0
    whole = Noise(0.1, 16, torch.Generator().manual_seed(0))(16 * sent)
    assert torch.equal(whole, whole.round())
    rows = converted(studies=("jitter",)).studies["jitter"]["rows"]
    assert rows[0]["agreement"] == 100.0
    assert rows[-1]["agreement"] < 100.0
