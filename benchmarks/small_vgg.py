"""A small VGG for single spikes, trained from nothing on the CIFAR-10 images of the data pack.

    python benchmarks/small_vgg.py cifar10_train_20k.npz small_vgg.pth --minutes 10

Five convolutions with batch normalisation and average pooling, as the networks of Datta et al. (IJCNN 2021) pool.
Stochastic gradient descent, the rate along half a cosine, images mirrored and moved, in bfloat16; minutes are those of
the processor, of one thread. The image is x / 255 with nothing subtracted.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (32, 32, 64, 64, 128)
POOLED = (1, 3, 4)  # after these convolutions the picture is halved
RATE, BATCH, SHIFT = 0.05, 64, 4


def small_vgg() -> nn.Module:
    """3 x 32 x 32 images to 10 classes; 29 million multiplications."""
    layers: list[nn.Module] = []
    before = 3
    for index, width in enumerate(WIDTHS):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        if index in POOLED:
            layers.append(nn.AvgPool2d(2))
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * 16, 10))


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored at random, and moved by up to SHIFT pixels."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    moves = torch.randint(0, 2 * SHIFT + 1, (len(images), 2), generator=generator).tolist()
    wide = F.pad(images, (SHIFT,) * 4)
    return torch.stack([one[:, y : y + 32, x : x + 32] for one, (y, x) in zip(wide, moves, strict=True)])


def trained(images: Tensor, labels: Tensor, minutes: float, seed: int) -> nn.Module:
    """The network after so many minutes of the processor."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = small_vgg().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    start, step = time.process_time(), 0
    order = torch.randperm(len(images), generator=generator)
    while (done := (time.process_time() - start) / (60 * minutes)) < 1:
        at = step % (len(images) // BATCH)
        if at == 0:
            order = torch.randperm(len(images), generator=generator)
            print(f"{100 * done:3.0f} %: {step * BATCH / len(images):.1f} epochs", flush=True)
        chosen = order[at * BATCH : (at + 1) * BATCH]
        optimiser.param_groups[0]["lr"] = 0.5 * RATE * (1 + math.cos(math.pi * done)) * min(1.0, done / 0.1)
        some = varied(images[chosen].float().div(255), generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(some).float(), labels[chosen], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        step += 1
    print(f"{step * BATCH / len(images):.1f} epochs, last loss {float(loss.detach()):.3f}")
    return net.eval()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("images")
    asked.add_argument("out")
    asked.add_argument("--minutes", type=float, default=10.0)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    torch.set_num_threads(1)
    with np.load(given.images) as stored:
        images, labels = torch.from_numpy(stored["x"]).permute(0, 3, 1, 2), torch.from_numpy(stored["y"]).long()
    net = trained(images, labels, given.minutes, given.seed)
    torch.save(net.state_dict(), given.out)


if __name__ == "__main__":
    main()
