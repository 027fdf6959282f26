"""Small valid files for every door, from which mutations start."""

from __future__ import annotations

import contextlib
import csv
import gzip
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from snnconvert.cost import chip, energy_constants

ARCHITECTURE = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)
    )
"""
MANIFEST = """
[defaults]
timesteps = 2
data = "data.npz"
calibration = "percentile"
calibration_samples = 8
schedule = "streaming"
gates = { max_drop = 100.0 }
limits = { seconds = 60, memory = "3 GiB" }

[set.small]
preprocessing = { mean = [0.5], std = [0.25], scale = 255.0 }

[[model]]
name = "one"
source = "net.onnx"
set = "small"

[[model]]
glob = "folded*.onnx"
neuron = "graded"
levels = 7
"""
PREPROCESSING = 'mean = [0.5]\nstd = [0.25]\nscale = 255.0\nlayout = "NCHW"\nchannels = "RGB"\nresize = 8\ncrop = 8\n'
CONDITIONS = (
    "accuracy_drop > 0.5",
    "spikes > 1000 and agreement < 90",
    "not (energy_ratio <= 2.0) or ann_accuracy < 10",
    "(accuracy + 1) * 2 - 3 / 4 > -5",
)
SIDE, CLASSES = 8, 3


def write_seeds(folder: Path) -> None:
    """Everything that is mutated, and `model.snn` and `model.json`, made of it by a conversion."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    (folder / "arch.py").write_text(ARCHITECTURE)
    (folder / "zoo.toml").write_text(MANIFEST)
    (folder / "preprocessing.toml").write_text(PREPROCESSING)
    (folder / "conditions.txt").write_text("\n".join(CONDITIONS))
    for name, module in (("energy", energy_constants), ("chip", chip)):
        source = Path(module.__file__ or "").parent / {"energy": "energy.toml", "chip": "targets/speck2f.toml"}[name]
        shutil.copyfile(source, folder / f"{name}.toml")
    _weights(folder)
    _graphs(folder)
    _images(folder)
    _converted(folder)


def _module() -> nn.Module:
    namespace: dict[str, object] = {}
    exec(ARCHITECTURE, namespace)
    return namespace["net"]().eval()  # type: ignore[operator]


def _weights(folder: Path) -> None:
    from safetensors.torch import save_file

    module = _module()
    state = module.state_dict()
    torch.save({"state_dict": state, "epoch": 3}, folder / "weights.pt")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "weights.safetensors")
    for name, example, shapes in (
        ("dynamic", torch.rand(2, 1, SIDE, SIDE), ({0: torch.export.Dim.DYNAMIC},)),
        ("fixed", torch.rand(1, 1, SIDE, SIDE), None),
    ):
        program = torch.export.export(_Shaped(module).eval(), (example,), dynamic_shapes=shapes, strict=False)
        torch.export.save(program, folder / f"{name}.pt2")


