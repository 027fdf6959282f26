"""The model of machines: by hand, on a converted network, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from snnconvert.cost.engines import BACKWARD, FORWARD, UPDATE, cost, hit
from snnconvert.cost.machine_report import machine_document, ratios
from snnconvert.cost.machines import UNKNOWN, load_machine, names
from snnconvert.cost.workload import LayerWork, workload
from snnconvert.data.memory import Memory
from snnconvert.data.selection import images_for
from snnconvert.errors import OptionError
from snnconvert.graph.checkpoint import save_snn
from snnconvert.graph.dialect import neurons_of
from snnconvert.graph.types import Snn
from snnconvert.pipeline import run
from snnconvert.request import Request
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import watched_run
from snnconvert.study.backward import Activity, backward_activity
from snnconvert.study.operations import OperationCounter, Operations, operations
from tests.test_cli_report import snnconvert

LAYER = LayerWork(
    "one",
    "one",
    steps=10,
    moving=1000.0,
    constant=0.0,
    analog=0.0,
    inputs=100.0,
    neurons=50.0,
    weights=400.0,
    planes=1,
    additions=2000.0,
    reads=2000.0,
    updates=500.0,
    spikes=40.0,
    gradient=0.5,
    needed=0.25,
)


@pytest.fixture(scope="module")
def converted() -> tuple[Snn, torch.Tensor, Operations]:
    asked = Request(
        model="zoo:digits-resnet", timesteps=6, schedule="streaming", limit=16, calibration="mse", neuron="if"
    )
    snn = run(asked).snn
    images = images_for(snn, "zoo:digits-resnet", 8).images()
    counter = OperationCounter(snn, len(images))
    watched_run(LayerEngine(snn), images, [counter])
    counted = operations(counter)
    assert counted is not None
    return snn, images, counted


def test_a_processor_by_hand() -> None:
    machine = load_machine("v100").with_values(multiply_accumulates=1e6, memory_bandwidth=1e9, power=2.0)
    found = cost(machine, [LAYER], training=True, batch=4)
    assert [phase.name for phase in found.phases] == [FORWARD, BACKWARD, UPDATE]
    assert found.phases[0].compute == pytest.approx(10 * 1000 / 1e6)
    assert found.phases[0].moved == pytest.approx(4 * ((100 + 5 * 50) * 10 + 400 / 4))
    assert found.seconds == pytest.approx(3 * 10 * 1000 / 1e6)  # arithmetic takes longer than memory, in all phases
    assert found.joules == pytest.approx(2.0 * found.seconds)
    halved = cost(machine.with_values(utilisation=0.5), [LAYER], training=True, batch=4)
    assert halved.seconds == pytest.approx(2 * found.seconds)
    slow = cost(machine.with_values(memory_bandwidth=1.0), [LAYER], training=False, batch=4)
    assert slow.seconds == pytest.approx(slow.phases[0].moved)


def test_look_up_engines_by_hand() -> None:
    """Density 2000 / (10 * 1000) = 0.2; groups of 4: 0.5904 of the look-ups are needed."""
    machine = load_machine("h2learn").with_values(memory_bandwidth=1e30, dram_bit=0.0)
    forward, backward, update = cost(machine, [LAYER], training=True, batch=4).phases
    assert hit(0.2, 4) == pytest.approx(1 - 0.8**4)
    assert forward.operations == pytest.approx(
        {"look-ups": 10 * 1000 / 4 * 0.5904, "table sums": 15 * 100 / 4, "neuron updates": 1000.0}
    )
    assert backward.operations["multiply-accumulates"] == pytest.approx(10 * 1000 * 0.5 * 0.25)
    assert update.operations["look-ups"] == pytest.approx(10 * 1000 / 4 * 0.5904 * hit(0.5, 4))
    adders = 1e6 * 110.4 * 0.3 * 0.333 / 1360
    assert forward.compute == pytest.approx(sum(forward.operations.values()) / adders / 1e9)
    entry = 16 * 0.15625 + 0.4
    looks, tables, updates = forward.operations.values()
    assert forward.joules == pytest.approx(1e-12 * entry * (looks + updates + 2 * tables))


def test_engines_work_side_by_side() -> None:
    found = cost(load_machine("h2learn"), [LAYER], training=True, batch=64)
    assert found.seconds == max(*(phase.seconds for phase in found.phases), sum(phase.memory for phase in found.phases))
    assert found.seconds < sum(phase.seconds for phase in found.phases)


@pytest.mark.parametrize(("of", "share"), [("gradient", 0.1), ("needed", 0.05)])
def test_sparsity_saves_where_it_should(of: str, share: float) -> None:
    sparse = dataclasses.replace(LAYER, **{of: share})  # type: ignore[arg-type]
    dense = cost(load_machine("h2learn"), [LAYER], training=True, batch=64)
    less = cost(load_machine("h2learn"), [sparse], training=True, batch=64)
    assert less.joules < dense.joules
    assert cost(load_machine("v100"), [sparse], training=True, batch=64) == cost(
        load_machine("v100"), [LAYER], training=True, batch=64
    )


def test_area_time_does_not_depend_on_how_large_the_chip_is() -> None:
    """Arithmetic that decides is proportional to area; the published area is an input and no more than that."""
    machine = load_machine("h2learn").with_values(memory_bandwidth=1e30)
    larger = machine.with_values(area=5 * machine["area"])
    one, other = (cost(each, [LAYER], training=True, batch=64) for each in (machine, larger))
    assert other.seconds == pytest.approx(one.seconds / 5)
    assert other.area_time == pytest.approx(one.area_time)


def test_an_event_driven_chip_by_hand() -> None:
    machine = load_machine("loihi-like").with_values(neurons_per_core=25)
    found = cost(machine, [LAYER], training=False, batch=1)
    assert found.seconds == pytest.approx((2000 * 3.5e-9 + 500 * 8.4e-9) / 2 + 10 * 4.65e-7)
    assert found.joules == pytest.approx(1e-12 * (2000 * 23.6 + 500 * 81 + 40 * 1.7))
    with pytest.raises(OptionError, match="no engine for BPTT"):
        cost(machine, [LAYER], training=True, batch=1)


def test_every_constant_has_a_source_and_what_is_unknown_is_marked() -> None:
    for name in names():
        for row in load_machine(name).rows:
            assert row["source"].strip(), (name, row)
            assert row["provenance"] in ("table", "second hand", "derived", "assumption", UNKNOWN), (name, row)
    document = machine_document(load_machine("h2learn"), [LAYER], training=True, batch=64, images=1)
    assert {"clock", "group", "arithmetic_share"} <= set(document["unknown"])
    assert len(document["published"]) == 3
    json.dumps(document)


def test_published_figures_change_nothing() -> None:
    machine = load_machine("h2learn")
    without = dataclasses.replace(machine, published=())
    reference = cost(load_machine("v100"), [LAYER], training=True, batch=64)
    first, second = (ratios(cost(one, [LAYER], training=True, batch=64), reference) for one in (machine, without))
    assert first == second


def test_work_is_what_was_counted(converted: tuple[Snn, torch.Tensor, Operations]) -> None:
    snn, images, counted = converted
    layers = workload(counted, snn, backward_activity(snn, images))
    for row, work in zip(counted.layers, layers, strict=True):
        assert work.moving + work.constant == pytest.approx(row.synapses)
        if work.planes == 1:
            assert work.density * work.moving * work.steps == pytest.approx(row.accumulates)
        assert work.analog == 0.0
    assert [one.planes for one in layers] == [1, 1, 1, 1, 1, 5]  # the classifier reads sums of 4 x 4 spikes
    assert layers[0].needed == 0.0  # nobody needs the gradient of the picture
    assert all(0 < one.needed < 1 for one in layers[1:])
    assert all(one.gradient is not None and 0 < one.gradient <= 1 for one in layers)


def test_the_backward_pass_is_that_of_the_equations() -> None:
    """One neuron layer between two matrices, every step of the recurrence spelled out in numpy."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 4))
    asked = Request(
        model="mlp", input_shape=(6,), timesteps=7, schedule="streaming", calibration="mse", calibration_samples=64
    )
    snn = run(asked, memory=Memory(module=module)).snn
    x = torch.rand(5, 6)
    ((name, op),) = [(node.name, op) for node, op in neurons_of(snn.graph).items()]
    weighted = [one for one in snn.graph.modules() if hasattr(one, "weight") and hasattr(one, "bias")]
    current = weighted[0](x.to(weighted[0].weight.dtype)).double().numpy()
    theta, v = op.threshold.double().numpy(), np.zeros_like(current) + op.initial.double().numpy()
    potentials, spikes = [], []
    for _ in range(7):
        v = v + current
        potentials.append(v)
        spikes.append((v >= theta).astype(float))
        v = v - theta * spikes[-1]
    w, bias = weighted[1].weight.double().numpy(), weighted[1].bias.double().numpy()
    logits = np.mean([s @ w.T + bias for s in spikes], 0)
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    share[np.arange(5), logits.argmax(1)] -= 1
    above = (share / 5 / 7) @ w
    later, gradients, windows = np.zeros_like(current), [], []
    for u in reversed(potentials):
        inside = np.abs(u - theta) < 0.5 * theta
        later = inside / theta * (above - theta * later) + later
        gradients.append(later)
        windows.append(inside)
    found = backward_activity(snn, x)[name]
    assert found.window == pytest.approx(np.mean(windows))
    assert found.gradient == pytest.approx(np.mean(np.array(gradients) != 0))
    assert 0 < found.gradient < 1


