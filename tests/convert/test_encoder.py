"""The input as spikes: totals, convergence, and what the report counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from snnconvert import convert_model
from snnconvert.convert.encoder import REMARK
from snnconvert.errors import OptionError
from snnconvert.graph.checkpoint import load_snn
from snnconvert.graph.dialect import arguments, calls, op_of
from snnconvert.graph.flow import flows
from snnconvert.graph.kinds import Neuron
from snnconvert.graph.types import Snn
from snnconvert.pipeline import Request, run
from snnconvert.report.from_run import document_of
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine

COMMON = {"model": "zoo:digits-resnet", "calibration_samples": 64, "limit": 20, "input_encoder": "spiking"}


def images(snn: Snn, count: int = 4) -> torch.Tensor:
    return torch.rand((count, *snn.input_shape), generator=torch.Generator().manual_seed(3)) * 2 - 0.5


def encoder_of(snn: Snn) -> Neuron:
    (op,) = [op for node, op in calls(snn.graph) if isinstance(op, Neuron) and node.name.endswith("encoder")]
    return op


@pytest.fixture(scope="module")
def windowed() -> Snn:
    return convert_model(**COMMON, schedule="bistable", window=4, timesteps=200, calibration="mse").snn


def test_no_layer_reads_real_numbers_and_the_network_is_one_deeper(windowed: Snn) -> None:
    plain = convert_model(
        **{**COMMON, "input_encoder": "analog"}, schedule="bistable", window=4, calibration="mse", timesteps=200
    ).snn
    assert windowed.schedule.depth == plain.schedule.depth + 1
    found = flows(windowed.graph)
    weighted = [node for node, op in calls(windowed.graph) if op.role.name == "WEIGHTED"]
    assert {found[arguments(node)[0]] for node in weighted} == {"spikes"}
    assert encoder_of(windowed).model == "signed"


def test_a_window_sends_the_quantised_input_and_the_oracle_agrees(windowed: Snn) -> None:
    x, sent = images(windowed), dict[str, torch.Tensor]()
    seen = LayerEngine(windowed).run(x, lambda name, frames: sent.__setitem__(name, frames.double()))
    oracle = BistableEngine(windowed).run(x)
    for name in oracle.spikes:
        assert torch.equal(seen.spikes[name], oracle.spikes[name]), name
    assert torch.equal(seen.outputs[0], oracle.outputs[0])
    op = encoder_of(windowed)
    (name,) = [name for name in sent if name.endswith("encoder")]
    (node,) = [node for node in windowed.graph.graph.nodes if node.name == name]
    snapped = op_of(arguments(node)[0])(x)
    expected = torch.floor(snapped / op.threshold + 0.5).clamp(-op.levels, op.levels)
    assert torch.equal(sent[name][0], expected)
    assert bool((expected < 0).any())


def test_streaming_converges_to_the_ann() -> None:
    request = Request(**COMMON, schedule="streaming", timesteps=512, calibration="mse")
    outcome = run(request)
    snn, x = outcome.snn, images(outcome.snn)
    seen, oracle = LayerEngine(snn).run(x), StepEngine(snn).run(x)
    for name in oracle.spikes:
        assert torch.equal(seen.spikes[name], oracle.spikes[name]), name
    totals = {"early": seen.outputs[0][31] / 32, "late": seen.outputs[0][-1] / 512}
    limit = snn.graph(x)[0]
    error = {when: float((value - limit).norm() / limit.norm()) for when, value in totals.items()}
    assert error["late"] < 0.05
    assert error["late"] < error["early"] / 3


def test_the_report_says_so_and_counts_additions_only() -> None:
    request = Request(**COMMON, schedule="bistable", window=5, timesteps=200, calibration="mse")
    document = document_of(run(request), command_line="snnconvert")
    assert document["neuron"]["input"] == "spiking"
    assert REMARK in document["model"]["notes"]
    assert all(row["snn_multiplications"] == 0 for row in document["energy"]["layers"])
    assert any("encoder" in row["name"] for row in document["layers"])
    assert json.dumps(document)


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(OptionError, match="input_encoder"):
        convert_model(**{**COMMON, "input_encoder": "digital"})


def test_it_survives_the_checkpoint(windowed: Snn, tmp_path: Path) -> None:
    from snnconvert.graph.checkpoint import save_snn

    save_snn(windowed, tmp_path / "encoded.snn")
    again = load_snn(tmp_path / "encoded.snn")
    x = images(windowed)
    assert torch.equal(LayerEngine(again).run(x).outputs[0], LayerEngine(windowed).run(x).outputs[0])
