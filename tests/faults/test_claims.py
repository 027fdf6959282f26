"""What a small file asks for is refused before it is made: one budget, through every door."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from snnconvert.budget import VARIABLE, budget, check_claim, elements
from snnconvert.convert.doors import open_model
from snnconvert.convert.weights import load_weights
from snnconvert.data.datasets import load_dataset
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import ClaimError, ModelFileError, OptionError, SnnConvertError
from snnconvert.graph import kinds
from snnconvert.graph.claims import check_module, result_bytes
from snnconvert.graph.dialect import Builder
from snnconvert.graph.types import Origin

HUGE = 10**5
PLAIN = Preprocessing()


def folded(path: Path, node: onnx.NodeProto, given: dict[str, np.ndarray]) -> Path:  # type: ignore[type-arg]
    """A network that adds the sum of what `node` makes of constants to its input."""
    nodes = [node, helper.make_node("ReduceMax", [node.output[0]], ["m"], keepdims=0)]
    nodes += [helper.make_node("Add", ["x", "m"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(value, name) for name, value in given.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


ONE = np.ones((1,), np.float32)
SIZES = np.array([HUGE, HUGE], np.int64)
FOLDED = {
    "ConstantOfShape": ([SIZES], {}),
    "Expand": ([ONE, SIZES], {}),
    "Tile": ([np.ones((1, 1), np.float32), SIZES], {}),
    "Pad": ([np.ones((1, 1), np.float32), np.array([0, 0, HUGE, HUGE])], {}),
    "MatMul": ([np.ones((2 * HUGE, 1), np.float32), np.ones((1, 2 * HUGE), np.float32)], {}),
    "Add": ([np.ones((2 * HUGE, 1), np.float32), np.ones((1, 2 * HUGE), np.float32)], {}),
    "OneHot": ([np.zeros(HUGE, np.int64), np.array([HUGE]), np.array([0, 1], np.float32)], {}),
    "Resize": ([np.ones((1, 1, 2, 2), "f"), np.zeros(0, "f"), np.array([1, 1, HUGE, HUGE], "f")], {}),
    "ConvTranspose": ([np.ones((1, 1, 2, 2), np.float32)] * 2, {"strides": [HUGE, HUGE]}),
    "Conv": ([np.ones((1, 1, 2, 2), np.float32)] * 2, {"pads": [HUGE] * 4}),
    "Einsum": ([np.ones(HUGE, np.float32)] * 2, {"equation": "a,b->ab"}),
}  # fmt: skip


@pytest.mark.parametrize("operator", FOLDED)
def test_a_constant_that_is_computed(tmp_path: Path, operator: str) -> None:
    inputs, attributes = FOLDED[operator]
    given = {f"c{index}": value for index, value in enumerate(inputs)}
    node = helper.make_node(operator, list(given), ["c"], name="bomb", **attributes)
    path = folded(tmp_path / "net.onnx", node, given)
    with pytest.raises(ClaimError, match=r"net\.onnx asks for .* the constant that bomb computes") as caught:
        open_model(str(path))
    assert f"{VARIABLE}=" in caught.value.hint


def test_constants_that_double_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1 MiB")
    nodes = [helper.make_node("Concat", [f"c{index}"] * 2, [f"c{index + 1}"], axis=0) for index in range(16)]
    nodes += [helper.make_node("ReduceMax", ["c16"], ["m"], keepdims=0), helper.make_node("Add", ["x", "m"], ["a"])]
    graph = helper.make_graph(
        [*nodes, helper.make_node("Relu", ["a"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.ones(8, np.float32), "c0")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "n.onnx")
    # Of 1 MiB, which alone would be let through; with the others, which stay as well, it is 2 MiB.
    with pytest.raises(ClaimError, match=r"asks for 2\.0 MiB of memory for the constant that c15 computes"):
        open_model(str(tmp_path / "n.onnx"))
    monkeypatch.setenv(VARIABLE, "8 MiB")
    assert open_model(str(tmp_path / "n.onnx")).input_shape == (4,)


def functions(path: Path, count: int, *, around: bool) -> Path:
    """Functions of which each calls the next twice; the last one calls the first (`around`), or is a ReLU."""
    bodies = []
    for index in range(count):
        last = index == count - 1
        callee = "F0" if around else "Relu"
        name, domain = (callee, "loc" if around else "") if last else (f"F{index + 1}", "loc")
        calls = [
            helper.make_node(name, ["a"], ["b"], domain=domain),
            helper.make_node(name, ["b"], ["c"], domain=domain),
        ]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("loc", 1)]
        bodies.append(helper.make_function("loc", f"F{index}", ["a"], ["c"], calls, opsets))
    graph = helper.make_graph(
        [helper.make_node("F0", ["x"], ["y"], domain="loc")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("loc", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=bodies, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_functions_that_call_functions(tmp_path: Path) -> None:
    assert open_model(str(functions(tmp_path / "small.onnx", 3, around=False))).input_shape == (4,)
    for count in (24, 2000):
        with pytest.raises(ClaimError, match="its nodes, once its functions are expanded"):
            open_model(str(functions(tmp_path / "bomb.onnx", count, around=False)))
    for count in (1, 2, 50):
        with pytest.raises(ModelFileError, match="which calls itself"):
            open_model(str(functions(tmp_path / "round.onnx", count, around=True)))


# --- weights --------------------------------------------------------------------------------------


def test_a_view_that_repeats_one_number(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(2**33), "b": torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(ClaimError, match=r"asks for 32\.0 GiB of memory for its tensor 'w' of shape \(8589934592,\)"):
        load_weights(tmp_path / "w.pt")


def test_an_archive_that_unpacks(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2**20)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "w.pt", "w", 8) as packed:
        for info in plain.infolist():
            packed.writestr(info.filename, plain.read(info))
    assert load_weights(tmp_path / "w.pt")["w"].shape == (2**20,)
    assert (tmp_path / "w.pt").stat().st_size < 2**16
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "1MiB")
        with pytest.raises(ClaimError, match="its members, unpacked"):
            load_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "coo", "csr", "csc", "bsr", "quantised", "plain"])
def test_weights_in_other_forms_load_as_numbers(tmp_path: Path, kind: str) -> None:
    dense = torch.tensor([[0.0, 2.0, 0.0, 1.0], [0.5, 0.0, 0.0, 0.0]])
    form: dict[str, Callable[[], torch.Tensor]] = {
        "coo": dense.to_sparse,
        "csr": dense.to_sparse_csr,
        "csc": dense.to_sparse_csc,
        "bsr": lambda: dense.to_sparse_bsr((1, 2)),
        "quantised": lambda: torch.quantize_per_tensor(dense, 0.5, 0, torch.qint8),
        "plain": dense.clone,
    }
    value = form[kind]() if kind in form else dense.to(getattr(torch, kind))
    torch.save({"w": value}, tmp_path / "w.pt")
    found = load_weights(tmp_path / "w.pt")["w"]
    assert found.dtype == torch.float32
    assert torch.equal(found, dense)


def test_weights_without_numbers_are_named(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    for value, said in (
        (torch.zeros(3, device="meta"), "on the device 'meta'"),
        (nested, "a nested tensor"),
        (torch.zeros(3, dtype=torch.complex64), "of the complex type complex64"),
    ):
        torch.save({"odd": value}, tmp_path / "w.pt")
        with pytest.raises(ModelFileError, match=r"the tensor 'odd' in .*w\.pt is") as caught:
            load_weights(tmp_path / "w.pt")
        assert said in caught.value.message


def test_a_sparse_tensor_that_would_be_huge(tmp_path: Path) -> None:
    value = torch.sparse_coo_tensor(torch.tensor([[0], [1]]), torch.tensor([1.0]), (HUGE, HUGE))
    torch.save({"w": value}, tmp_path / "w.pt")
    with pytest.raises(ClaimError, match="its tensor 'w'"):
        load_weights(tmp_path / "w.pt")


def test_a_state_dict_that_contains_itself(tmp_path: Path) -> None:
    content: dict[str, object] = {}
    content["state_dict"] = {"model": content}
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelFileError, match="contains itself"):
        load_weights(tmp_path / "w.pt")


# --- exported programs ----------------------------------------------------------------------------


def test_what_a_program_computes_on_the_way(tmp_path: Path) -> None:
    """The numbers of its file are changed; each is small in the file and large in memory."""

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x) + torch.arange(0.0, 5.0).sum() + torch.full((3, 7), 2.0).sum()

    program = torch.export.export(Net(), (torch.rand(2, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, tmp_path / "net.pt2")
    assert open_model(str(tmp_path / "net.pt2")).input_shape == (4,)
    for old, new in (('"as_float": 5.0', '"as_float": 1e10'), ('"as_int": 3', '"as_int": 1000000'), ("4", "400000000")):
        with zipfile.ZipFile(tmp_path / "net.pt2") as plain, zipfile.ZipFile(tmp_path / "bomb.pt2", "w") as changed:
            for info in plain.infolist():
                text = plain.read(info)
                if info.filename.endswith("models/model.json"):
                    content = text.decode()
                    if old == "4":
                        tree = json.loads(content)
                        tree["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][1] = {"as_int": int(new)}
                        text = json.dumps(tree).encode()
                    else:
                        text = content.replace('"as_ints": [3, 7]', f'"as_ints": [{10**6}, {10**6}]').encode()
                        text = text if "1000000" in new else content.replace(old, new).encode()
                        assert text != content.encode(), old
                changed.writestr(info.filename, text)
        with pytest.raises(SnnConvertError) as caught:
            open_model(str(tmp_path / "bomb.pt2"))
        assert isinstance(caught.value, ClaimError), caught.value.render()
        assert "bomb.pt2 asks for" in caught.value.message


# --- data -----------------------------------------------------------------------------------------


def dataset(path: Path) -> None:
    load_dataset(path, preprocessing=PLAIN, input_shape=None).images()


def test_arrays_that_unpack(tmp_path: Path) -> None:
    """Zeros compress a thousandfold; the length in a header of gzip is a part of the truth only."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "|u1", "fortran_order": False, "shape": (2, 2**30)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        file.write(array.getvalue())
        for _ in range(600):
            file.write(bytes(1 << 20))
    assert (tmp_path / "x.npz").stat().st_size < 1 << 20
    with pytest.raises(ClaimError, match=r"x\.npz asks for .* its array x"):
        dataset(tmp_path / "x.npz")
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with (tmp_path / "t-images-idx3-ubyte.gz").open("wb") as file:
        file.write(packer.compress(struct.pack(">I3I", 0x0803, 600, 1024, 1024)))
        for _ in range(600):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    with pytest.raises(ClaimError, match="what it unpacks to"):
        dataset(tmp_path / "t-images-idx3-ubyte.gz")
    small = struct.pack(">I3I", 0x0803, 2, 8, 8) + bytes(128)
    (tmp_path / "s-images-idx3-ubyte.gz").write_bytes(gzip.compress(small))
    dataset(tmp_path / "s-images-idx3-ubyte.gz")


