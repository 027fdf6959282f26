"""Small networks with GELU, SiLU and sigmoid for Fashion-MNIST: trained here, converted in four ways, and judged.

    python benchmarks/smooth_networks.py

Each is trained for six epochs on fashion_mnist_train_small, calibrated on 512 of its images, and judged on the first
2,000 test images: accuracy, agreement with the original, processor seconds of the conversion.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snnconvert

DATA = Path(os.environ.get("SNNCONVERT_DATA", Path(__file__).parents[2] / "shared" / "data"))
WAYS: tuple[dict[str, Any], ...] = (
    {"neuron": "if", "timesteps": 8},
    {"neuron": "if", "timesteps": 16},
    {"neuron": "ternary", "timesteps": 8},
    {"neuron": "graded", "levels": 15, "timesteps": 4},
)
FUNCTIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "silu": nn.SiLU, "sigmoid": nn.Sigmoid}


def images_of(name: str) -> tuple[Tensor, Tensor]:
    """Images in 0..1, (n, 1, 28, 28), and their labels."""
    with np.load(DATA / name) as stored:
        return torch.from_numpy(stored["x"]).float().view(-1, 1, 28, 28) / 255, torch.from_numpy(stored["y"]).long()


def network(function: type[nn.Module], kind: str) -> nn.Sequential:
    """A convolutional network, or one of dense layers."""
    if kind == "conv":
        first, second = nn.Conv2d(1, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)
        features = nn.Sequential(first, function(), second, function(), nn.Flatten(), nn.Linear(32 * 49, 64))
        return nn.Sequential(*features, function(), nn.Linear(64, 10))
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (784, 200, 200):
        layers += [nn.Linear(inputs, 200), function()]
    return nn.Sequential(*layers, nn.Linear(200, 10))


def trained(made: nn.Sequential, images: Tensor, labels: Tensor) -> nn.Sequential:
    """Six epochs of Adam."""
    adam = torch.optim.Adam(made.parameters(), 2e-3)
    for _ in range(6):
        for some in torch.randperm(len(images)).split(100):  # type: ignore[no-untyped-call]
            adam.zero_grad()
            F.cross_entropy(made(images[some]), labels[some]).backward()  # type: ignore[no-untyped-call]
            adam.step()
    return made.eval()


def main() -> None:
    """Print a row for every network and way."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = images_of("fashion_mnist_train_small.npz")
    test, right = (part[:2000] for part in images_of("fashion_mnist_test.npz"))
    print("| network | neuron | T | ANN % | SNN % | agreement % | processor s |\n|---|---|--:|--:|--:|--:|--:|")
    for name, function in FUNCTIONS.items():
        for kind in ("conv", "dense"):
            original = trained(network(function, kind), images, labels)
            with torch.no_grad():
                wanted = original(test).argmax(1)
            for way in WAYS:
                began = time.process_time()
                made = snnconvert.convert_model(original, calibration_data=images[:512], schedule="streaming", **way)
                seconds = time.process_time() - began
                found = made.snn.simulate(test).outputs[-1].argmax(1)
                pairs = ((wanted, right), (found, right), (found, wanted))
                shares = " | ".join(f"{100 * float((one == other).float().mean()):.2f}" for one, other in pairs)
                row = f"| {name}, {kind} | {way['neuron']} | {way['timesteps']} | {shares} | {seconds:.1f} |"
                print(row, flush=True)


if __name__ == "__main__":
    main()
