"""Bad input: each case has its exact message (golden/), exit code 2, no traceback, and leaves no file behind.

Run with SNNCONVERT_UPDATE_GOLDEN=1 to write the messages anew, and read the difference before committing it.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from snnconvert import Conversion, convert_model
from snnconvert.graph.checkpoint import save_snn
from tests.test_tiny import command

GOLDEN = Path(__file__).parent / "golden"
GOOD = "zoo:digits-resnet"


class Trap:
    """Unpickling this creates a file; no loader may ever do so."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.path,))


def small_onnx(path: Path, *operators: str, opset: int = 17, weight: float = 1.0) -> Path:
    """An ONNX file with one matrix product and the given unary operators behind it."""
    nodes = [helper.make_node("Gemm", ["x", "w"], ["v0"], name="dense")]
    for index, operator in enumerate(operators):
        nodes.append(helper.make_node(operator, [f"v{index}"], [f"v{index + 1}"], name=f"{operator.lower()}_{index}"))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info(f"v{len(operators)}", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.full((4, 3), weight, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def small_conversion() -> Conversion:
    return convert_model(GOOD, timesteps=4, schedule="streaming", calibration="rnl", calibration_samples=16, limit=10)


def images(path: Path, shape: tuple[int, ...] = (20, 8, 8), **more: object) -> Path:
    """An .npz of random 8-bit images."""
    generator = np.random.default_rng(0)
    content = {"x": generator.integers(0, 17, shape).astype(np.uint8), "y": np.arange(shape[0]) % 10, **more}
    np.savez(path, **content)
    return path


def missing_file(folder: Path) -> list[str]:
    return [str(folder / "model.onnx")]


def truncated_onnx(folder: Path) -> list[str]:
    path = small_onnx(folder / "model.onnx", "Relu")
    path.write_bytes(path.read_bytes()[:-40])
    return [str(path)]


def pickle_with_code(folder: Path) -> list[str]:
    (folder / "weights.pt").write_bytes(pickle.dumps(Trap(folder / "executed")))
    return [str(folder / "weights.pt"), "--arch", "torchvision:resnet18", "--input-shape", "3,32,32"]


def torch_file_with_code(folder: Path) -> list[str]:
    torch.save({"state_dict": Trap(folder / "executed")}, folder / "weights.pth")
    (folder / "arch.py").write_text("import torch\ndef net():\n    return torch.nn.Linear(2, 2)\n")
    return [str(folder / "weights.pth"), "--arch", f"{folder / 'arch.py'}:net", "--input-shape", "2"]


def unknown_opset(folder: Path) -> list[str]:
    return [str(small_onnx(folder / "model.onnx", "Relu", opset=999))]


def unsupported_nodes(folder: Path) -> list[str]:
    return [str(small_onnx(folder / "model.onnx", "Relu", "Hardmax", "Det", "NonZero"))]


def nothing_to_spike(folder: Path) -> list[str]:
    return [str(small_onnx(folder / "model.onnx"))]


def wrong_shapes(folder: Path) -> list[str]:
    return [GOOD, "--data", str(images(folder / "wide.npz", (20, 9, 7)))]


def labels_out_of_range(folder: Path) -> list[str]:
    return [GOOD, "--data", str(images(folder / "labels.npz", y=np.arange(20)))]


def weights_not_finite(folder: Path) -> list[str]:
    return [str(small_onnx(folder / "model.onnx", "Relu", weight=float("nan")))]


def data_not_finite(folder: Path) -> list[str]:
    values = np.zeros((20, 8, 8), np.float32)
    values[3, 2, 1] = np.nan
    return [GOOD, "--data", str(images(folder / "nan.npz", x=values))]


def no_timesteps(folder: Path) -> list[str]:
    del folder
    return [GOOD, "-T", "0"]


def empty_folder(folder: Path) -> list[str]:
    (folder / "images").mkdir()
    return [GOOD, "--data", str(folder / "images")]


def unreadable_image(folder: Path) -> list[str]:
    for name in ("a", "b"):
        (folder / "images" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(folder / "images" / name / "one.png")
    (folder / "images" / "b" / "two.png").write_bytes(b"not a picture")
    return [GOOD, "--data", str(folder / "images")]


def unwritable_output(folder: Path) -> list[str]:
    return [GOOD, "-o", str(folder / "absent" / "model.snn")]


def weights_without_architecture(folder: Path) -> list[str]:
    torch.save({"a": torch.zeros(2)}, folder / "weights.pt")
    return [str(folder / "weights.pt")]


def unknown_bundled_model(folder: Path) -> list[str]:
    del folder
    return ["zoo:digit-resnet"]


def not_a_checkpoint(folder: Path) -> list[str]:
    (folder / "model.snn").write_bytes(b"0123456789")
    return ["run", str(folder / "model.snn"), "--data", str(images(folder / "good.npz"))]


def images_for_a_checkpoint(folder: Path) -> list[str]:
    return ["run", str(images(folder / "good.npz"))]


def model_for_a_checkpoint(folder: Path) -> list[str]:
    return ["info", str(small_onnx(folder / "model.onnx", "Relu"))]


def levels_of_a_neuron_of_one_unit(folder: Path) -> list[str]:
    del folder
    return [GOOD, "--neuron", "ternary-late", "--levels", "7"]


def bistable_with_another_neuron(folder: Path) -> list[str]:
    del folder
    return [GOOD, "--schedule", "bistable", "--neuron", "graded"]


def percentile_outside(folder: Path) -> list[str]:
    del folder
    return [GOOD, "--calibration", "percentile", "--percentile", "200"]


def output_over_the_model(folder: Path) -> list[str]:
    path = small_onnx(folder / "model.onnx", "Relu")
    return [str(path), "-o", str(path)]


def read_out_of_no_steps(folder: Path) -> list[str]:
    del folder
    return [GOOD, "-T", "4", "--schedule", "streaming", "--read-from", "4"]


def read_out_of_a_bistable_network(folder: Path) -> list[str]:
    del folder
    return [GOOD, "--schedule", "bistable", "--read-from", "2"]


def early_exit_in_percent(folder: Path) -> list[str]:
    del folder
    return [GOOD, "--early-exit", "99"]


def calibrated_for_more_steps_than_there_are(folder: Path) -> list[str]:
    del folder
    return [GOOD, "-T", "8", "--calibrate-for", "4,16"]


def calibrated_for_steps_of_a_waiting_network(folder: Path) -> list[str]:
    del folder
    return [GOOD, "-T", "8", "--calibrate-for", "4", "--schedule", "wait"]


def compared_at_no_step(folder: Path) -> list[str]:
    del folder
    return [GOOD, "-T", "8", "--frontier", "4,0"]


def compared_while_looking_for_the_steps(folder: Path) -> list[str]:
    del folder
    return [GOOD, "-T", "auto", "--max-drop", "1", "--compare-at", "4"]


def read_out_in_words(folder: Path) -> list[str]:
    del folder
    return [GOOD, "--read-from", "late"]


def wait_of_a_streaming_network(folder: Path) -> list[str]:
    del folder
    return [GOOD, "--schedule", "streaming", "--wait", "1"]


def window_of_a_waiting_network(folder: Path) -> list[str]:
    del folder
    return [GOOD, "--schedule", "wait", "--window", "4"]


def phases_of_a_streaming_network(folder: Path) -> list[str]:
    del folder
    return [GOOD, "--schedule", "streaming", "--phases", "uniform"]


def overflowing_model(folder: Path) -> list[str]:
    return [str(small_onnx(folder / "model.onnx", "Relu", "Exp", weight=300.0))]


def checkpoint_of_another_depth(folder: Path) -> list[str]:
    """A checkpoint whose header was edited; its tensors are untouched."""
    path = folder / "model.snn"
    snn = small_conversion().snn
    save_snn(replace(snn, schedule=replace(snn.schedule, depth=1)), path)
    return ["info", str(path)]


def checkpoint_of_too_many_steps(folder: Path) -> list[str]:
    path = folder / "model.snn"
    snn = small_conversion().snn
    save_snn(replace(snn, schedule=replace(snn.schedule, timesteps=10**9)), path)
    return ["info", str(path)]


def more_steps_than_anybody_needs(folder: Path) -> list[str]:
    del folder
    return [GOOD, "-T", "1000000"]


def more_levels_than_a_sum_holds(folder: Path) -> list[str]:
    del folder
    return [GOOD, "--neuron", "graded", "--levels", "100000000"]


def wait_that_does_not_fit(folder: Path) -> list[str]:
    """The search over schedules would leave it out without a word."""
    del folder
    return [GOOD, "-T", "8", "--wait", "3", "--limit", "20", "--calibration-samples", "16"]


def wait_that_cannot_be_smaller(folder: Path) -> list[str]:
    del folder
    return [GOOD, "-T", "2", "--schedule", "wait", "--neuron", "if", "--limit", "20", "--calibration-samples", "16"]


def budget_of_a_neuron_of_one_unit(folder: Path) -> list[str]:
    del folder
    return [GOOD, "--neuron", "if-zero", "--budget", "15%"]


def model_at_an_address(folder: Path) -> list[str]:
    del folder
    return ["https://example.org/model.onnx"]


def wait_beside_a_comparison(folder: Path) -> list[str]:
    del folder
    return [GOOD, "-T", "8", "--wait", "1", "--calibrate-for", "4"]


def columns_the_wrong_way_round(folder: Path) -> list[str]:
    (folder / "images").mkdir()
    Image.new("L", (8, 8)).save(folder / "images" / "one.png")
    (folder / "images" / "labels.csv").write_text("label,file\none.png,3\n")
    return [GOOD, "--data", str(folder / "images")]


CASES = [
    read_out_of_no_steps,
    read_out_of_a_bistable_network,
    early_exit_in_percent,
    calibrated_for_more_steps_than_there_are,
    calibrated_for_steps_of_a_waiting_network,
    compared_at_no_step,
    compared_while_looking_for_the_steps,
    read_out_in_words,
    wait_of_a_streaming_network,
    window_of_a_waiting_network,
    phases_of_a_streaming_network,
    overflowing_model,
    checkpoint_of_another_depth,
    checkpoint_of_too_many_steps,
    more_steps_than_anybody_needs,
    more_levels_than_a_sum_holds,
    wait_that_does_not_fit,
    wait_that_cannot_be_smaller,
    budget_of_a_neuron_of_one_unit,
    model_at_an_address,
    wait_beside_a_comparison,
    columns_the_wrong_way_round,
    levels_of_a_neuron_of_one_unit,
    bistable_with_another_neuron,
    percentile_outside,
    output_over_the_model,
    missing_file,
    truncated_onnx,
    pickle_with_code,
    torch_file_with_code,
    unknown_opset,
    unsupported_nodes,
    nothing_to_spike,
    wrong_shapes,
    labels_out_of_range,
    weights_not_finite,
    data_not_finite,
    no_timesteps,
    empty_folder,
    unreadable_image,
    unwritable_output,
    weights_without_architecture,
    unknown_bundled_model,
    not_a_checkpoint,
    images_for_a_checkpoint,
    model_for_a_checkpoint,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_message(
    case: Callable[[Path], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inputs, outputs = tmp_path / "inputs", tmp_path / "outputs"
    inputs.mkdir()
    outputs.mkdir()
    monkeypatch.chdir(outputs)
    arguments = case(inputs)
    assert command(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    message = said.err.replace(str(inputs), "FOLDER").replace(str(onnx.defs.onnx_opset_version()), "NEWEST")
    assert message.startswith("error: ")
    assert "\n\nhint: " in message
    assert list(outputs.iterdir()) == []
    assert not (inputs / "executed").exists()
    golden = GOLDEN / f"{case.__name__}.txt"
    if os.environ.get("SNNCONVERT_UPDATE_GOLDEN"):
        golden.write_text(message)
    assert message == golden.read_text()


def test_every_golden_message_has_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {case.__name__ for case in CASES}
