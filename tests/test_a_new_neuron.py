"""A neuron is its equations and one row: nothing else has to be told of it.

It sends up to two units of either sign in a step and takes back what it sent too early; no kernel knows it. Its spikes
are negative and large, so that sums are exact only where the row's range is what every grid is made from.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from snnconvert.errors import OptionError
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.types import NeuronChoice, Snn
from snnconvert.neurons import NEURONS, NeuronModel, State, cheapest_first
from snnconvert.pipeline import Outcome, Request, run
from snnconvert.report.from_run import document_of
from snnconvert.report.render_html import render_html
from snnconvert.report.render_terminal import print_summary
from snnconvert.request import check_request
from snnconvert.simulate.chunks import frame_bytes
from snnconvert.simulate.integer import IntegerEngine
from snnconvert.simulate.kernels import FusedNeurons, native_available
from snnconvert.simulate.kernels.native import Current, Membrane
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import watched_run
from snnconvert.study.operations import OperationCounter
from tests.engines import assert_engines_agree, assert_equal, assert_sums_fit_their_grid
from tests.simulate.random_networks import images, waiting_snn
from tests.simulate.small_networks import pictures, small_snn


def fire(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    assert state.sent is not None
    n = (state.v / threshold).floor().clamp(-levels, levels).maximum(-state.sent)
    return n, State(state.v - threshold * n, state.sent + n)


DOUBLE = NeuronModel("double", fire, range=lambda _: (-2, 2), source="this test", memory=True, levels=2)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NEURONS, DOUBLE.name, DOUBLE)


def converted(calibration: str, schedule: str = "streaming") -> Outcome:
    steps = {"streaming": 6, "wait": 12}[schedule]
    request = Request("zoo:digits-cnn", neuron="double", schedule=schedule, timesteps=steps, limit=24)
    return run(Request(**{**vars(request), "calibration": calibration, "calibration_samples": 32}))


def sent_by(snn: Snn, batch: Tensor) -> set[int]:
    """The units that occur in spikes."""
    found = set[int]()

    def probe(name: str, by_frame: Tensor) -> None:
        del name
        found.update(by_frame.unique().int().tolist())

    LayerEngine(snn).run(batch, probe)
    return found


@pytest.mark.parametrize("schedule", ["streaming", "wait"])
@pytest.mark.parametrize("calibration", ["mse", "reconstruct"])
def test_a_network_of_it_is_exact(calibration: str, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = converted(calibration, schedule)
    batch = outcome.inputs.calibration[:4]
    assert {-1, 0, 1, 2} <= sent_by(outcome.snn, batch) <= {-2, -1, 0, 1, 2}
    assert_engines_agree(outcome.snn, batch, monkeypatch)
    assert assert_sums_fit_their_grid(outcome.snn, batch) > 2


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_of_it_are_exact(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    snn, batch = waiting_snn(seed, model="double", wait=seed % 3, frames=5), images(seed)
    assert_engines_agree(snn, batch, monkeypatch)
    assert assert_sums_fit_their_grid(snn, batch) > 1
    integers = IntegerEngine(snn, weight_bits=44, state_bits=53).run(batch)
    seen = LayerEngine(snn).run(batch)
    assert integers.spikes == {name: int(seen.spikes[name].sum()) for name in integers.spikes}
    assert torch.allclose(integers.outputs, seen.outputs[0].flatten(2), atol=1e-9)


@pytest.mark.parametrize("pool", ["sum", "max", "mean", "none"])
def test_its_operations_are_counted(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snn, _ = small_snn(pool=pool, neuron="double", levels=2)
    batch = pictures(3)
    oracle = assert_engines_agree(snn, batch, monkeypatch)
    assert assert_sums_fit_their_grid(snn, batch) > 2
    counter = OperationCounter(snn, 3)
    watched_run(LayerEngine(snn), batch, [counter])
    rows = counter.layers()
    assert sum(row.spikes for row in rows) * 3 == pytest.approx(sum(int(one.sum()) for one in oracle.spikes.values()))
    assert {row.payload_bits for row in rows if row.neurons} == {2}  # one or two units, and a sign
    assert any(row.effective_macs > 0 for row in rows)
    if native_available():  # floats of four bytes over time, where kernels keep the bits of theirs
        assert frame_bytes(snn)[0] >= 4 * 4 * 36


def test_the_whole_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = converted("mse")
    document = document_of(outcome, command_line="snnconvert")
    assert document["neuron"]["model"] == "double"
    assert document["neuron"]["levels"] == 2
    assert {layer["model"] for layer in document["layers"]} == {"double"}
    assert document["energy"]["rows"]
    assert json.loads(json.dumps(document)) == document
    console = Console(width=200)
    print_summary(document, console)
    assert capsys.readouterr().out.startswith("digits_cnn: ")
    assert "double" in render_html(document).split("How it was made")[-1]
    save_snn(outcome.snn, tmp_path / "m.snn")
    batch = outcome.inputs.calibration[:4]
    assert_equal(LayerEngine(load_snn(tmp_path / "m.snn")).run(batch), LayerEngine(outcome.snn).run(batch))


def test_it_is_offered_and_tried() -> None:
    check_request(Request("m.onnx", neuron="double"))
    with pytest.raises(OptionError, match="which sends 2 units a step"):
        check_request(Request("m.onnx", neuron="double", levels=3))
    costs = {model.name: model.payload_bits(model.levels) for model in cheapest_first()}
    assert list(costs) == ["if", "ternary", "double", "burst", "graded"]
    assert Request("m.onnx", neuron="auto").neurons[2] == NeuronChoice("double", 2)


def test_the_gpu_kernel_leaves_it_to_torch() -> None:
    one, fused = torch.ones(1, 3), FusedNeurons()
    assert fused.neurons(Current(torch.ones(2, 3), False), Membrane(DOUBLE, 2, 0, one, one), 1, 2, (3,)) is None
    assert fused.failure == ""
