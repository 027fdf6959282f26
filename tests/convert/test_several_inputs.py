"""Models of several inputs, and of whole numbers that index a table: through every door, with data by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import snnconvert
from snnconvert.convert.doors import open_model
from snnconvert.convert.onnx_reference import compare_with_onnxruntime
from snnconvert.convert.pytorch import seeded_samples
from snnconvert.data.datasets import load_dataset
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import DataError, OptionError, UnsupportedError
from snnconvert.graph.inputs import with_rows
from snnconvert.graph.parts import Part, packed, unpacked
from snnconvert.graph.types import Ann

ROWS = 20
SOURCE = f"""
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.conv = nn.Embedding({ROWS}, 6), nn.Conv2d(1, 4, 3, padding=1)
        self.hidden, self.out = nn.Linear(4 * 64 + 18, 32), nn.Linear(32, 4)

    def forward(self, image, ids):
        seen = torch.relu(self.conv(image)).flatten(1)
        read = self.table(ids).flatten(1)
        return self.out(torch.relu(self.hidden(torch.cat([seen, read], 1))))
"""
OPTIONS: dict[str, Any] = {"timesteps": 8, "calibration": "mse", "schedule": "streaming"}


def two_inputs() -> nn.Module:
    namespace: dict[str, Any] = {}
    exec(SOURCE, namespace)
    torch.manual_seed(0)
    module: nn.Module = namespace["Two"]().eval()
    return module


class Sets:
    """A folder with the model in every form, and data for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.module = folder, two_inputs()
        draw = np.random.default_rng(0)
        self.image = draw.integers(0, 256, (80, 8, 8), dtype=np.uint8)
        self.ids = draw.integers(0, ROWS, (80, 3))
        with torch.no_grad():
            found = self.module(torch.from_numpy(self.image[:, None] / 255).float(), torch.from_numpy(self.ids))
        self.labels = found.argmax(1).numpy()
        np.savez(folder / "set.npz", image=self.image, ids=self.ids, y=self.labels)
        example = (torch.rand(2, 1, 8, 8), torch.zeros(2, 3, dtype=torch.long))
        free = {0: torch.export.Dim.DYNAMIC}
        program = torch.export.export(self.module, example, dynamic_shapes=(free, free), strict=False)
        torch.export.save(program, folder / "two.pt2")
        torch.save(self.module.state_dict(), folder / "two.pt")
        (folder / "two.py").write_text(SOURCE)
        torch.onnx.export(
            self.module, example, folder / "two.onnx", dynamo=False, input_names=["image", "ids"], output_names=["o"],
            dynamic_axes={name: {0: "n"} for name in ("image", "ids", "o")},
        )  # fmt: skip


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    return Sets(tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="module")
def conversion(sets: Sets) -> snnconvert.Conversion:
    return snnconvert.convert_model(sets.folder / "two.onnx", data=sets.folder / "set.npz", **OPTIONS)


def agrees(ann: Ann, module: nn.Module) -> None:
    samples = seeded_samples(5, ann.inputs, 7)
    with torch.no_grad():
        torch.testing.assert_close(ann.graph(samples)[0], module(*unpacked(ann.inputs, samples).values()))


def test_every_door_reads_it(sets: Sets) -> None:
    held = {"image": Part("image", (1, 8, 8)), "ids": Part("ids", (3,), whole=True), "y": Part("y", ())}
    for name in ("two.onnx", "two.pt2", "two.py:Two"):
        ann = open_model(str(sets.folder / name), arrays=held)
        assert [part.name for part in ann.inputs] == ["image", "ids"]
        assert ann.inputs[1] == Part("ids", (3,), whole=True, rows=ROWS)
        assert ann.input_shape == (67,)
        if name != "two.py:Two":  # which has weights of its own
            agrees(ann, sets.module)
    ann = open_model(str(sets.folder / "two.pt"), arch=f"{sets.folder}/two.py:Two", arrays=held)
    agrees(ann, sets.module)


def test_the_reference_runs_on_all_inputs(sets: Sets) -> None:
    ann = open_model(str(sets.folder / "two.onnx"))
    found = compare_with_onnxruntime(ann, sets.folder / "two.onnx", seeded_samples(4, ann.inputs))
    assert found.ran
    assert found.largest < 1e-5


def test_a_conversion_of_all_inputs(sets: Sets, conversion: snnconvert.Conversion, tmp_path: Path) -> None:
    assert conversion.ann_accuracy == 100.0
    assert conversion.snn.inputs[1].rows == ROWS
    notes = (*conversion.report["model"]["notes"], *conversion.report["evaluation"]["notes"])
    assert any("ids is of whole numbers, which stay analog" in note for note in notes), notes
    assert any("stay analog, exact in the mean" in note and "Gather" in note for note in notes), notes
    again = snnconvert.load(conversion.snn.save(tmp_path / "two.snn"))
    assert again.inputs == conversion.snn.inputs
    raw = {"image": sets.image[:6], "ids": sets.ids[:6]}
    prepared = {"image": torch.from_numpy(sets.image[:6, None] / 255).float(), "ids": torch.from_numpy(sets.ids[:6])}
    outputs = again(prepared)
    assert isinstance(outputs, Tensor)
    torch.testing.assert_close(outputs, again(again.prepare(raw)))
    torch.testing.assert_close(outputs, conversion.snn(packed(again.inputs, prepared)))
    assert again.simulate(prepared).outputs.shape == (8, 6, 4)


