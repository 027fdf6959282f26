"""The architecture of convex_adversarial_fashion_mnist.pth (see the data pack's README)."""

from __future__ import annotations

from torch import nn


def fashion_cnn() -> nn.Module:
    """Two strided convolutions and two dense layers, 28 x 28 grey images to 10 classes."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
