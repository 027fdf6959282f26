"""Small networks in the dialect that every rewrite and every engine is tested on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnconvert.convert.pytorch import import_module
from snnconvert.graph.types import Ann


def awake(module: nn.Module, shape: tuple[int, ...], seed: int) -> nn.Module:
    """Random weights, with batch-norm statistics set by a few forward passes so that activations are alive."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None
            with torch.no_grad():
                layer.weight.copy_(torch.rand(layer.weight.shape, generator=generator) + 0.5)
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator) * 0.3)
    module.train()
    with torch.no_grad():
        for _ in range(4):
            module(torch.rand(16, *shape, generator=generator))
    return module.eval()


class Plain(nn.Module):
    """Convolutions with max and average pooling before and after activations, batch norm before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, stride=2, groups=2), nn.BatchNorm2d(8)
        self.linear1, self.bn3, self.linear2 = nn.Linear(8, 12), nn.BatchNorm1d(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.bn1(self.conv1(x)), 2))
        x = F.avg_pool2d(self.bn2(F.relu(self.conv2(x))), 3)
        return self.linear2(self.bn3(F.relu6(self.linear1(x.flatten(1)))))


class Residual(nn.Module):
    """Identity, convolution and option-A shortcuts; one shared ReLU module."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.stem, self.bn = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.d, self.e, self.f = nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1, 2)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.stem(x)))
        x = self.relu(self.b(self.relu(self.a(x))) + x)
        x = self.relu(self.e(self.relu(self.d(x))) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        x = self.relu(self.f(x))
        return self.linear(x.mean((2, 3)))


class PreActivation(nn.Module):
    """Sums without an activation that feed further sums."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4) for _ in range(4)])
        self.convs = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1) for _ in range(4)])
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for index in (0, 2):
            y = self.convs[index](F.relu(self.norms[index](x)))
            x = x + self.convs[index + 1](F.relu(self.norms[index + 1](y)))
        return self.linear(F.relu(x).mean((2, 3)))


class Mobile(nn.Module):
    """Depthwise convolutions, ReLU6, a linear bottleneck and a channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(2, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.project, self.expand = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        x = self.project(F.relu6(self.depthwise(x)))
        x = F.relu6(self.expand(x) * 2)
        x = x.reshape(x.shape[0], 2, 4, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        return self.linear(x.mean((2, 3)))


class Dense(nn.Module):
    """Concatenation of activations, leaky rectifier, transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.up = nn.ConvTranspose2d(4, 3, 2, 2)
        self.linear = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = torch.cat([x, F.relu(self.b(x))], 1)
        x = F.leaky_relu(self.c(x), 0.1)
        return self.linear(F.relu(self.up(x)).mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    kind.__name__: kind for kind in (Plain, Residual, PreActivation, Mobile, Dense)
}
SHAPE = (2, 14, 14)


def network(name: str, seed: int = 0) -> Ann:
    """One of NETWORKS, imported."""
    torch.manual_seed(seed)
    return import_module(awake(NETWORKS[name](), SHAPE, seed), SHAPE, name=name)


def samples(count: int, seed: int = 7) -> Tensor:
    """Seeded inputs for the networks."""
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
