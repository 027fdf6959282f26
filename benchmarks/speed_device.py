"""Speed on a CUDA device: the engine with and without its kernel for neurons, beside T passes of torch's ANN there.

Written without such a device: it has run with the CPU in its place only.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from speed_contestants import MOST_IMAGES, converted, network
from speed_timing import Row, Stopwatch, over
from torch import Tensor

from snnconvert.graph.types import Snn
from snnconvert.simulate.kernels import VARIABLE
from snnconvert.simulate.layer_engine import LayerEngine

TIMESTEPS = 32
BATCHES = (1, 8, 64, 256)


def with_torch_kernels(snn: Snn, device: str) -> LayerEngine:
    """An engine that computes neurons with torch."""
    usual = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "torch"
    try:
        return LayerEngine(snn, device)
    finally:
        del os.environ[VARIABLE]
        if usual is not None:
            os.environ[VARIABLE] = usual


def finished(run: Callable[[Tensor], Any], images: Tensor) -> Callable[[], None]:
    """`run(images)` until the device is done with it."""

    def whole() -> None:
        run(images)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)

    return whole


def on_device(watch: Stopwatch, data: Path, names: Sequence[str], device: str) -> Iterator[Row]:
    """One row per network and batch size; the ANN runs as torch runs it by default, which allows TF32."""
    for name in names:
        ann, images = network(data, name)
        snn = converted(ann, images, TIMESTEPS)
        dense = ann.graph.to(device=device, memory_format=torch.channels_last)
        ours, plain = LayerEngine(snn, device), with_torch_kernels(snn, device)
        for batch in BATCHES:
            some = images.repeat(-(-batch // MOST_IMAGES), 1, 1, 1)[:batch].to(device)
            seconds = watch.paired(
                {
                    "ours": finished(ours.run, some),
                    "torch kernels": finished(plain.run, some),
                    "ann": finished(dense, some.contiguous(memory_format=torch.channels_last)),
                }
            )
            row: Row = {"network": name, "T": TIMESTEPS, "batch": batch}
            row["images_per_second"] = batch / statistics.median(seconds["ours"])
            row["with torch kernels"] = batch / statistics.median(seconds["torch kernels"])
            row["time over T x torch ANN"] = over(seconds, "ours", "ann", TIMESTEPS)
            yield row | {"notes": "; ".join(ours.notes)}