def png(path: Path, height: int, width: int) -> None:
    """A PNG file whose header asks for that many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("height", "width"), [(170_000_000, 1), (1, 170_000_000), (40_000, 40_000)])
def test_an_image_of_many_pixels(tmp_path: Path, height: int, width: int) -> None:
    png(tmp_path / "a.png", height, width)
    with pytest.raises(ClaimError, match=f"a.png asks for .* an image of {height:,} x {width:,} pixels"):
        dataset(tmp_path)


def test_a_thin_image_is_not_made_a_large_one(tmp_path: Path) -> None:
    Image.new("L", (100_000, 1)).save(tmp_path / "a.png")
    with pytest.raises(ClaimError, match="an image of 224 x 22,400,000 pixels"):
        load_dataset(tmp_path, preprocessing=Preprocessing(resize=224, crop=224), input_shape=(1, 224, 224))


def test_a_large_image_may_be_read_if_that_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beyond the limit of Pillow itself."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("L", (100, 100)).save(tmp_path / "a.png")
    dataset(tmp_path)
    assert Image.MAX_IMAGE_PIXELS == 1000
    monkeypatch.setenv(VARIABLE, "10000")
    with pytest.raises(ClaimError):
        dataset(tmp_path)


# --- the budget itself ----------------------------------------------------------------------------


def test_the_budget_is_read_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    monkeypatch.setenv(VARIABLE, "2000")
    assert budget() == 2000
    check_claim(2000 + 8 * 1000, "all of it", path)
    with pytest.raises(ClaimError, match=r"file asks for 9\.8 KiB of memory for one more; a file of its size may"):
        check_claim(2000 + 8 * 1000 + 1, "one more", path)
    for wrong in ("-1", "much", "1e400 GiB", "9" * 400):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(OptionError, match=VARIABLE):
            budget()
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ClaimError) as caught:
        check_claim(10**400, "more than there is", path)
    assert "no computer" in caught.value.hint


def test_what_the_hint_says_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    for size in (2**30, 2**30 + 1, 5 * 2**30 + 7, 100 * 2**30):
        monkeypatch.delenv(VARIABLE, raising=False)
        with pytest.raises(ClaimError) as caught:
            check_claim(size, "it", path)
        monkeypatch.setenv(VARIABLE, caught.value.hint.split(f"{VARIABLE}=")[1].split()[0])
        check_claim(size, "it", path)


def test_an_empty_axis_hides_nothing() -> None:
    assert elements((0, 10**9, -3)) == 10**9


def test_the_size_of_a_result_is_known_before() -> None:
    with pytest.raises(ClaimError, match=r"net asks for .* the result of pad"):
        check_module(kinds.Pad(pads=(0, HUGE, 0, HUGE), value=0.0), [torch.zeros(2, 1, 4, 4)], "pad", "net")
    full = torch.ops.aten.full.default
    assert result_bytes(full, ([10**6, 10**6], 1.0), {}) == 4 * 10**12
    assert result_bytes(torch.ops.aten.arange.default, (1e12,), {}) == 4 * 10**12
    assert result_bytes(torch.ops.aten.nonzero.default, (torch.ones(3),), {}) == 0


def test_what_a_convolution_copies_counts() -> None:
    """One channel of a megabyte is copied into a block of sixteen, and so is what is made of it."""
    plain: dict[str, tuple[int, ...]] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    convolution = kinds.Conv(torch.zeros(1, 1, 1, 1), **plain)
    with pytest.raises(ClaimError, match=r"net asks for .* the result of wide"):
        check_module(convolution, [torch.empty(2, 1, 1, 5 * 10**6)], "wide", "net")
    check_module(kinds.Conv(torch.zeros(16, 16, 1, 1), **plain), [torch.empty(2, 16, 1, 10**6)], "blocks", "net")


def test_values_that_are_read_late_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A builder holds no more than a share of the budget, whatever the depth; what it gives is the same."""
    values = torch.rand(2, 1000)
    monkeypatch.setenv(VARIABLE, str(4 * 3 * values.nbytes))  # three values are kept
    builder = Builder({"x": values})
    nodes = [builder.inputs["x"]]
    for index in range(6):
        nodes.append(builder.call(kinds.Scale(torch.tensor(2.0)), nodes[-1], origin=Origin(f"n{index}", "Mul")))
    assert sum(node in builder._samples for node in nodes) == 3  # the input and the newest two
    joined = builder.call(kinds.Add(), nodes[2], nodes[4], origin=Origin("join", "Add"))
    assert torch.equal(builder.sample(joined), values * 20)
    assert torch.equal(builder.sample(nodes[1]), values * 2)
