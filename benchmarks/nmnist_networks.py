"""The network that watches event cameras: trained on frames of accumulated events, exported to ONNX."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from digits_networks import OnnxWriter
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

SCALE = 4.0
# a network that sees recordings of any length from here on; what came by then counts as much as a whole recording
SHORTEST = 1 / 3
DROPPED_EVENTS = 0.3
SHIFT, TURN, ZOOM = 3.0, 0.2, 0.12  # pixels, radians, share
BATCH = 50


class EventCnn(nn.Module):
    """Three strided convolutions with batch norm and two dense layers; 34 x 34 places of two polarities in.

    Args:
        width: channels of the first convolution.
        scale: by which counts of events are divided; `Preprocessing(scale=...)` for whoever runs the ONNX file.
    """

    def __init__(self, width: int = 16, scale: float = SCALE) -> None:
        super().__init__()
        self.scale = scale
        widths = (2, width, 2 * width, 2 * width)
        kernels = (5, 3, 3)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False)
            for inputs, outputs, kernel in zip(widths[:-1], widths[1:], kernels, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for outputs in widths[1:])
        self.dense, self.classifier = nn.Linear(2 * width * 25, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 10) of counts of events (n, 2, 34, 34)."""
        x = x / self.scale
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = torch.relu(norm(convolution(x)))
        x = F.dropout(x.flatten(1), 0.4, self.training)
        x = F.dropout(torch.relu(self.dense(x)), 0.2, self.training)
        logits: Tensor = self.classifier(x)
        return logits

    def onnx(self) -> onnx.ModelProto:
        """Of counts that have been divided already."""
        writer, x = OnnxWriter(), "image"
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True), 1):
            x = writer.conv(x, convolution, f"conv{index}")
            x = writer.relu(writer.batch_norm(x, norm, f"norm{index}"), f"relu{index}")
        x = writer.relu(writer.linear(writer.flatten(x, "flatten"), self.dense, "dense"), "relu_dense")
        return writer.model(writer.linear(x, self.classifier, "classifier"), "nmnist-cnn", (2, 34, 34))


def train(network: nn.Module, slices: NDArray[np.uint8], labels: NDArray[np.int64], epochs: int, seed: int = 0) -> None:
    """AdamW with a one-cycle rate.

    Recordings are seen from their beginning to some moment, scaled to a whole one, with events left out, shifted,
    turned and zoomed.

    Args:
        network: trained in place.
        slices: events in equal slices of time, (n, slices, 2, height, width).
        labels: (n,).
        epochs: how often all recordings are seen.
        seed: of everything that is drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    sums = torch.from_numpy(slices.astype(np.int16).cumsum(1, dtype=np.int16))
    wanted, count = torch.from_numpy(labels), sums.shape[1]
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=2e-2)
    steps = epochs * (len(sums) // BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    network.train()
    torch.manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(sums), generator=generator)
        for start in range(0, len(sums) - BATCH + 1, BATCH):
            part = order[start : start + BATCH]
            ends = torch.randint(int(count * SHORTEST), count + 1, (len(part),), generator=generator)
            ends[torch.rand(len(part), generator=generator) < 0.5] = count
            seen = sums[part, ends - 1].float() * (count / ends).view(-1, 1, 1, 1)
            loss = F.cross_entropy(network(_augmented(seen, generator)), wanted[part], label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            rate.step()
    network.eval()


def _augmented(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Frames of events, (n, 2, height, width), of which some events are missing, moved a little."""
    count, half = len(frames), frames.shape[-1] / 2
    kept = 1 - DROPPED_EVENTS * torch.rand((count, 1, 1, 1), generator=generator)
    noise = torch.randn(frames.shape, generator=generator) * (frames * kept * (1 - kept)).sqrt()
    thinned = (frames * kept + noise).clamp(min=0) / kept
    angle, shear = (torch.empty(count).uniform_(-TURN, TURN, generator=generator) for _ in range(2))
    zoom = 1 + torch.empty(count, 2).uniform_(-ZOOM, ZOOM, generator=generator)
    shift = torch.empty(count, 2).uniform_(-SHIFT / half, SHIFT / half, generator=generator)
    rows = [
        torch.stack([angle.cos() * zoom[:, 0], -angle.sin() + shear, shift[:, 0]], 1),
        torch.stack([angle.sin(), angle.cos() * zoom[:, 1], shift[:, 1]], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(frames.shape), align_corners=False)
    return F.grid_sample(thinned, grid, align_corners=False)
