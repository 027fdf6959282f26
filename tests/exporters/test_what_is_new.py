"""Neurons and kinds of others: every exporter writes them exactly, or refuses them with the layer and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from snnconvert.errors import UnsupportedError
from snnconvert.exporters import EXPORTERS
from snnconvert.exporters.equations import why_not
from snnconvert.exporters.task import Task
from snnconvert.exporters.verify import compare
from snnconvert.graph.kinds import KINDS
from snnconvert.graph.types import Snn
from snnconvert.neurons import NEURONS, NeuronModel, State
from tests.exporters.networks import IMAGES
from tests.graph.test_a_new_kind import SCHEDULES, Flip, Mix, converted
from tests.simulate.small_networks import small_snn

OPTIONS = {"reader": "primitive", "python": None, "target": None, "weight_bits": 8, "state_bits": 16}
WAYS = [
    (to, form)
    for to, row in EXPORTERS.items()
    if row.reader
    for form in row.forms or [""]
    if form not in ("ann", "pt2")
]


def eager(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    """Sends at half a threshold what it takes back below none."""
    del levels
    spikes = (state.v + state.v >= threshold).to(state.v.dtype) - (state.v < -threshold).to(state.v.dtype)
    return spikes, State(state.v - threshold * spikes, None)


def leaking(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    del levels
    spikes = (state.v >= threshold).to(state.v.dtype)
    return spikes, State(0.9 * (state.v - threshold * spikes), None)


def rounding(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    spikes = (state.v / threshold).round().clamp(0, levels)
    return spikes, State(state.v - threshold * spikes, None)


def looking(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    del levels
    spikes = (state.v >= threshold).to(state.v.dtype) if bool((state.v > 0).any()) else torch.zeros_like(state.v)
    return spikes, State(state.v - threshold * spikes, None)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for fire in (eager, leaking, rounding, looking):
        model = NeuronModel(fire.__name__, fire, range=lambda levels: (-levels, levels), source="this test")
        monkeypatch.setitem(NEURONS, model.name, model)
    for kind in (Flip, Mix):
        monkeypatch.setitem(KINDS, kind.__name__, kind)


def written(snn: Snn, to: str, form: str, folder: Path) -> None:
    """Exported and run; what is not refused is equal in every spike."""
    row = EXPORTERS[to]
    images = IMAGES if snn.input_shape == IMAGES.shape[1:] else torch.rand(4, *snn.input_shape)
    task = Task(snn, folder / f"m{row.suffix}", form, {name: OPTIONS[name] for name in row.options}, images)
    made = row.write(task)
    found = compare(made.network, row.read(task, made), images, engine=made.engine)
    assert found.spikes > 0
    assert found.equal


@pytest.mark.parametrize(("to", "form"), [way for way in WAYS if way[1] != "window"])
@pytest.mark.parametrize("neuron", ["eager", "leaking", "rounding", "looking"])
def test_a_neuron_is_written_exactly_or_refused_by_its_layers(neuron: str, to: str, form: str, tmp_path: Path) -> None:
    snn = small_snn(neuron=neuron)[0]
    exact = {"onnx": ("eager",), "torch": ("eager", "leaking")}
    if neuron in exact.get(to, ()):
        written(snn, to, form, tmp_path)
        return
    with pytest.raises(UnsupportedError) as caught:
        written(snn, to, form, tmp_path)
    said = " ".join((caught.value.message, *caught.value.causes))
    assert "relu2 (test)" in said
    assert neuron in said
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_the_reason_is_what_the_equations_do() -> None:
    reasons = {name: why_not(NEURONS[name], 1, on_a_grid=True) for name in NEURONS}
    assert {name for name, reason in reasons.items() if reason} == {"clif", "leaking", "rounding", "looking"}
    assert "do not stay whole numbers" in reasons["leaking"]
    assert "they use round" in reasons["rounding"]
    assert "cannot be traced" in reasons["looking"]


@pytest.mark.parametrize(("to", "form"), [way for way in WAYS if way[1] != "window"])
def test_a_kind_is_refused_by_its_layers(to: str, form: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        written(converted(SCHEDULES[0], "mse"), to, form, tmp_path)
    said = " ".join((caught.value.message, *caught.value.causes))
    assert "(test)" in said
    assert "mix" in said.lower()
    assert not list(tmp_path.iterdir())
