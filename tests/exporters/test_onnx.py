"""Exports to ONNX: onnxruntime sends the same spikes, whichever form, neuron and schedule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from snnconvert.compile.network import compile_network
from snnconvert.compile.precision import in_precision
from snnconvert.errors import OptionError, UnsupportedError
from snnconvert.exporters import EXPORTERS
from snnconvert.exporters.export import export
from snnconvert.exporters.onnx_step import refuse_inexact
from snnconvert.exporters.task import Task
from snnconvert.exporters.verify import compare
from snnconvert.graph.dialect import Builder, calls, neurons_of
from snnconvert.graph.kinds import Elementwise, Linear, Neuron, Relu, Weighted
from snnconvert.graph.schedule import Streaming
from snnconvert.graph.types import Ann, Calibrated, NeuronChoice, Origin, SiteCalibration, Snn, Source
from snnconvert.simulate.layer_engine import LayerEngine
from tests.exporters.networks import CASES, IMAGES, Case, named, network_of, units_in_parts
from tests.simulate.small_networks import small_ann, small_snn

ROW = EXPORTERS["onnx"]


def assert_equal_in_onnxruntime(snn: Snn, path: Path, form: str, images: torch.Tensor = IMAGES) -> onnx.ModelProto:
    """Every spike is the same; outputs are equal, or rounded to float32 where the file divides."""
    task = Task(snn, path, form)
    written = ROW.write(task)
    found = compare(written.network, ROW.read(task, written), images)
    assert set(found.differing) == {node.name for node in neurons_of(written.network.graph)}
    assert found.spikes > 500
    assert found.equal, found.document()
    assert found.logits <= (2e-6 if form == "loop" else 0.0)
    return onnx.load(path)


@pytest.mark.parametrize("form", ["step", "loop"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_every_neuron_and_schedule_sends_the_same_spikes(case: Case, precision: str, form: str, tmp_path: Path) -> None:
    snn = in_precision(network_of(case), precision)
    model = assert_equal_in_onnxruntime(snn, tmp_path / "m.onnx", form)
    assert [one.domain for one in model.opset_import] == [""]
    names = {node.name for node in _nodes(model.graph)}
    assert {node.name for node, _ in calls(snn.graph, Weighted)} <= names
    codes = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8]
    assert bool(codes) == (precision == "int8")
    shown = {one.name: one.type.tensor_type.shape.dim for one in (*model.graph.value_info, *model.graph.output)}
    assert all(len(shown[name]) or form == "loop" for node in model.graph.node for name in node.output)


def test_weights_that_are_scales_times_those_of_a_part_are_written_as_weights(tmp_path: Path) -> None:
    snn, images = units_in_parts()
    assert_equal_in_onnxruntime(snn, tmp_path / "m.onnx", "step", images)


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    inner = [one.g for node in graph.node for one in node.attribute if one.type == onnx.AttributeProto.GRAPH]
    return [*graph.node, *(node for one in inner for node in _nodes(one))]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_window_is_a_feed_forward_graph_of_whole_numbers(precision: str, tmp_path: Path) -> None:
    snn = in_precision(network_of(CASES[8], timesteps=15), precision)
    assert snn.schedule.frames == 1
    model = assert_equal_in_onnxruntime(snn, tmp_path / "m.onnx", "window")
    assert [one.name for one in model.graph.input] == [next(iter(snn.graph.graph.nodes)).name]
    found = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {model.graph.input[0].name: IMAGES.numpy()})
    for codes in found[1:]:
        assert np.array_equal(codes, codes.round())
        assert codes.min() >= 0
        assert 0 < codes.max() <= 7


@pytest.mark.parametrize(
    ("case", "message"),
    [(CASES[0], "--form window is for schedules with windows"), (CASES[8], "holds one window, the network sends 2")],
)
def test_more_than_a_window_is_refused(case: Case, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        export(network_of(case), tmp_path / "m.onnx", to="onnx", form="window")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[6]], ids=named)
def test_the_number_of_steps_is_an_input_of_the_loop(case: Case, tmp_path: Path) -> None:
    made = export(network_of(case), tmp_path / "m.onnx", to="onnx", form="loop")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    facts = json.loads(session.get_modelmeta().custom_metadata_map["snnconvert"])
    for timesteps in (9, 11):
        shorter = replace(made.network, schedule=replace(made.network.schedule, timesteps=timesteps))
        ours = LayerEngine(shorter).run(IMAGES)
        given = {facts["input"]: IMAGES.numpy(), "timesteps": np.array(timesteps, np.int64)}
        logits, counts = session.run(None, given)
        assert np.array_equal(logits, (ours.outputs[0][-1] / shorter.schedule.frames).float().numpy())
        if not shorter.schedule.waited:
            assert counts.sum(0).tolist() == [int(ours.units[site].sum()) for site in facts["spikes"]]


def test_one_step_in_a_few_lines(tmp_path: Path) -> None:
    """What a user without this package has to write."""
    made = export(network_of(CASES[0]), tmp_path / "m.onnx", to="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    image, *states = session.get_inputs()
    outputs = [one.name for one in session.get_outputs()]
    feeds = {one.name: np.zeros((6, *one.shape[1:]), np.float32) for one in states}
    total = 0.0
    for _ in range(12):
        found = dict(zip(outputs, session.run(None, {image.name: IMAGES.numpy(), **feeds}), strict=True))
        feeds = {name: found[f"{name}/next"] for name in feeds}
        total = total + found[outputs[0]].astype(np.float64)
    assert np.array_equal(total, LayerEngine(made.network).run(IMAGES).outputs[0][-1].numpy())


def test_what_rounds_differently_elsewhere_is_refused_by_name(tmp_path: Path) -> None:
    builder = Builder({"input": torch.rand(2, 4)})
    x = builder.call(Linear(torch.eye(4)), builder.inputs["input"], origin=Origin("first", "Gemm"))
    x = builder.call(Relu(), x, origin=Origin("relu", "Relu"))
    x = builder.call(Elementwise(function="tanh"), x, origin=Origin("squash", "Tanh"))
    graph = builder.finish([builder.call(Linear(torch.eye(4)), x, origin=Origin("last", "Gemm"))])
    site = SiteCalibration(torch.full((4,), 0.5), torch.full((4,), 0.5))
    ann = Ann(graph, (4,), ("logits",), Source("tanh", "", "", "test"))
    reach = {node.name: 1.0 for node in graph.graph.nodes}
    snn = compile_network(Calibrated(ann, {"relu": site}, Streaming(4, 1), NeuronChoice(), 1.0, reach))
    with pytest.raises(UnsupportedError, match="cannot be exported to ONNX exactly") as caught:
        refuse_inexact(snn)
    assert caught.value.causes == (
        "squash (Tanh): its real values differ between runtimes in their last bits, and so would spikes",
    )
    with pytest.raises(UnsupportedError):
        export(snn, tmp_path / "m.onnx", to="onnx")
    assert not list(tmp_path.iterdir())


def test_thresholds_are_those_of_the_network(tmp_path: Path) -> None:
    made = export(network_of(CASES[0]), tmp_path / "m.onnx", to="onnx")
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "m.onnx").graph.initializer}
    for node, op in calls(made.network.graph, Neuron):
        assert np.array_equal(stored[f"{node.name}/threshold"], op.threshold.float().numpy())


@pytest.mark.parametrize("pool", ["sum", "max", "mean", "none"])
def test_the_original_network_is_handed_over(pool: str, tmp_path: Path) -> None:
    """Its answers in onnxruntime are the original's to the rounding of float32, in plain operators of one precision."""
    ann = small_ann(pool=pool)
    snn = small_snn(pool=pool)[0]
    assert snn.calibrated is not None
    snn = replace(snn, calibrated=replace(snn.calibrated, original=ann))
    task = Task(snn, tmp_path / "m.onnx", "ann")
    written = ROW.write(task)
    found = compare(snn, ROW.read(task, written), IMAGES, engine=written.engine)
    assert found.equal
    assert found.largest > 0
    assert "cnn2snn" in written.notes[0]
    model = onnx.load(tmp_path / "m.onnx")
    assert {one.data_type for one in model.graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    plain = {"sum": "AveragePool", "max": "MaxPool", "mean": "GlobalAveragePool", "none": "Pad"}
    assert {plain[pool], "Conv", "Relu", "Gemm"} <= set(written.facts["operators"])
    assert [one.name for one in model.graph.output] == ["logits"]
    run = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {model.graph.input[0].name: IMAGES.numpy()})
    assert np.allclose(run[0], ann.graph(IMAGES)[0].numpy(), atol=1e-5)


def test_a_wrong_original_is_noticed(tmp_path: Path) -> None:
    snn = small_snn()[0]
    assert snn.calibrated is not None
    snn = replace(snn, calibrated=replace(snn.calibrated, original=small_ann()))
    task = Task(snn, tmp_path / "m.onnx", "ann")
    written = ROW.write(task)
    model = onnx.load(tmp_path / "m.onnx")
    (bias, *_) = [one for one in model.graph.initializer if one.name.endswith("/bias")]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    onnx.save(model, tmp_path / "m.onnx")
    assert not compare(snn, ROW.read(task, written), IMAGES, engine=written.engine).equal


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ann": True}, "does not hold"),
        ({"ann": True, "form": "loop"}, "--ann and --form loop are two forms"),
        ({"ann": True, "to": "torch"}, "--to torch has no form 'ann'"),
    ],
)
def test_an_original_that_cannot_be_had_is_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        export(small_snn()[0], tmp_path / "m.onnx", **{"to": "onnx", **options})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