class _Shaped(nn.Module):
    """A module whose program computes with sizes, makes constants and slices."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ramp = torch.arange(x.shape[2], dtype=x.dtype).reshape(1, 1, -1, 1) / 8
        x = torch.cat([x[:, :, 1:], x.new_zeros(x.shape[0], 1, 1, x.shape[3])], 2) + ramp
        return self.inner(x.reshape(x.shape[0], 1, SIDE, -1).expand(-1, 1, -1, -1))


def _graphs(folder: Path) -> None:
    torch.onnx.export(
        _module(), (torch.rand(1, 1, SIDE, SIDE),), folder / "net.onnx", dynamo=False, input_names=["x"],
        output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
    )  # fmt: skip
    onnx.save(_folded(), folder / "folded.onnx")
    onnx.save(_quantised(), folder / "quantised.onnx")
    onnx.save(_two_inputs(), folder / "two.onnx")
    onnx.save(onnx.load(folder / "net.onnx"), folder / "apart.onnx", save_as_external_data=True, size_threshold=0,
              location="apart.data")  # fmt: skip


def _weight(shape: tuple[int, ...], name: str, kind: type = np.float32) -> onnx.TensorProto:
    values = np.random.default_rng(len(name)).normal(size=shape) * (20 if kind is np.int8 else 0.3)
    return numpy_helper.from_array(values.astype(kind), name)


def _model(nodes: list[onnx.NodeProto], out: str, initial: list[onnx.TensorProto], kind: int) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info(out, kind, ["n", CLASSES])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _folded() -> onnx.ModelProto:
    """Shape arithmetic, constants made on the way, a branch, slices, and padding."""
    make = helper.make_node

    def constant(name: str, *values: float, kind: type = np.int64) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, kind), name)

    branch = [
        helper.make_graph([make(operator, ["f"], [f"b_{operator}"])], operator, [],
                          [helper.make_tensor_value_info(f"b_{operator}", TensorProto.FLOAT, None)])
        for operator in ("Relu", "Abs")
    ]  # fmt: skip
    nodes = [
        make("Shape", ["x"], ["s"]),
        make("Gather", ["s", "zero"], ["n"], axis=0),
        make("Concat", ["n", "minus"], ["to"], axis=0),
        make("Pad", ["x", "pads"], ["p"], mode="constant"),
        make("Slice", ["p", "starts", "ends", "axes", "steps"], ["c"]),
        make("ConstantOfShape", ["filled"], ["k"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5])),
        make("Range", ["low", "high", "step"], ["r"]),
        make("Expand", ["k", "wide"], ["e"]),
        make("Tile", ["e", "twice"], ["t"]),
        make("Add", ["c", "k"], ["a"]),
        make("Mul", ["a", "r"], ["m"]),
        make("Resize", ["m", "", "scales"], ["u"], mode="nearest"),
        make("MaxPool", ["u"], ["q"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Reshape", ["q", "to"], ["f"]),
        make("If", ["yes"], ["i"], then_branch=branch[0], else_branch=branch[1]),
        make("Gemm", ["i", "w", "b"], ["h"], alpha=1.0, transB=0),
        make("Clip", ["h", "floor", "ceiling"], ["l"]),
        make("Gemm", ["l", "v"], ["y"]),
    ]
    initial = [
        *(constant("zero", 0), constant("minus", -1), constant("pads", 0, 0, 1, 1, 0, 0, 1, 1)),
        *(constant("starts", 1, 1), constant("ends", 9, 9), constant("axes", 2, 3), constant("steps", 1, 1)),
        *(constant("filled", 1, 1, SIDE, SIDE), constant("wide", 1, 1, SIDE, SIDE), constant("twice", 1, 1, 1, 1)),
        numpy_helper.from_array(np.float32(0), "low"),
        numpy_helper.from_array(np.float32(SIDE), "high"),
        numpy_helper.from_array(np.float32(1), "step"),
        constant("scales", 1, 1, 2, 2, kind=np.float32),
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.float32(0), "floor"),
        numpy_helper.from_array(np.float32(6), "ceiling"),
        *(_weight((SIDE * SIDE, 5), "w"), _weight((5,), "b"), _weight((5, CLASSES), "v")),
    ]
    return _model(nodes, "y", initial, TensorProto.FLOAT)


def _two_inputs() -> onnx.ModelProto:
    """Real numbers, and whole ones that index a table."""
    make = helper.make_node
    nodes = [
        make("Gather", ["t", "ids"], ["r"], axis=0),
        make("Flatten", ["r"], ["f"]),
        make("Concat", ["sizes", "f"], ["c"], axis=1),
        make("MatMul", ["c", "w"], ["h"]),
        make("Relu", ["h"], ["a"]),
        make("MatMul", ["a", "v"], ["y"]),
    ]
    width = SIDE * SIDE + 6
    initial = [_weight((5, 2), "t"), _weight((width, 8), "w"), _weight((8, CLASSES), "v")]
    inputs = [
        helper.make_tensor_value_info("sizes", TensorProto.FLOAT, ["n", SIDE * SIDE]),
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 3]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _quantised() -> onnx.ModelProto:
    make = helper.make_node
    nodes = [
        make("Flatten", ["x"], ["f"]),
        make("QuantizeLinear", ["f", "s", "z"], ["fq"]),
        make("DequantizeLinear", ["fq", "s", "z"], ["fd"]),
        make("DequantizeLinear", ["w", "s", "zw"], ["wd"]),
        make("MatMul", ["fd", "wd"], ["h"]),
        make("Relu", ["h"], ["a"]),
        make("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        make("QLinearMatMul", ["aq", "s", "z", "v", "s", "zw", "s", "z"], ["y"]),
    ]
    initial = [
        numpy_helper.from_array(np.float32(0.02), "s"),
        numpy_helper.from_array(np.uint8(3), "z"),
        numpy_helper.from_array(np.int8(0), "zw"),
        _weight((SIDE * SIDE, 5), "w", np.int8),
        _weight((5, CLASSES), "v", np.int8),
    ]
    return _model(nodes, "y", initial, TensorProto.UINT8)


def _images(folder: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (12, SIDE, SIDE), dtype=np.uint8)
    labels = np.arange(12) % CLASSES
    np.savez(folder / "data.npz", x=pixels, y=labels)
    np.savez_compressed(folder / "floats.npz", x=pixels[:, None].astype(np.float32) / 255, y=labels.astype(np.int8))
    np.save(folder / "data.npy", pixels)
    ids = generator.integers(0, 5, (12, 3))
    np.savez(folder / "two.npz", sizes=pixels.reshape(12, -1).astype(np.float32), ids=ids, t=labels, y=labels)
    rows = [",".join(map(str, (*row.reshape(-1), label))) for row, label in zip(pixels, labels, strict=True)]
    names = [f"p{place}" for place in range(SIDE * SIDE)]
    (folder / "table.csv").write_text("\n".join([",".join([*names, "label"]), *rows]))
    for name, magic, content in (("images", 3, pixels), ("labels", 1, labels.astype(np.uint8))):
        head = struct.pack(f">HBB{content.ndim}I", 0, 8, magic, *content.shape)
        kind = f"idx{content.ndim}"
        (folder / f"t10k-{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + content.tobytes()))
    for shape in ("classes", "listed"):
        for place, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            inside = folder / shape / (f"class{label}" if shape == "classes" else ".")
            inside.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(inside / f"{place}.{('png', 'bmp', 'gif', 'webp')[place % 4]}")
    with (folder / "listed" / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "label"))
        writer.writerows((path.name, int(path.stem) % CLASSES) for path in sorted((folder / "listed").glob("*.*g*")))


def _converted(folder: Path) -> None:
    from snnconvert.cli.main import main

    window = ["bistable", "--window", "2"]
    rows = (("model", "net", "data", ["streaming"]), ("windows", "net", "data", window), ("two", "two", "two", window))
    for name, model, data, schedule in rows:
        arguments = ["convert", folder / f"{model}.onnx", "--data", folder / f"{data}.npz", "-T", 8, "--quiet"]
        arguments += ["--schedule"]
        arguments += [
            *schedule,
            "--calibration",
            "percentile",
            "--calibration-samples",
            6,
            "-o",
            folder / f"{name}.snn",
        ]
        sys.argv = ["snnconvert", *map(str, arguments)]
        with contextlib.suppress(SystemExit):
            main()
        assert (folder / f"{name}.json").is_file(), name
