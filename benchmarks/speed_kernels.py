"""The kernels by themselves: when the event path pays, and where the time of a network goes."""

from __future__ import annotations

from typing import Any

import torch
from speed_timing import Row, Stopwatch, over
from torch import Tensor

from snnconvert.graph.kinds import Conv
from snnconvert.graph.types import Snn
from snnconvert.neurons import NEURONS
from snnconvert.simulate.kernels import Native, choose
from snnconvert.simulate.kernels.layout import dense_from, pack, tables_pay
from snnconvert.simulate.kernels.native import Convolution, Current, Membrane
from snnconvert.simulate.layer_engine import LayerEngine

# inputs, outputs, pixels across, kernel, groups
SHAPES = ((16, 16, 32, 3, 1), (32, 32, 16, 3, 1), (64, 64, 8, 3, 1), (64, 64, 28, 3, 1), (128, 128, 14, 3, 1),
          (256, 256, 7, 3, 1), (128, 128, 20, 1, 1), (512, 512, 7, 1, 1), (64, 64, 40, 3, 64))  # fmt: skip
DENSITIES = (0.01, 0.05, 0.1, 0.2, 0.5)
TIMESTEPS, BATCH = 16, 2


class Path:
    """One layer on random spikes: by lists of them, by tables, dense (torch's convolution, then the native neuron)."""

    def __init__(self, native: Native, shape: tuple[int, ...], density: float) -> None:
        inputs, outputs, size, kernel, groups = shape
        self.native, self.out = native, (outputs, size, size)
        weight = (torch.randn(outputs, inputs // groups, kernel, kernel) * 1024).round() / 1024
        pad = (kernel // 2,) * 2
        self.op = Conv(weight, torch.zeros(outputs), stride=(1, 1), padding=pad, dilation=(1, 1), groups=groups)
        packed, threshold = pack(self.op), torch.full((1, outputs), 5.0)
        assert packed is not None
        self.packed, self.membrane = packed, Membrane(NEURONS["if"], 1, 0, threshold, threshold / 2)
        spikes = (torch.rand(TIMESTEPS * BATCH, inputs, size, size) < density).to(torch.int8)
        self.spikes: Tensor = spikes.contiguous(memory_format=torch.channels_last)
        self.bits = native.condensed(self.spikes)
        outputs_in_all = TIMESTEPS * BATCH * size * size
        self.by_tables = tables_pay(packed, density, outputs_in_all)
        self.by_lists = density < dense_from(packed)

    def _run(self, term: Any) -> None:
        self.native.neurons([term], self.membrane, TIMESTEPS, BATCH, self.out)

    def lists(self) -> None:
        self._run(Convolution(self.bits, self.packed))

    def tables(self) -> None:
        self._run(Convolution(self.bits, self.packed, tables=True))

    def dense(self) -> None:
        self._run(Current(self.op(self.spikes.float()), False))

    def engine(self) -> None:
        """What the engine does at this density."""
        if self.by_tables:
            self.tables()
        else:
            self.lists() if self.by_lists else self.dense()


def spikes_against_dense(watch: Stopwatch, shapes: tuple[tuple[int, ...], ...]) -> dict[str, list[Row]]:
    """Time of each way to sum spikes, and of the way that the engine takes, over the dense path, by density."""
    native = choose()
    ways = ("lists", "tables", "engine")
    found: dict[str, list[Row]] = {f"{way}_over_dense": [] for way in ways}
    for shape in shapes if native is not None else ():
        inputs, outputs, size, kernel, groups = shape
        name = f"{inputs}->{outputs}, {kernel}x{kernel}, {size} px" + (", depthwise" if groups > 1 else "")
        for way in ways:
            found[f"{way}_over_dense"].append({"shape": name})
        for density in DENSITIES:
            assert native is not None
            path = Path(native, shape, density)
            seconds = watch.paired({"dense": path.dense, **{way: getattr(path, way) for way in ways}})
            for way in ways:
                found[f"{way}_over_dense"][-1][f"{density:g}"] = over(seconds, way, "dense")
    return found


def profile(watch: Stopwatch, snn: Snn, images: Tensor) -> dict[str, float]:
    """Shares of the time of one run: convolutions with shortcuts, neurons (update, emission, counts), all else.

    The neurons' share is the time of the same layer with nothing but a constant current: an upper bound where the
    update is fused with the convolution.
    """
    engine = LayerEngine(snn)
    if engine.spiking is None:
        return {}
    native, spent = engine.spiking.native, {"layers": 0.0, "neurons": 0.0, "made up": 0.0}
    plain = native.neurons

    def order(shape: tuple[int, ...]) -> torch.memory_format:
        return torch.channels_last if len(shape) == 3 else torch.contiguous_format

    def timed(terms: Any, membrane: Membrane, frames: int, batch: int, shape: tuple[int, ...]) -> Any:
        before = watch.now()
        nothing = [Current(torch.zeros(batch, *shape).contiguous(memory_format=order(shape)), True)]
        start = watch.now()
        result = plain(terms, membrane, frames, batch, shape)
        middle = watch.now()
        plain(nothing, membrane, frames, batch, shape)
        spent["made up"] += start - before
        spent["layers"] += middle - start
        spent["neurons"] += watch.now() - middle
        return result

    engine.run(images)
    native.neurons = timed  # type: ignore[method-assign]
    try:
        start = watch.now()
        engine.run(images)
        total = watch.now() - start - spent["neurons"] - spent["made up"]
    finally:
        native.neurons = plain  # type: ignore[method-assign]
    return {
        "weights and shortcuts": (spent["layers"] - spent["neurons"]) / total,
        "neurons": spent["neurons"] / total,
        "pools, dense layers, first layer, wiring, read-out": (total - spent["layers"]) / total,
    }
