"""The ONNX door: whole graphs, batches that move or vanish, and files that are no models."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import CONV, WEIGHT, Nodes, checked, floats, kinds, save

from snnconvert.convert.onnx_import import import_onnx
from snnconvert.convert.onnx_reference import HALF, compare_with_onnxruntime, onnx_operator_table
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.passes.logits import keep_logits
from snnconvert.errors import InternalError, ModelFileError, OptionError, UnsupportedError
from snnconvert.graph.dialect import calls
from snnconvert.graph.kinds import Conv, Linear

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("SNNCONVERT_DATA", str(ROOT.parent / "shared" / "data"))) / "models"
FILES = sorted(path.name for path in MODELS.glob("*.onnx"))
# --- real files -----------------------------------------------------------------------------------


@pytest.mark.skipif(not FILES, reason="the data pack is absent (set SNNCONVERT_DATA)")
def test_the_data_pack_is_complete() -> None:
    assert len(FILES) >= 29


@pytest.mark.parametrize("name", FILES)
def test_data_pack_model_matches_onnxruntime(name: str) -> None:
    # Both float32 engines are 6e-5 from the float64 result of YOLOX on such inputs, so they may be 1.2e-4 apart.
    tolerance = 2e-4 if name == "yolox_nano.onnx" else 1e-4
    ann = checked(MODELS / name, samples=1 if (MODELS / name).stat().st_size > 3e6 else 2, tolerance=tolerance)
    assert ann.source.format == "onnx" and len(ann.source.sha256) == 64 and ann.source.name == Path(name).stem
    known = {name for row in onnx_operator_table(MODELS / name) for name in row[3]}
    assert all(node.meta["origin"].name for node, _ in calls(ann.graph))
    assert any(node.meta.get("onnx_value") in known for node, _ in calls(ann.graph))


# --- what the door keeps --------------------------------------------------------------------------


def test_names_origins_and_shapes(tmp_path: Path) -> None:
    ann = checked(save(tmp_path / "net.onnx", CONV, WEIGHT))
    (conv, module), (relu, _) = calls(ann.graph)
    assert isinstance(module, Conv)
    assert str(conv.meta["origin"]) == "Conv_0 (Conv)"
    assert conv.meta["onnx_value"] == "c" and relu.meta["onnx_value"] == "y"
    assert relu.meta["shape"] == (4, 6, 6)
    assert ann.input_shape == (3, 8, 8) and ann.outputs == ("y",)


def test_unnamed_node_takes_its_output_name(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", CONV, WEIGHT)
    model = onnx.load(path)
    model.graph.node[0].name = ""
    onnx.save(model, path)
    assert [node.meta["origin"].name for node, _ in calls(import_onnx(path).graph)] == ["c", "Relu_1"]


def test_output_name_keeps_one_output(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", CONV, WEIGHT, outputs=("y", "c"))
    assert import_onnx(path).outputs == ("y", "c")
    assert checked(path, output_name="c").outputs == ("c",)
    with pytest.raises(OptionError, match="'z' is not an output") as caught:
        import_onnx(path, output_name="z")
    assert "y, c" in caught.value.hint


def test_dead_nodes_are_ignored_even_if_unsupported(tmp_path: Path) -> None:
    nodes: Nodes = [*CONV, ("NonZero", ["c"], ["dead"], {})]
    assert kinds(checked(save(tmp_path / "net.onnx", nodes, WEIGHT))) == ["Conv", "Relu"]


def test_initializers_may_also_be_graph_inputs(tmp_path: Path) -> None:
    assert kinds(checked(save(tmp_path / "net.onnx", CONV, WEIGHT, as_inputs=True, opset=8))) == ["Conv", "Relu"]


def test_weights_from_constant_nodes(tmp_path: Path) -> None:
    nodes: Nodes = [("Constant", [], ["w"], {"value": numpy_helper.from_array(WEIGHT["w"])}), *CONV]
    assert kinds(checked(save(tmp_path / "net.onnx", nodes, {}))) == ["Conv", "Relu"]


def test_half_precision_is_read_as_float32_with_a_note(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", CONV, {"w": WEIGHT["w"].astype(np.float16)}, kind=TensorProto.FLOAT16)
    ann = import_onnx(path)
    assert {parameter.dtype for parameter in ann.graph.state_dict().values()} == {torch.float32}
    assert len([note for note in ann.source.notes if "float16" in note]) == 2
    comparison = compare_with_onnxruntime(ann, path, torch.rand(2, 3, 8, 8), tolerance=1e-6)
    assert comparison.ran and comparison.tolerance == HALF


def test_a_file_that_takes_8_bit_images_is_compared_on_them(tmp_path: Path) -> None:
    nodes: Nodes = [("Cast", ["x"], ["f"], {"to": 1}), ("Conv", ["f", "w"], ["c"], {}), ("Relu", ["c"], ["y"], {})]
    path = save(tmp_path / "net.onnx", nodes, WEIGHT, kind=TensorProto.UINT8)
    ann = import_onnx(path)
    assert any("--scale 1" in note for note in ann.source.notes)
    assert compare_with_onnxruntime(ann, path, torch.rand(2, 3, 8, 8)).ran


SCORES: Nodes = [("Gemm", ["x", "w"], ["scores"], {})]
TAILS: dict[str, Nodes] = {
    "ArgMax": [("ArgMax", ["scores"], ["y"], {"axis": 1})],
    "ArgMax and moves": [
        ("ArgMax", ["scores"], ["i"], {"axis": -1, "keepdims": 1}),
        ("Cast", ["i"], ["j"], {"to": TensorProto.INT32}),
        ("Reshape", ["j", "shape"], ["y"], {}),
    ],
    "TopK": [("TopK", ["scores", "two"], ["best", "y"], {"axis": 1})],
    "name of a class": [
        ("ArgMax", ["scores"], ["i"], {"axis": 1, "keepdims": 0}),
        ("Gather", ["names", "i"], ["y"], {}),
    ],
    "largest score and its place": [
        ("ReduceMax", ["scores"], ["best"], {"axes": [1], "keepdims": 0}),
        ("ArgMax", ["scores"], ["y"], {"axis": 1, "keepdims": 0}),
    ],
}


@pytest.mark.parametrize("tail", TAILS)
def test_scores_stand_for_what_ranks_them(tail: str, tmp_path: Path) -> None:
    constants = {"w": floats(5, 4), "names": np.array([10, 20, 30, 40])}
    constants |= {"shape": np.array([-1]), "two": np.array([2])}
    best = ("best",) if any("best" in outputs for _, _, outputs, _ in TAILS[tail]) else ()
    for outputs in (("y", *best), ("scores", "y", *best), ("y", "scores")):
        path = save(tmp_path / "net.onnx", [*SCORES, *TAILS[tail]], constants, shape=("N", 5), outputs=outputs)
        ann = checked(path)
        assert ann.outputs == ("scores",)
        assert any(TAILS[tail][-1][0] in note and "left out" in note for note in ann.source.notes)
        assert import_onnx(path, output_name="y").outputs == ("scores",)


def test_a_maximum_without_its_place_is_an_output_of_its_own(tmp_path: Path) -> None:
    nodes: Nodes = [*SCORES, ("ReduceMax", ["scores"], ["y"], {"axes": [1], "keepdims": 0})]
    assert checked(save(tmp_path / "net.onnx", nodes, {"w": floats(5, 4)}, shape=("N", 5))).outputs == ("y",)


def test_an_index_that_the_network_reads_is_refused(tmp_path: Path) -> None:
    nodes: Nodes = [*SCORES, ("ArgMax", ["scores"], ["i"], {"axis": 1}), ("Cast", ["i"], ["f"], {"to": 1}),
                    ("Mul", ["scores", "f"], ["y"], {})]  # fmt: skip
    with pytest.raises(UnsupportedError, match="cannot be converted") as caught:
        import_onnx(save(tmp_path / "net.onnx", nodes, {"w": floats(5, 4)}, shape=("N", 5)))
    assert "ArgMax" in caught.value.causes[0]


def test_only_what_the_chosen_output_needs_is_looked_at(tmp_path: Path) -> None:
    nodes: Nodes = [*SCORES, ("Relu", ["scores"], ["a"], {}), ("Det", ["scores"], ["b"], {})]
    path = save(tmp_path / "net.onnx", nodes, {"w": floats(5, 4)}, shape=("N", 5), outputs=("a", "b"))
    with pytest.raises(UnsupportedError):
        import_onnx(path)
    assert import_onnx(path, output_name="a").outputs == ("a",)


def test_a_pipeline_of_scikit_learn(tmp_path: Path) -> None:
    """A scaler, a network of two classes with one logit, and the tables of class names that its exporter writes."""
    made = helper.make_node
    nodes = [
        made("Scaler", ["x"], ["u"], name="scale", domain="ai.onnx.ml", offset=[0.5, -1.0, 2.0], scale=[2.0, 1.0, 0.5]),
        made("MatMul", ["u", "w"], ["h"]),
        made("Relu", ["h"], ["a"]),
        made("MatMul", ["a", "v"], ["z"]),
        made("Sigmoid", ["z"], ["p"], name="probability"),
        made("Sub", ["one", "p"], ["n"]),
        made("Concat", ["n", "p"], ["both"], axis=1),
        made("ArgMax", ["both"], ["i"], axis=1),
        made("ZipMap", ["both"], ["probabilities"], domain="ai.onnx.ml", classlabels_strings=["no", "yes"]),
        made("ArrayFeatureExtractor", ["classes", "i"], ["label"], domain="ai.onnx.ml"),
    ]
    constants = {"w": floats(3, 6), "v": floats(6, 1), "one": np.float32([1])}
    table = helper.make_tensor("classes", TensorProto.STRING, [2], [b"no", b"yes"])
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.STRING, None),
        helper.make_value_info("probabilities", helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])))),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])], outputs,
        [table, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 3)]
    path = tmp_path / "pipeline.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    ann = checked(path)
    assert ann.outputs == ("both",)
    logits = keep_logits(canonicalize(ann))
    assert any("probability" in note for note in logits.source.notes)
    samples = torch.randn(20, 3)
    scores, decided = logits.graph(samples)[0], ann.graph(samples)[0]
    assert torch.equal(scores.argmax(1), decided.argmax(1))
    assert torch.allclose(torch.sigmoid(scores[:, 1]), decided[:, 1], atol=1e-6)


def test_nodes_out_of_order_are_an_invalid_file(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [("Conv", ["x", "v"], ["y"], {}), ("Identity", ["w"], ["v"], {})], WEIGHT)
    with pytest.raises(ModelFileError, match="not a valid ONNX file: Conv_0") as caught:
        import_onnx(path)
    assert "reads 'v', which no earlier node produces" in caught.value.message
    assert "sort its nodes" in caught.value.hint


def test_quantised_relu_is_kept_as_a_clip(tmp_path: Path) -> None:
    nodes: Nodes = [
        ("Conv", ["x", "w"], ["c"], {}),
        ("QuantizeLinear", ["c", "s", "z"], ["q"], {}),
        ("DequantizeLinear", ["q", "s", "z"], ["y"], {}),
    ]
    constants = WEIGHT | {"s": np.float32(0.01), "z": np.uint8(0)}
    path = save(tmp_path / "net.onnx", nodes, constants, opset=13)
    ann = import_onnx(path)
    assert kinds(ann) == ["Conv", "Clip"]
    assert compare_with_onnxruntime(ann, path, torch.rand(2, 3, 8, 8), tolerance=0.01).ran


def test_branch_on_a_constant_is_followed(tmp_path: Path) -> None:
    def branch(operator: str) -> onnx.GraphProto:
        node = helper.make_node(operator, ["x"], ["inner"])
        return helper.make_graph([node], operator, [], [helper.make_empty_tensor_value_info("inner")])

    condition = numpy_helper.from_array(np.array(True))
    nodes: Nodes = [
        ("Constant", [], ["condition"], {"value": condition}),
        ("If", ["condition"], ["y"], {"then_branch": branch("Relu"), "else_branch": branch("Sigmoid")}),
    ]
    assert kinds(import_onnx(save(tmp_path / "net.onnx", nodes, {}))) == ["Relu"]


# --- the batch ------------------------------------------------------------------------------------

SHAPE_CHAIN: Nodes = [
    ("Shape", ["x"], ["shape"], {}),
    ("Gather", ["shape", "zero"], ["size"], {}),
    ("Unsqueeze", ["size", "axes"], ["first"], {}),
    ("Concat", ["first", "rest"], ["target"], {"axis": 0}),
    ("Reshape", ["x", "target"], ["y"], {}),
]
CHAIN = {"zero": np.int64(0), "axes": np.array([0]), "rest": np.array([-1])}


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_reshape_computed_from_the_shape(tmp_path: Path, batch: int | str) -> None:
    ann = checked(save(tmp_path / "net.onnx", SHAPE_CHAIN, CHAIN, shape=(batch, 3, 8, 8)), samples=6)
    assert kinds(ann) == ["Reshape"]
    assert ann.graph(torch.rand(5, 3, 8, 8))[0].shape == (5, 192)


@pytest.mark.parametrize("target", [[1, 192], [-1, 192], [0, -1], [1, -1]])
def test_baked_batch_of_one_is_the_batch(tmp_path: Path, target: list[int]) -> None:
    nodes: Nodes = [("Reshape", ["x", "t"], ["f"], {}), ("MatMul", ["f", "w"], ["y"], {})]
    constants = {"t": np.array(target), "w": floats(192, 5)}
    ann = checked(save(tmp_path / "net.onnx", nodes, constants, shape=(1, 3, 8, 8)))
    assert ann.graph(torch.rand(5, 3, 8, 8))[0].shape == (5, 5)


# Self-attention as exporters of sequence-first code write it: (length, batch * heads, size).
ATTENTION: Nodes = [
    ("Transpose", ["x"], ["t"], {"perm": [1, 0, 2]}),
    ("Reshape", ["t", "split"], ["s"], {}),
    ("Transpose", ["s"], ["q"], {"perm": [1, 0, 2]}),
    ("Transpose", ["s"], ["k"], {"perm": [1, 2, 0]}),
    ("MatMul", ["q", "k"], ["scores"], {}),
    ("Softmax", ["scores"], ["p"], {"axis": -1}),
    ("MatMul", ["p", "q"], ["o"], {}),
    ("Transpose", ["o"], ["back"], {"perm": [1, 0, 2]}),
    ("Reshape", ["back", "flat"], ["f"], {}),
    ("Gemm", ["f", "w"], ["g"], {}),
    ("Reshape", ["g", "merge"], ["m"], {}),
    ("Transpose", ["m"], ["y"], {"perm": [1, 0, 2]}),
]


@pytest.mark.parametrize("batch", [1, 2])
def test_attention_with_the_batch_merged_into_heads(tmp_path: Path, batch: int) -> None:
    heads, length, size = 3, 5, 4
    constants = {
        "split": np.array([length, batch * heads, size]),
        "flat": np.array([length * batch, heads * size]),
        "merge": np.array([length, batch, heads * size]),
        "w": floats(heads * size, heads * size),
    }
    ann = checked(save(tmp_path / "net.onnx", ATTENTION, constants, shape=(batch, length, heads * size)), samples=4)
    assert "MatMul" in kinds(ann)
    one, many = torch.rand(1, length, heads * size), torch.rand(4, length, heads * size)
    many[2] = one[0]
    torch.testing.assert_close(ann.graph(many)[0][2], ann.graph(one)[0][0])


def test_a_squeezed_batch_meets_the_batch_again(tmp_path: Path) -> None:
    """(5, 1, 4) + (5, 4) mixes tokens, not samples: it must not be read as the same tokens added."""
    nodes: Nodes = [
        ("Transpose", ["x"], ["t"], {"perm": [1, 0, 2]}),
        ("Squeeze", ["x", "first"], ["s"], {}),
        ("Add", ["t", "s"], ["y"], {}),
    ]
    path = save(tmp_path / "a.onnx", nodes, {"first": np.array([0])}, shape=(1, 5, 4))
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(path)
    assert "different axes" in caught.value.render()
    nodes[-1] = ("Add", ["x", "s"], ["y"], {})
    checked(save(tmp_path / "b.onnx", nodes, {"first": np.array([0])}, shape=(1, 5, 4)))


def test_samples_without_a_batch_axis(tmp_path: Path) -> None:
    nodes: Nodes = [("MatMul", ["x", "w"], ["h"], {}), ("Relu", ["h"], ["y"], {})]
    ann = checked(save(tmp_path / "net.onnx", nodes, {"w": floats(6, 4)}, shape=(6,)))
    assert ann.input_shape == (6,)
    assert isinstance(next(iter(calls(ann.graph)))[1], Linear)
    nodes = [("Unsqueeze", ["x", "axes"], ["u"], {}), ("Conv", ["u", "w"], ["y"], {})]
    ann = checked(save(tmp_path / "net.onnx", nodes, WEIGHT | {"axes": np.array([0])}, shape=(3, 8, 8)))
    assert ann.input_shape == (3, 8, 8)


def test_gather_on_moved_axes_and_by_sample_numbers(tmp_path: Path) -> None:
    """What torch exports for adaptive pooling that enlarges, and for as_strided."""
    index = np.stack(np.meshgrid([0, 1, 1, 7], [0, 5, 7], indexing="ij"), axis=-1)
    nodes: Nodes = [
        ("Transpose", ["x"], ["t"], {"perm": [2, 3, 0, 1]}),
        ("GatherND", ["t", "index"], ["g"], {}),
        ("Transpose", ["g"], ["y"], {"perm": [2, 3, 0, 1]}),
    ]
    ann = checked(save(tmp_path / "nd.onnx", nodes, {"index": index}), samples=3)
    assert ann.graph(torch.rand(5, 3, 8, 8))[0].shape == (5, 3, 4, 3)
    nodes = [
        ("Shape", ["x"], ["size"], {"end": 1}),
        ("Squeeze", ["size"], ["n"], {}),
        ("Range", ["zero", "n", "one"], ["r"], {}),
        ("Mul", ["r", "stride"], ["m"], {}),
        ("Unsqueeze", ["m", "axes"], ["u"], {}),
        ("Add", ["u", "offset"], ["i"], {}),
        ("Reshape", ["x", "flat"], ["f"], {}),
        ("Gather", ["f", "i"], ["y"], {}),
    ]
    constants = {"zero": np.int64(0), "one": np.int64(1), "stride": np.int64(192), "axes": np.array([1, 2])}
    constants |= {"offset": np.arange(0, 192, 16).reshape(1, 4, 3), "flat": np.array([-1])}
    assert checked(save(tmp_path / "own.onnx", nodes, constants), samples=3).graph(torch.rand(5, 3, 8, 8))
    constants["stride"] = np.int64(191)
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(save(tmp_path / "other.onnx", nodes, constants))
    assert "across the samples" in caught.value.render()


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([("ReduceMean", ["x"], ["y"], {"axes": [0]})], "axis 0, which holds the batch"),
        ([("Softmax", ["x"], ["y"], {"axis": 0})], "axis 0, which holds the batch"),
        ([("Reshape", ["x", "t"], ["y"], {})], "leaves no room for the batch"),
        ([("Transpose", ["x"], ["u"], {"perm": [1, 0, 2, 3]}), ("Conv", ["u", "w"], ["y"], {})], "merged or moved"),
        ([("Transpose", ["x"], ["u"], {"perm": [1, 0, 2, 3]}), ("Add", ["u", "x"], ["y"], {})], "different axes"),
        ([("Transpose", ["x"], ["u"], {"perm": [1, 2, 0, 3]}), ("Reshape", ["u", "v"], ["y"], {})], "would mix"),
    ],
)
def test_mixing_samples_is_refused(tmp_path: Path, nodes: Nodes, reason: str) -> None:
    constants = WEIGHT | {"t": np.array([16, 12]), "v": np.array([-1, 192])}
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(save(tmp_path / "net.onnx", nodes, constants))
    assert reason in caught.value.render()


# --- the reference --------------------------------------------------------------------------------


def test_comparison_names_the_first_node_that_diverges(tmp_path: Path) -> None:
    nodes: Nodes = [*CONV[:1], ("Relu", ["c"], ["r"], {}), ("Conv", ["r", "v"], ["y"], {})]
    path = save(tmp_path / "net.onnx", nodes, WEIGHT | {"v": floats(2, 4, 1, 1)})
    ann = import_onnx(path)
    modules = [op for _, op in calls(ann.graph)]
    assert isinstance(modules[2], Conv)
    modules[2].weight[0] += 0.1
    with pytest.raises(InternalError) as caught:
        compare_with_onnxruntime(ann, path, torch.rand(2, 3, 8, 8))
    assert "Conv_2 (Conv)" in caught.value.causes[0]
    assert isinstance(modules[0], Conv)
    modules[0].weight[0] += 0.1
    with pytest.raises(InternalError) as caught:
        compare_with_onnxruntime(ann, path, torch.rand(2, 3, 8, 8))
    assert "Conv_0 (Conv)" in caught.value.causes[0]


def test_comparison_says_when_onnxruntime_cannot_run(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", CONV, WEIGHT)
    ann = import_onnx(path)
    save(path, CONV, {"w": floats(4, 5, 3, 3)})
    comparison = compare_with_onnxruntime(ann, path, torch.rand(2, 3, 8, 8))
    assert not comparison.ran and comparison.reason and comparison.differences == {}


def test_operator_table(tmp_path: Path) -> None:
    table = onnx_operator_table(save(tmp_path / "net.onnx", CONV, WEIGHT))
    assert table == [("Conv_0", "Conv", ("x", "w"), ("c",)), ("Relu_1", "Relu", ("c",), ("y",))]
