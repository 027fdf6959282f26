"""Exports to torch: the written module needs torch alone, learns, and sends the same spikes; so does the program."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from snnconvert.compile.network import compile_network
from snnconvert.errors import UnsupportedError
from snnconvert.exporters import EXPORTERS
from snnconvert.exporters.equations import traced
from snnconvert.exporters.export import export
from snnconvert.exporters.task import Task
from snnconvert.exporters.torch_nodes import TRANSLATIONS
from snnconvert.exporters.verify import compare
from snnconvert.graph.dialect import Builder, neurons_of
from snnconvert.graph.kinds import KINDS, Elementwise, Linear, Multiply, Relu, Role, Stage, attention
from snnconvert.graph.schedule import SCHEDULES
from snnconvert.graph.types import Ann, Calibrated, NeuronChoice, Origin, SiteCalibration, Snn, Source
from snnconvert.neurons import IF, NEURONS
from snnconvert.simulate.layer_engine import LayerEngine
from tests.exporters.networks import CASES, IMAGES, Case, named, network_of, units_in_parts

ROW = EXPORTERS["torch"]


def gated(kind: str, timesteps: int, **options: object) -> Snn:
    """A network in which functions of real values follow spikes: tanh(relu(a x)) * relu(a x), and a layer behind."""
    draw = torch.Generator().manual_seed(3)
    builder = Builder({"input": torch.rand(2, 6)})

    def linear() -> Linear:
        return Linear(torch.randn(6, 6, generator=draw), torch.randn(6, generator=draw) * 0.1)

    x = builder.call(linear(), builder.inputs["input"], origin=Origin("first", "Gemm"))
    x = builder.call(Relu(), x, origin=Origin("relu", "Relu"))
    gate = builder.call(Elementwise(function="tanh"), x, origin=Origin("gate", "Tanh"))
    x = builder.call(Multiply(), x, gate, origin=Origin("product", "Mul"))
    x = builder.call(Relu(), builder.call(linear(), x, origin=Origin("second", "Gemm")), origin=Origin("relu2", "Relu"))
    graph = builder.finish([builder.call(linear(), x, origin=Origin("last", "Gemm"))])
    levels = 7 if kind == "bistable" else 1
    site = SiteCalibration(torch.full((6,), 1.5 / levels), torch.full((6,), 0.75 / levels))
    ann = Ann(graph, (6,), ("logits",), Source("gated", "", "", "test"))
    reach = {node.name: 4.0 for node in graph.graph.nodes}
    schedule = SCHEDULES[kind](timesteps, 2, **options)
    return compile_network(Calibrated(ann, {"relu": site, "relu2": site}, schedule, NeuronChoice(), 1.0, reach))


def assert_equal_in_torch(snn: Snn, folder: Path, form: str, images: torch.Tensor = IMAGES) -> None:
    task = Task(snn, folder, form)
    written = ROW.write(task)
    assert written.network is snn
    found = compare(snn, ROW.read(task, written), images)
    assert set(found.differing) == {node.name for node in neurons_of(snn.graph)}
    assert found.spikes > 50
    assert found.equal, found.document()
    assert found.logits == 0.0


@pytest.mark.parametrize("case", CASES, ids=named)
def test_every_neuron_and_schedule_sends_the_same_spikes(case: Case, tmp_path: Path) -> None:
    assert_equal_in_torch(network_of(case), tmp_path, "module")


@pytest.mark.parametrize("form", ["module", "pt2"])
def test_weights_that_are_scales_times_those_of_a_part_are_written_as_weights(form: str, tmp_path: Path) -> None:
    snn, images = units_in_parts()
    assert_equal_in_torch(snn, tmp_path, form, images)


@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[7], CASES[9]], ids=named)
def test_so_does_the_program_with_any_number_of_images(case: Case, tmp_path: Path) -> None:
    assert_equal_in_torch(network_of(case), tmp_path, "pt2")
    assert_equal_in_torch(network_of(case), tmp_path, "pt2", IMAGES[:3])


@pytest.mark.parametrize(
    ("kind", "timesteps", "options"),
    [("streaming", 8, {}), ("wait", 9, {"wait": 2}), ("bistable", 21, {"window": 3})],
)
def test_functions_of_real_values_are_exact_too(
    kind: str, timesteps: int, options: dict[str, object], tmp_path: Path
) -> None:
    images = torch.rand(6, 6, generator=torch.Generator().manual_seed(1))
    for form in ROW.forms:
        assert_equal_in_torch(gated(kind, timesteps, **options), tmp_path, form, images)


def test_it_needs_torch_alone(tmp_path: Path) -> None:
    snn = network_of(CASES[2])
    export(snn, tmp_path, to="torch")
    torch.save(IMAGES, tmp_path / "images.pt")
    code = (
        "import sys; sys.modules['snnconvert'] = sys.modules['safetensors'] = None\n"
        "import torch; from network import Network\n"
        "torch.save(Network()(torch.load('images.pt')), 'answers.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    ours = LayerEngine(snn).run(IMAGES).outputs[0][-1] / snn.schedule.frames
    assert torch.equal(torch.load(tmp_path / "answers.pt"), ours)


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[4], CASES[6], CASES[8]], ids=named)
def test_it_learns(case: Case, tmp_path: Path) -> None:
    """Gradients reach every weight, and steps along them lower the loss."""
    export(network_of(case), tmp_path, to="torch")
    sys.modules.pop("network", None)
    code = (tmp_path / "network.py").read_text("utf-8")
    space: dict[str, object] = {"__file__": str(tmp_path / "network.py"), "__name__": "network"}
    exec(code, space)
    network = space["Network"]()  # type: ignore[operator]
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    adam = torch.optim.Adam(network.parameters(), lr=0.003)
    losses: list[float] = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(network(IMAGES).flatten(1), target)
        adam.zero_grad()
        loss.backward()
        if not losses:
            assert all(one.grad is not None and bool(one.grad.abs().sum() > 0) for one in network.parameters())
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    with torch.no_grad():
        sent = network.step(IMAGES, network.start(IMAGES))[2]
    assert all(torch.equal(one, one.round()) for one in sent.values())


def test_every_kind_has_a_translation_or_is_a_neuron() -> None:
    for kind in KINDS.values():
        # products of spikes, and thresholds that spikes set, are refused before anything is translated
        if kind.__module__ == attention.__name__:
            continue
        if Stage.SNN in kind.stages and kind.role not in (Role.NEURON, Role.DELAY, Role.EVENTS):
            assert kind in TRANSLATIONS, kind


def test_names_that_python_or_torch_need_are_left_free(tmp_path: Path) -> None:
    builder = Builder({"state": torch.rand(2, 4)})
    x = builder.inputs["state"]
    for name in ("step", "type", "float", "after"):
        x = builder.call(Linear(torch.eye(4)), x, origin=Origin(name, "Gemm"))
        x = builder.call(Relu(), x, origin=Origin(f"{name}_relu", "Relu"))
    graph = builder.finish([x])
    site = SiteCalibration(torch.full((4,), 0.25), torch.full((4,), 0.5))
    names = [node.name for node in graph.graph.nodes if node.name.endswith("_relu")]
    ann = Ann(graph, (4,), ("logits",), Source('quotes """ and \\ ', "", "", "test"))
    schedule = SCHEDULES["streaming"](6, 4)
    snn = compile_network(Calibrated(ann, dict.fromkeys(names, site), schedule, NeuronChoice(), 1.0))
    for form in ROW.forms:
        assert_equal_in_torch(snn, tmp_path, form, torch.rand(30, 4, generator=torch.Generator().manual_seed(0)))


def test_equations_that_cannot_be_traced_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    odd = replace(IF, fire=lambda state, _, __: (state.v.sinh(), state))
    with pytest.raises(UnsupportedError, match=r"the equations of neuron if cannot be written .* they use sinh"):
        traced(odd, 1)
    snn = network_of(CASES[0])
    monkeypatch.setitem(NEURONS, "if", odd)
    for name in ("torch", "onnx"):
        with pytest.raises(UnsupportedError):
            export(snn, tmp_path / "m.onnx", to=name)
    assert not list(tmp_path.iterdir())
