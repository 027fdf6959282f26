"""The kernels by themselves: when the event path pays, and where the time of a network goes."""

from __future__ import annotations

from typing import Any

import torch
from speed_timing import Row, Stopwatch, over
from torch import Tensor

from snnconvert.graph.ops import Conv
from snnconvert.graph.types import Snn
from snnconvert.simulate.kernels import Native, choose
from snnconvert.simulate.kernels.layout import dense_from, pack
from snnconvert.simulate.kernels.native import Convolution, Current, Membrane
from snnconvert.simulate.layer_engine import LayerEngine

# inputs, outputs, pixels across, kernel, groups
SHAPES = ((16, 16, 32, 3, 1), (32, 32, 16, 3, 1), (64, 64, 8, 3, 1), (64, 64, 28, 3, 1), (128, 128, 14, 3, 1),
          (256, 256, 7, 3, 1), (128, 128, 20, 1, 1), (512, 512, 7, 1, 1), (64, 64, 40, 3, 64))  # fmt: skip
DENSITIES = (0.01, 0.05, 0.1, 0.2, 0.5)
TIMESTEPS, BATCH = 16, 2


class Path:
    """One layer on random spikes: by events, dense (torch's convolution, then the native neuron), or as it comes."""

    def __init__(self, native: Native, shape: tuple[int, ...], density: float) -> None:
        inputs, outputs, size, kernel, groups = shape
        self.native, self.out = native, (outputs, size, size)
        weight = (torch.randn(outputs, inputs // groups, kernel, kernel) * 1024).round() / 1024
        pad = (kernel // 2,) * 2
        self.op = Conv(weight, torch.zeros(outputs), stride=(1, 1), padding=pad, dilation=(1, 1), groups=groups)
        packed, threshold = pack(self.op), torch.full((1, outputs), 5.0)
        assert packed is not None
        self.packed, self.membrane = packed, Membrane("if", 1, 0, threshold, threshold / 2)
        spikes = (torch.rand(TIMESTEPS * BATCH, inputs, size, size) < density).to(torch.int8)
        self.spikes: Tensor = spikes.contiguous(memory_format=torch.channels_last)
        self.by_events = density < dense_from(packed)

    def _run(self, term: Any) -> None:
        self.native.neurons([term], self.membrane, TIMESTEPS, BATCH, self.out)

    def event(self) -> None:
        self._run(Convolution(self.spikes, self.packed, True))

    def dense(self) -> None:
        self._run(Current(self.op(self.spikes.float()), False))

    def engine(self) -> None:
        """What the engine does at this density."""
        self.event() if self.by_events else self.dense()


def event_against_dense(watch: Stopwatch, shapes: tuple[tuple[int, ...], ...]) -> tuple[list[Row], list[Row]]:
    """Time of the event path, and of the path that the engine takes, over the dense path by density."""
    native = choose()
    events: list[Row] = []
    taken: list[Row] = []
    for shape in shapes if native is not None else ():
        inputs, outputs, size, kernel, groups = shape
        name = f"{inputs}->{outputs}, {kernel}x{kernel}, {size} px" + (", depthwise" if groups > 1 else "")
        events.append({"shape": name})
        taken.append({"shape": name})
        for density in DENSITIES:
            assert native is not None
            path = Path(native, shape, density)
            events[-1]["dense_from"] = dense_from(path.packed)
            seconds = watch.paired({"event": path.event, "dense": path.dense, "engine": path.engine})
            events[-1][f"{density:g}"] = over(seconds, "event", "dense")
            taken[-1][f"{density:g}"] = over(seconds, "engine", "dense")
    return events, taken


def profile(watch: Stopwatch, snn: Snn, images: Tensor) -> dict[str, float]:
    """Shares of the time of one run: convolutions with shortcuts, neurons (update, emission, counts), all else.

    The neurons' share is the time of the same layer with nothing but a constant current: an upper bound where the
    update is fused with the convolution.
    """
    engine = LayerEngine(snn)
    if engine.native is None:
        return {}
    native, spent = engine.native, {"layers": 0.0, "neurons": 0.0}
    plain = native.neurons

    def timed(terms: Any, membrane: Membrane, frames: int, batch: int, shape: tuple[int, ...]) -> Any:
        start = watch.now()
        result = plain(terms, membrane, frames, batch, shape)
        middle = watch.now()
        plain([Current(torch.zeros(batch, *shape), True)], membrane, frames, batch, shape)
        spent["layers"] += middle - start
        spent["neurons"] += watch.now() - middle
        return result

    engine.run(images)
    native.neurons = timed  # type: ignore[method-assign]
    try:
        start = watch.now()
        engine.run(images)
        total = watch.now() - start - spent["neurons"]
    finally:
        native.neurons = plain  # type: ignore[method-assign]
    return {
        "weights and shortcuts": (spent["layers"] - spent["neurons"]) / total,
        "neurons": spent["neurons"] / total,
        "pools, dense layers, first layer, wiring, read-out": (total - spent["layers"]) / total,
    }
