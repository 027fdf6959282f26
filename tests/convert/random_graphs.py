"""Random ONNX graphs of the operators that are converted exactly."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 8


@dataclass(frozen=True)
class _Value:
    name: str
    channels: int
    height: int
    width: int


class RandomGraph:
    """A classifier of 3 to 9 random layers on small images; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.channels = self.random.choice((1, 2, 3))
        self.values = [_Value("x", self.channels, SIDE, SIDE)]
        self.conv(self.values[0])
        self.activation(self.values[-1])
        layers = (self.conv, self.conv, self.conv, self.norm, self.activation, self.activation, self.add, self.concat)
        layers += (self.pool, self.average, self.shuffle, self.split, self.pad, self.slice, self.scale, self.up)
        for _ in range(self.random.randint(1, 7)):
            recent = self.values[max(0, len(self.values) - 3) :]
            self.random.choice(layers)(self.random.choice([value for value in recent if value.name != "x"]))
        self.activation(self.values[-1])
        self.classifier(self.values[-1])

    def save(self, path: Path) -> Path:
        """Write the graph with a free batch size."""
        entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", self.channels, SIDE, SIDE))
        graph = helper.make_graph(self.nodes, "g", [entry], [helper.make_empty_tensor_value_info("y")], self.constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
        return path

    # --- helpers ---

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def floats(self, *shape: int, low: float = -1.0, high: float = 1.0) -> str:
        return self.constant(self.numbers.uniform(low, high, shape).astype(np.float32))

    def node(self, operator: str, inputs: list[str], **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, inputs, [name], name=f"{operator}_{len(self.nodes)}", **attributes)
        )
        return name

    def keep(self, name: str, channels: int, height: int, width: int) -> _Value:
        self.values.append(_Value(name, channels, height, width))
        return self.values[-1]

    # --- layers ---

    def conv(self, x: _Value) -> None:
        groups = self.random.choice([g for g in (1, 1, 2, x.channels) if x.channels % g == 0])
        out = groups * self.random.choice((1, 2, 4 if groups < 3 else 1))
        kernel = [self.random.choice((1, 2, 3)) if side > 3 else 1 for side in (x.height, x.width)]
        stride = self.random.choice((1, 1, 2))
        dilation = self.random.choice((1, 1, 2)) if min(x.height, x.width) > 5 else 1
        pads = [self.random.choice((0, 1)) for _ in range(4)]
        sides = [
            (side + pads[axis] + pads[axis + 2] - dilation * (kernel[axis] - 1) - 1) // stride + 1
            for axis, side in enumerate((x.height, x.width))
        ]
        weight = self.floats(out, x.channels // groups, *kernel)
        inputs = [x.name, weight] + ([self.floats(out)] if self.random.random() < 0.7 else [])
        made = {"strides": [stride] * 2, "pads": pads, "dilations": [dilation] * 2, "group": groups}
        self.keep(self.node("Conv", inputs, **made), out, *sides)

    def norm(self, x: _Value) -> None:
        n = x.channels
        parts = [self.floats(n), self.floats(n), self.floats(n), self.floats(n, low=0.2, high=2.0)]
        self.keep(self.node("BatchNormalization", [x.name, *parts]), n, x.height, x.width)

    def activation(self, x: _Value) -> None:
        kind = self.random.choice(("Relu", "Relu", "Clip", "LeakyRelu", "PRelu"))
        inputs = [x.name]
        if kind == "Clip":
            inputs += [self.constant(np.array(0.0, np.float32)), self.constant(np.array(1.5, np.float32))]
        if kind == "PRelu":
            inputs += [self.floats(x.channels, 1, 1, low=0.0)]
        attributes = {"alpha": 0.2} if kind == "LeakyRelu" else {}
        self.keep(self.node(kind, inputs, **attributes), x.channels, x.height, x.width)

    def add(self, x: _Value) -> None:
        same = [v for v in self.values[1:] if (v.channels, v.height, v.width) == (x.channels, x.height, x.width)]
        other = self.random.choice(same)
        self.keep(self.node("Add", [x.name, other.name]), x.channels, x.height, x.width)

    def concat(self, x: _Value) -> None:
        same = [v for v in self.values[1:] if (v.height, v.width) == (x.height, x.width)]
        others = [self.random.choice(same) for _ in range(self.random.choice((1, 2)))]
        total = x.channels + sum(other.channels for other in others)
        if total <= 16:
            names = [x.name, *(other.name for other in others)]
            self.keep(self.node("Concat", names, axis=1), total, x.height, x.width)

    def pool(self, x: _Value) -> None:
        kernel, stride, pad = self.random.choice(((2, 2, 0), (3, 2, 1), (2, 1, 0), (3, 1, 1)))
        if min(x.height, x.width) >= kernel:
            sides = [(side + 2 * pad - kernel) // stride + 1 for side in (x.height, x.width)]
            made = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
            self.keep(self.node("MaxPool", [x.name], **made), x.channels, *sides)

    def average(self, x: _Value) -> None:
        kernel, stride, pad = self.random.choice(((2, 2, 0), (3, 2, 1), (2, 1, 0)))
        if min(x.height, x.width) >= kernel:
            sides = [(side + 2 * pad - kernel) // stride + 1 for side in (x.height, x.width)]
            made = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
            made["count_include_pad"] = self.random.choice((0, 1))
            self.keep(self.node("AveragePool", [x.name], **made), x.channels, *sides)

    def shuffle(self, x: _Value) -> None:
        if x.channels % 2:
            return
        split = self.constant(np.array([0, 2, x.channels // 2, x.height, x.width]))
        joined = self.constant(np.array([0, x.channels, x.height, x.width]))
        parts = self.node("Transpose", [self.node("Reshape", [x.name, split])], perm=[0, 2, 1, 3, 4])
        self.keep(self.node("Reshape", [parts, joined]), x.channels, x.height, x.width)

    def split(self, x: _Value) -> None:
        if x.channels < 2:
            return
        first = self.random.randint(1, x.channels - 1)
        sizes = (first, x.channels - first)
        names = [f"v{len(self.nodes)}a", f"v{len(self.nodes)}b"]
        lengths = self.constant(np.array(sizes))
        self.nodes.append(helper.make_node("Split", [x.name, lengths], names, name=f"Split_{len(self.nodes)}", axis=1))
        for name, size in zip(names, sizes, strict=True):
            self.keep(name, size, x.height, x.width)

    def pad(self, x: _Value) -> None:
        pads = [0, 0, *(self.random.choice((0, 1)) for _ in range(2)), 0, self.random.choice((0, 2)), 0, 1]
        made = self.node("Pad", [x.name, self.constant(np.array(pads))])
        self.keep(made, x.channels + pads[5], x.height + pads[2], x.width + pads[3] + pads[7])

    def slice(self, x: _Value) -> None:
        step = self.random.choice((1, 2))
        if x.height < 3:
            return
        numbers = [self.constant(np.array([value])) for value in (1, x.height, 2, step)]
        self.keep(self.node("Slice", [x.name, *numbers]), x.channels, (x.height - 1 + step - 1) // step, x.width)

    def scale(self, x: _Value) -> None:
        kind = self.random.choice(("Mul", "Add", "Sub", "Div"))
        shape = self.random.choice(((1,), (x.channels, 1, 1)))
        made = self.node(kind, [x.name, self.floats(*shape, low=0.5, high=2.0)])
        self.keep(made, x.channels, x.height, x.width)

    def up(self, x: _Value) -> None:
        if max(x.height, x.width) > SIDE:
            return
        if self.random.random() < 0.5:
            scales = self.constant(np.array([1, 1, 2, 2], np.float32))
            made = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
            name = self.node("Resize", [x.name, "", scales], **made)
            self.keep(name, x.channels, 2 * x.height, 2 * x.width)
            return
        name = self.node("ConvTranspose", [x.name, self.floats(x.channels, 2, 2, 2)], strides=[2, 2])
        self.keep(name, 2, 2 * x.height, 2 * x.width)

    def classifier(self, x: _Value) -> None:
        if self.random.random() < 0.5:
            flat, size = self.node("Flatten", [self.node("GlobalAveragePool", [x.name])]), x.channels
        else:
            flat, size = self.node("Flatten", [x.name]), x.channels * x.height * x.width
        last = [flat, self.floats(size, 3), self.floats(3)]
        self.nodes.append(helper.make_node("Gemm", last, ["y"], name="Gemm_last"))
