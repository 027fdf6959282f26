"""`snnconvert check`: verdicts by the user's own names, coverage, exit codes, and normalisations found from images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx_graphs import CONV, WEIGHT, Nodes, floats, save

from snnconvert.convert.check import VERDICTS, check, check_model
from snnconvert.convert.onnx_import import import_onnx
from snnconvert.convert.onnx_reference import onnx_operator_table
from snnconvert.convert.preprocessing_search import as_good, find_preprocessing
from snnconvert.errors import DataError, OptionError, UnsupportedError
from tests.convert.networks import NETWORKS, network

MIXED: Nodes = [
    ("Conv", ["x", "w"], ["a"], {}),
    ("BatchNormalization", ["a", "s", "b", "m", "v"], ["n"], {}),
    ("Relu", ["n"], ["r"], {}),
    ("MaxPool", ["r"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("Conv", ["p", "u"], ["c"], {}),
    ("Sigmoid", ["c"], ["g"], {}),
    ("Mul", ["c", "g"], ["q"], {}),
    ("GlobalAveragePool", ["q"], ["t"], {}),
    ("Flatten", ["t"], ["f"], {}),
    ("Gemm", ["f", "k"], ["z"], {}),
    ("Softmax", ["z"], ["y"], {"axis": 1}),
]
CONSTANTS = {
    "w": floats(4, 3, 3, 3),
    "u": floats(5, 4, 1, 1),
    "k": floats(5, 6),
    **{name: floats(4) for name in "sbm"},
    "v": np.abs(floats(4)) + 0.5,
}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    return save(tmp_path / "net.onnx", MIXED, CONSTANTS)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snnconvert.cli.main", "check", *arguments], check=False, capture_output=True, text=True
    )


def test_every_node_has_a_verdict_by_its_own_name(mixed: Path) -> None:
    found = check_model(str(mixed))
    assert [node.name for node in found.nodes] == [row[0] for row in onnx_operator_table(mixed)]
    verdicts = {node.name: node.verdict for node in found.nodes}
    assert verdicts == {
        "Conv_0": "linear",
        "BatchNormalization_1": "folded",
        "Relu_2": "spiking",
        "MaxPool_3": "spiking",
        "Conv_4": "linear",
        "Sigmoid_5": "folded",
        "Mul_6": "approximated",
        "GlobalAveragePool_7": "linear",
        "Flatten_8": "wiring",
        "Gemm_9": "linear",
        "Softmax_10": "folded",
    }
    assert all(node.reason for node in found.nodes)
    assert (found.sites, found.analog, found.site_coverage, found.refusal) == (2, 0, 1.0, "")
    reads = {node.name: (node.reads, node.operations) for node in found.nodes if node.operations}
    assert reads == {
        "Conv_0": ("input", 4 * 6 * 6 * 27),
        "Conv_4": ("spikes", 5 * 3 * 3 * 4),
        "Gemm_9": ("current", 30),
    }
    assert found.operations == {"spikes": 180, "input": 3888, "current": 30}
    assert found.operation_coverage == pytest.approx(180 / 4098)


def test_approximation_can_be_declined(mixed: Path) -> None:
    found = check_model(str(mixed), way="analog", strict=True)
    (analog,) = [node for node in found.nodes if node.verdict == "analog"]
    assert analog.name == "Mul_6"
    assert analog.remedy
    assert "--strict-spiking" in found.refusal
    assert found.site_coverage == 0.5


@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_networks_are_judged_by_module_names(name: str) -> None:
    found = check(network(name))
    assert found.nodes
    assert {node.verdict for node in found.nodes} <= set(VERDICTS) - {"analog", "unsupported"}
    assert found.site_coverage == 1.0
    assert 0 < found.operation_coverage < 1


def test_everything_unsupported_is_listed_at_once(tmp_path: Path) -> None:
    nodes: Nodes = [
        ("NonZero", ["x"], ["a"], {}),
        ("Relu", ["x"], ["r"], {}),
        ("Det", ["r"], ["b"], {}),
    ]
    path = save(tmp_path / "net.onnx", nodes, {}, outputs=("a", "b"))
    found = check_model(str(path))
    listed = [(node.name, node.operator, node.verdict) for node in found.nodes]
    assert listed == [("NonZero_0", "NonZero", "unsupported"), ("Det_2", "Det", "unsupported")]
    ran = run(str(path), "--json")
    assert ran.returncode == 2
    assert json.loads(ran.stdout)["counts"]["unsupported"] == 2
    assert "NonZero_0" in ran.stderr
    assert "Det_2" in ran.stderr
    assert "hint:" in ran.stderr


def test_what_is_no_matter_of_nodes_is_said_with_its_own_hint(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", CONV, WEIGHT, opset=7)
    model = onnx.load(path)
    model.opset_import[0].version = 99
    onnx.save(model, path)
    ran = run(str(path))
    assert ran.returncode == 2
    assert "upgrade the onnx package" in ran.stderr
    assert "ReLU-like" not in ran.stderr
    assert ran.stdout == ""


def test_nodes_that_share_a_name_are_judged_apart(tmp_path: Path) -> None:
    nodes: Nodes = [*CONV, ("Softmax", ["y"], ["z"], {"axis": 1}), ("Mul", ["z", "z"], ["end"], {})]
    path = save(tmp_path / "net.onnx", nodes, WEIGHT, outputs=("end",))
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = "same"
    onnx.save(model, path)
    found = check_model(str(path))
    assert [(node.name, node.verdict) for node in found.nodes] == [
        ("same", "linear"),
        ("same:y", "spiking"),
        ("same:z", "analog"),
        ("same:end", "analog"),
    ]


@pytest.mark.parametrize(("operator", "units"), [("Sin", False), ("Floor", False), ("Tanh", True)])
def test_units_are_advised_only_where_there_are_some(operator: str, units: bool, tmp_path: Path) -> None:
    nodes: Nodes = [*CONV, (operator, ["y"], ["a"], {}), ("Mul", ["a", "a"], ["z"], {})]
    found = check_model(str(save(tmp_path / "net.onnx", nodes, WEIGHT, outputs=("z",))), way="analog")
    (verdict,) = [node for node in found.nodes if node.operator == operator]
    assert verdict.verdict == "analog"
    assert ("--approximate units" in verdict.remedy) == units


def test_a_conversion_without_a_spike_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [("Conv", ["x", "w"], ["y"], {})], WEIGHT)
    assert "no activation" in check_model(str(path)).refusal
    ran = run(str(path))
    assert ran.returncode == 2
    assert "would not be converted" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_command_prints_a_verdict_and_succeeds(mixed: Path) -> None:
    ran = run(str(mixed), "--json")
    assert ran.returncode == 0, ran.stderr
    document = json.loads(ran.stdout)
    assert document["schema"] == "snnconvert-check/1"
    assert document["coverage"] == {"operations": pytest.approx(180 / 4098), "sites": 1.0}
    assert len(document["nodes"]) == len(MIXED)


def test_an_output_is_chosen_by_name(tmp_path: Path) -> None:
    nodes: Nodes = [("Conv", ["x", "w"], ["a"], {}), ("Relu", ["a"], ["b"], {}), ("Neg", ["b"], ["c"], {})]
    path = save(tmp_path / "net.onnx", nodes, WEIGHT, outputs=("b", "c"))
    assert check_model(str(path)).outputs == ("b", "c")
    assert check_model(str(path), output_name="c").outputs == ("c",)
    with pytest.raises(OptionError, match="'d' is not an output"):
        check_model(str(path), output_name="d")


def test_a_final_argmax_is_left_out(tmp_path: Path) -> None:
    nodes: Nodes = [*MIXED[:-1], ("ArgMax", ["z"], ["y"], {"axis": 1})]
    path = save(tmp_path / "net.onnx", nodes, CONSTANTS, outputs=("z", "y"))
    found = check_model(str(path))
    assert found.outputs == ("z",)
    assert found.nodes[-1].reason == "left out at the very end: the largest score decides"
    ran = run(str(path), "--output-name", "x")
    assert ran.returncode == 2
    assert "choose one of: z, y" in ran.stderr


CLASSIFIER: Nodes = [
    ("Sub", ["x", "mean"], ["a"], {}),
    ("Conv", ["a", "w"], ["b"], {}),
    ("Relu", ["b"], ["c"], {}),
    ("GlobalAveragePool", ["c"], ["d"], {}),
    ("Flatten", ["d"], ["y"], {}),
]


def images_for(path: Path, low: float, high: float, tmp_path: Path, *, flip: bool = False) -> Path:
    """Labelled images on which the network at `path` is right for inputs in [low, high] (in BGR order, with `flip`)."""
    x = np.random.default_rng(1).integers(0, 256, (64, 6, 6, 3)).astype(np.uint8)
    ready = torch.from_numpy(x.astype(np.float32) / 255 * (high - low) + low).permute(0, 3, 1, 2)
    labels = import_onnx(path).graph(ready.flip(1) if flip else ready)[0].argmax(1).numpy()
    np.savez(tmp_path / "data.npz", x=x, y=labels.astype(np.uint8))
    return tmp_path / "data.npz"


@pytest.mark.parametrize(
    ("low", "high", "flip", "name"),
    [(-1.0, 1.0, False, "-1..1"), (0.0, 255.0, False, "0..255"), (0.0, 1.0, True, "0..1, BGR")],
)
def test_the_normalisation_is_found(low: float, high: float, flip: bool, name: str, tmp_path: Path) -> None:
    middle = (low + high) / 2
    constants = {"mean": np.full((1, 3, 1, 1), middle, np.float32), "w": floats(5, 3, 3, 3)}
    path = save(tmp_path / "net.onnx", CLASSIFIER, constants, shape=("N", 3, 6, 6))
    found = find_preprocessing(import_onnx(path), str(images_for(path, low, high, tmp_path, flip=flip)))
    assert found[0].accuracy == 100
    assert name in [fit.name for fit in as_good(found)]
    assert len({fit.name for fit in found}) == len(found)
    right = next(fit for fit in found if fit.name == name)
    assert right.accuracy == 100
    assert ("--channels BGR" in right.options()) is flip


def test_normalisations_need_labels(tmp_path: Path) -> None:
    constants = {"mean": np.zeros((1, 3, 1, 1), np.float32), "w": floats(5, 3, 3, 3)}
    path = save(tmp_path / "net.onnx", CLASSIFIER, constants, shape=("N", 3, 6, 6))
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 6, 6, 3), np.uint8))
    with pytest.raises(DataError, match="no labels"):
        find_preprocessing(import_onnx(path), str(tmp_path / "data.npz"))
    ran = run(str(path), "--find-preprocessing")
    assert ran.returncode == 2
    assert "--data" in ran.stderr


def test_several_inputs_are_a_clear_refusal(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    other = helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1])
    found = check_model(str(save(tmp_path / "net.onnx", CONV, WEIGHT, more=(other,))))
    assert "x (N, 3, 8, 8), mask (1)" in found.refusal


def test_every_model_of_the_data_pack_is_covered(data_pack: Path) -> None:
    for path in sorted((data_pack / "models").glob("*.onnx")):
        found = check_model(str(path))
        assert not found.refusal, path.name
        assert len(found.nodes) == len(onnx_operator_table(path)), path.name
        assert found.sites > 0, path.name


def test_unsupported_is_an_error_when_converting(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [("NonZero", ["x"], ["y"], {})], {})
    with pytest.raises(UnsupportedError):
        import_onnx(path)
