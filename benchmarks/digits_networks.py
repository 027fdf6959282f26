"""The two bundled digit networks as torch modules, and their ONNX graphs written node by node.

The graphs are written with `onnx.helper`, so no exporter is needed and batch norm stays a node of its own: converting
the bundled models then exercises its folding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

OPSET = 17


class OnnxWriter:
    """Collects ONNX nodes; every method returns the name of the new value."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def conv(self, x: str, layer: nn.Conv2d, name: str) -> str:
        inputs = [x, self._weight(layer.weight, f"{name}.weight")]
        if layer.bias is not None:
            inputs.append(self._weight(layer.bias, f"{name}.bias"))
        pad = [int(side) for side in layer.padding]
        return self._node(
            "Conv",
            inputs,
            name,
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=pad + pad,
            dilations=[1, 1],
            group=1,
        )

    def batch_norm(self, x: str, layer: nn.BatchNorm2d, name: str) -> str:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        tensors = {
            "weight": layer.weight,
            "bias": layer.bias,
            "running_mean": layer.running_mean,
            "running_var": layer.running_var,
        }
        inputs = [x, *(self._weight(value, f"{name}.{part}") for part, value in tensors.items())]
        return self._node("BatchNormalization", inputs, name, epsilon=layer.eps)

    def relu(self, x: str, name: str) -> str:
        return self._node("Relu", [x], name)

    def add(self, a: str, b: str, name: str) -> str:
        return self._node("Add", [a, b], name)

    def average_pool(self, x: str, name: str) -> str:
        return self._node("AveragePool", [x], name, kernel_shape=[2, 2], strides=[2, 2])

    def global_average_pool(self, x: str, name: str) -> str:
        return self._node("GlobalAveragePool", [x], name)

    def flatten(self, x: str, name: str) -> str:
        return self._node("Flatten", [x], name, axis=1)

    def linear(self, x: str, layer: nn.Linear, name: str) -> str:
        inputs = [x, self._weight(layer.weight, f"{name}.weight"), self._weight(layer.bias, f"{name}.bias")]
        return self._node("Gemm", inputs, name, alpha=1.0, beta=1.0, transB=1)

    def model(self, output: str, name: str, sample: tuple[int, ...] = (1, 8, 8)) -> onnx.ModelProto:
        """The checked model with input "image" (N, *sample) and output "logits" (N, 10)."""
        self.nodes[-1].output[0] = "logits"
        assert self.nodes[-1].name + "_out" == output
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *sample])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
            self.weights,
        )
        model = helper.make_model(
            graph, producer_name="snnconvert", ir_version=8, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _weight(self, value: Tensor, name: str) -> str:
        self.weights.append(numpy_helper.from_array(value.detach().numpy().astype(np.float32), name))
        return name

    def _node(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"


class DigitsResNet(nn.Module):
    """Stem, one plain and one downsampling residual block: five activations deep."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem, self.stem_norm = _conv(1, width), nn.BatchNorm2d(width)
        self.block1 = ResidualBlock(width, width, stride=1)
        self.block2 = ResidualBlock(width, 2 * width, stride=2)
        self.classifier = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        logits: Tensor = self.classifier(self.block2(self.block1(x)).mean((2, 3)))
        return logits

    def onnx(self) -> onnx.ModelProto:
        writer = OnnxWriter()
        x = writer.batch_norm(writer.conv("image", self.stem, "stem.conv"), self.stem_norm, "stem.norm")
        x = writer.relu(x, "stem.relu")
        x = self.block1.write(writer, x, "block1")
        x = self.block2.write(writer, x, "block2")
        x = writer.flatten(writer.global_average_pool(x, "pool"), "flatten")
        return writer.model(writer.linear(x, self.classifier, "classifier"), "digits-resnet")


class ResidualBlock(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)); the shortcut is a 1 x 1 convolution where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return torch.relu(y + (x if self.shortcut is None else self.shortcut_norm(self.shortcut(x))))

    def write(self, writer: OnnxWriter, x: str, name: str) -> str:
        y = writer.batch_norm(writer.conv(x, self.conv1, f"{name}.conv1"), self.norm1, f"{name}.norm1")
        y = writer.conv(writer.relu(y, f"{name}.relu1"), self.conv2, f"{name}.conv2")
        y = writer.batch_norm(y, self.norm2, f"{name}.norm2")
        if self.shortcut is not None:
            x = writer.conv(x, self.shortcut, f"{name}.shortcut")
            x = writer.batch_norm(x, self.shortcut_norm, f"{name}.shortcut_norm")
        return writer.relu(writer.add(y, x, f"{name}.add"), f"{name}.relu2")


class DigitsCnn(nn.Module):
    """Three convolutions with biases, two average pools, two dense layers: four activations deep."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.dense = nn.Linear(8 * width, 4 * width)
        self.classifier = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        x = F.avg_pool2d(torch.relu(self.conv2(x)), 2)
        x = F.avg_pool2d(torch.relu(self.conv3(x)), 2)
        logits: Tensor = self.classifier(torch.relu(self.dense(x.flatten(1))))
        return logits

    def onnx(self) -> onnx.ModelProto:
        writer = OnnxWriter()
        x = writer.relu(writer.conv("image", self.conv1, "conv1"), "relu1")
        x = writer.average_pool(writer.relu(writer.conv(x, self.conv2, "conv2"), "relu2"), "pool1")
        x = writer.average_pool(writer.relu(writer.conv(x, self.conv3, "conv3"), "relu3"), "pool2")
        x = writer.relu(writer.linear(writer.flatten(x, "flatten"), self.dense, "dense"), "relu4")
        return writer.model(writer.linear(x, self.classifier, "classifier"), "digits-cnn")


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
