"""What training costs: sparse backpropagation beside dense, and the memory of gradients of rates.

    python benchmarks/training.py sparse --width 0.01    # a perceptron of the data pack, T = 100
    python benchmarks/training.py memory                 # dsr at T = 4 and 20, and backpropagation through time

Accuracies are `snnconvert finetune` itself: benchmarks/training.md has the commands. Times are processor seconds of one
thread, the best of several; memory is what autograd keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accuracy import DATA
from torch import Tensor

import snnconvert
from snnconvert.graph.types import Snn
from snnconvert.train.methods.rates import represented
from snnconvert.train.rates import over_means, sent
from snnconvert.train.sparse import SparseBackward
from snnconvert.train.student import Student

MODEL = "mnist-net_256x2.onnx"


class Rectangle(torch.autograd.Function):
    """A spike, with a rectangle for its derivative."""

    @staticmethod
    def forward(ctx: Any, ratio: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(ratio)
        ctx.width = width
        return (ratio >= 0).to(ratio.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (ratio,) = ctx.saved_tensors
        return gradient * (ratio.abs() < ctx.width) / (2 * ctx.width), None


def plain(student: Student, images: Tensor, width: float) -> Tensor:
    """The same network as a loop over steps that autograd differentiates: what one writes without this package."""
    ops = [op for _, op in student.graph.named_modules() if hasattr(op, "weight")]
    sites, frames = list(student.sites.values()), student.schedule.frames
    membranes: list[Any] = [site.threshold.flatten() * site.initial.flatten() for site in sites]
    total: Any = 0.0
    for _ in range(frames):
        value = images.flatten(1)
        for index, site in enumerate(sites):
            theta = site.threshold.flatten().detach()
            u = membranes[index] + torch.nn.functional.linear(value, ops[index].weight, ops[index].bias)
            value = theta * Rectangle.apply(u / theta - 1, width)  # type: ignore[no-untyped-call]
            membranes[index] = u - value
        total = total + torch.nn.functional.linear(value, ops[-1].weight, ops[-1].bias)
    mean: Tensor = total / frames
    return mean


def measured(run: Callable[[], Tensor], repeats: int = 5) -> tuple[float, float, float]:
    """Processor seconds forward and backward, and MB kept between them."""
    best, kept = [float("inf")] * 2, 0
    for _ in range(repeats):
        seen: dict[int, int] = {}

        def pack(one: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
            return one

        start = time.process_time()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
            loss = run().square().sum()
        middle = time.process_time()
        loss.backward()  # type: ignore[no-untyped-call]
        best = [min(best[0], middle - start), min(best[1], time.process_time() - middle)]
        kept = sum(seen.values())
    return best[0], best[1], kept / 1e6


def sparse(width: float, batch: int) -> None:
    """Dense and sparse backpropagation on a real perceptron."""
    snn, images = converted(100)
    assert snn.calibrated is not None
    rows: dict[str, tuple[float, float, float]] = {}
    student = Student(snn.calibrated, snn.schedule, width=width)
    for site in student.sites.values():  # weights and biases learn
        site.growth, site.initial = site.growth.detach(), site.initial.detach()
    chosen = images[:batch]
    run = SparseBackward(student)
    rows["plain autograd"] = measured(lambda: plain(student, chosen, width))
    rows["fused neurons"] = measured(lambda: student(chosen)[0].mean(0))
    rows["sparse"] = measured(lambda: run(chosen)[0][0])
    print(f"{MODEL}, T = 100, {batch} images, surrogate {width:g}: {100 * run.share:.2f} % of the places are active")
    first = rows["plain autograd"]
    for name, (forward, backward, kept) in rows.items():
        print(
            f"{name:15} forward {forward:6.3f} s  backward {backward:6.3f} s ({first[1] / backward:5.1f} x)  "
            f"kept {kept:7.2f} MB ({100 * kept / first[2]:5.1f} %)"
        )


def memory() -> None:
    """What the backward pass needs, by T."""
    for frames in (4, 20):
        snn, images = converted(frames)
        assert snn.calibrated is not None
        student, chosen = Student(snn.calibrated, snn.schedule), images[:64]

        def rates(student: Student = student, chosen: Tensor = chosen) -> Tensor:
            means, _ = sent(student, chosen)
            return over_means(student, chosen, means, represented)[0]

        def through_time(student: Student = student, chosen: Tensor = chosen) -> Tensor:
            return student(chosen)[0].mean(0)

        for name, run in (("dsr", rates), ("through time", through_time)):
            print(f"T = {frames:2}: {name:13} {measured(run, 1)[2]:7.3f} MB")


def converted(frames: int) -> tuple[Snn, Tensor]:
    """A network of the pack, and training images."""
    stored = np.load(DATA / "mnist_train_small.npz")
    made = snnconvert.convert_model(
        str(DATA / "models" / MODEL),
        calibration_data=(stored["x"][..., None].reshape(-1, 1, 784, 1), stored["y"]),
        calibration="mse",
        scale=255,
        schedule="streaming",
        timesteps=frames,
        read_from=0,
        limit=100,
    ).snn
    return replace(made), made.prepare(stored["x"][:512].reshape(-1, 1, 784, 1))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("what", choices=("sparse", "memory"))
    asked.add_argument("--width", type=float, default=0.01)
    asked.add_argument("--images", type=int, default=64)
    given = asked.parse_args()
    torch.set_num_threads(1)
    if given.what == "sparse":
        sparse(given.width, given.images)
    else:
        memory()


if __name__ == "__main__":
    main()