def test_a_wider_window_makes_more_gradients(converted: tuple[Snn, torch.Tensor, Operations]) -> None:
    snn, images, _ = converted
    narrow, wide = (backward_activity(snn, images, half_width=width) for width in (0.1, 2.0))
    for name in narrow:
        assert narrow[name].window <= wide[name].window
        assert narrow[name].gradient <= wide[name].gradient
    assert wide["read-out"] == Activity(1.0, 1.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"schedule": "bistable"}, "streaming"),
        ({"schedule": "streaming", "neuron": "ternary"}, "binary spikes"),
    ],
)
def test_what_cannot_be_trained_is_refused(given: dict[str, str], said: str) -> None:
    asked = Request(model="zoo:digits-cnn", timesteps=12, limit=8, calibration="mse", **given)  # type: ignore[arg-type]
    snn = run(asked).snn
    with pytest.raises(OptionError, match=said):
        backward_activity(snn, torch.zeros(1, *images_for(snn, "zoo:digits-cnn", 1).images().shape[1:]))


def test_the_command(converted: tuple[Snn, torch.Tensor, Operations], tmp_path: Path) -> None:
    snn, _, _ = converted
    save_snn(snn, tmp_path / "m.snn")
    own = tmp_path / "own.toml"
    own.write_text(
        'machine = "h2learn"\n[[constant]]\nname = "clock"\nvalue = 2e9\nunit = "Hz"\nsource = "my choice"\n', "utf-8"
    )
    arguments = ("cost", "m.snn", "--data", "zoo:digits-resnet", "--limit", "16", "--training")
    documents = []
    for machine in ("h2learn", str(own)):
        done = snnconvert(*arguments, "--machine", machine, "--json", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        documents.append(json.loads(done.stdout))
    usual, varied = documents
    assert varied["machine"] == "own"
    assert "clock" in usual["unknown"]
    assert "clock" not in varied["unknown"]
    assert varied["per_sample"]["phases"][0]["compute"] == pytest.approx(
        usual["per_sample"]["phases"][0]["compute"] / 2
    )
    shown = snnconvert(*arguments, "--machine", "h2learn", folder=tmp_path)
    assert "against the v100: speed-up" in shown.stdout
    assert "do not state: arithmetic_share" in shown.stdout.replace("\n", " ")
    refused = snnconvert(*arguments, "--machine", "loihi-like", folder=tmp_path)
    assert refused.returncode == 2
    assert "no engine for BPTT" in refused.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("machine = 'abacus'", "allowed: h2learn, loihi-like, v100"),
        ("machine = 'v100'", "no [[constant]]"),
        ("machine = 'v100'\nclocks = 2", "unknown key 'clocks'"),
        ("machine = 'v100'\n[[constant]]\nname = 'power'\nvalue = 1\nunit = 'mW'\nsource = 'x'", "unit 'mW'"),
        ("machine = 'v100'\n[[constant]]\nname = 'clck'\nvalue = 1\nunit = 'Hz'\nsource = 'x'", "'clck' is not known"),
        ("machine = [", "cannot be read"),
    ],
)
def test_a_file_with_faults_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(OptionError) as refused:
        load_machine(str(path))
    assert said in str(refused.value).replace("\n", " ")
    assert str(path) in str(refused.value)


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(OptionError) as refused:
        load_machine("lohi-like")
    assert "loihi-like" in str(refused.value.hint)