def test_a_mapping_of_arrays_is_the_file(sets: Sets, conversion: snnconvert.Conversion) -> None:
    data = {"image": sets.image, "ids": sets.ids, "y": sets.labels}
    other = snnconvert.convert_model(sets.module, data=data, **OPTIONS)
    assert other.snn.inputs == conversion.snn.inputs
    assert other.ann_accuracy == 100.0
    assert other.report["fit_curve"]["accuracy"] == conversion.report["fit_curve"]["accuracy"]


def test_whole_numbers_alone(sets: Sets) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Embedding(ROWS, 8), nn.Flatten(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        labels = module(torch.from_numpy(sets.ids)).argmax(1).numpy()
    made = snnconvert.convert_model(module, data=(sets.ids, labels), **OPTIONS)
    assert made.ann_accuracy == 100.0
    assert made.snn(sets.ids[:5]).shape == (5, 4)
    with pytest.raises(DataError, match="of sample 1 in the inputs holds 20; allowed are whole numbers 0 to 19"):
        made.snn(np.array([[1, 2, 3], [4, 20, 6]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": None}, r"no array for the input ids \(3, whole numbers 0 to 19\)"),
        ({"ids": np.full((80, 3), ROWS)}, "ids of sample 0 in .* holds 20; allowed are whole numbers 0 to 19"),
        ({"ids": np.full((80, 3), 0.5)}, "holds 0.5; allowed are whole"),
        ({"ids": np.zeros((79, 3), int)}, "has 80 samples of image, and 79 of ids"),
        ({"image": np.zeros((80, 9, 9), np.uint8)}, "image: images of shape 1x9x9 do not fit"),
        ({"image": np.full((80, 1, 8, 8), np.nan)}, "image 0 in .* holds NaN"),
        ({"y": None, "x": np.zeros(80)}, None),
    ],
)
def test_data_that_do_not_fit(sets: Sets, tmp_path: Path, change: dict[str, Any], message: str | None) -> None:
    held: dict[str, Any] = {"image": sets.image, "ids": sets.ids, "y": sets.labels, **change}
    path = tmp_path / "set.npz"
    np.savez(path, **{name: array for name, array in held.items() if array is not None})
    inputs = (Part("image", (1, 8, 8)), Part("ids", (3,), whole=True, rows=ROWS))
    if message is None:
        found = load_dataset(path, preprocessing=Preprocessing(), input_shape=(67,), inputs=inputs)
        assert found.labels is None
        assert any("left out x" in note for note in found.notes), found.notes
        return
    with pytest.raises(DataError, match=message):
        load_dataset(path, preprocessing=Preprocessing(), input_shape=(67,), inputs=inputs)


def test_labels_by_their_key_and_inputs_called_as_labels(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, x=np.ones((6, 2), np.float32), y=np.full((6, 3), 2, np.float32), truth=np.arange(6) % 2)
    both = (Part("x", (2,)), Part("y", (3,)))
    found = load_dataset(path, preprocessing=Preprocessing(), input_shape=(5,), inputs=both, labels="truth")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert found.images().tolist() == [[1, 1, 2, 2, 2]] * 6
    assert load_dataset(path, preprocessing=Preprocessing(), input_shape=(5,), inputs=both).labels is None
    one = load_dataset(path, preprocessing=Preprocessing(), input_shape=(2,), inputs=(Part("x", (2,)),))
    assert one.labels is not None
    assert one.labels.shape == (6, 3)
    with pytest.raises(DataError, match=r"no array 'z' of labels; its keys are x, y, truth"):
        load_dataset(path, preprocessing=Preprocessing(), input_shape=(5,), inputs=both, labels="z")
    with pytest.raises(OptionError, match=r"no input of the model is an image"):
        load_dataset(path, preprocessing=Preprocessing(mean=(0.5,)), input_shape=(5,), inputs=both, labels="truth")


def test_a_batch_that_differs_between_inputs_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Relu", ["c"], ["o"])]
    inputs = [helper.make_tensor_value_info(*row) for row in (("a", 1, ["n", 4]), ("b", 1, [1, 4]))]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("o", 1, ["n", 4])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")
    with pytest.raises(UnsupportedError, match=r"do not have the batch as their first axis.*a \(n, 4\), b \(1, 4\)"):
        open_model(str(tmp_path / "a.onnx"))


def test_activations_index_no_table(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Cast", ["b"], ["c"], to=TensorProto.INT64),
        helper.make_node("Gather", ["t", "c"], ["o"]),
    ]
    table = numpy_helper.from_array(np.ones((3, 2), np.float32), "t")
    inputs = [helper.make_tensor_value_info("a", 1, ["n", 4])]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("o", 1, ["n", 4, 2])], [table])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")
    with pytest.raises(UnsupportedError, match="cannot be converted"):
        open_model(str(tmp_path / "a.onnx"))


def test_rows_are_those_of_the_tables_that_are_reached(sets: Sets) -> None:
    ann = open_model(str(sets.folder / "two.onnx"))
    bare = tuple(Part(part.name, part.shape) for part in ann.inputs)
    assert with_rows(bare, ann.graph) == ann.inputs
