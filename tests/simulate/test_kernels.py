"""Native kernels, torch path and step engine agree bit for bit on random networks of all patterns that kernels know."""

from __future__ import annotations

import math
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx

from snnconvert.cli import main as cli
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import Builder
from snnconvert.graph.kinds import Add, Concat, Conv, Linear, MaxPool, Neuron, Op, Pad, Reshape, Scale, Slice, SumPool
from snnconvert.graph.schedule import Streaming, Wait
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Origin, Snn, Source
from snnconvert.neurons import NEURONS
from snnconvert.simulate import kernels as kernels_package
from snnconvert.simulate.kernels import layout, native_available
from snnconvert.simulate.kernels.native import INSTRUCTIONS
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine
from tests.engines import assert_equal, engine, levels_of

needs_native = pytest.mark.skipif(not native_available(), reason="the native kernels were not built")
CHANNELS = (1, 3, 5, 8, 16, 17, 33, 48, 70)


@dataclass
class Network:
    """Draws one network; thresholds are arbitrary floats.

    Weights are multiples of 1/64, small enough for the integer kernels, or of 1/1024; sums are exact in any order.
    """

    rng: random.Random
    model: str
    builder: Builder = field(init=False)
    names: int = 0
    finest: int = 64

    def __post_init__(self) -> None:
        self.finest = self.rng.choice((64, 1024))
        shape = (self.rng.choice((1, 3)), self.rng.randint(6, 9), self.rng.randint(6, 9))
        self.builder = Builder({"input": torch.zeros(2, *shape)})

    def call(self, op: Op, *inputs: fx.Node) -> fx.Node:
        self.names += 1
        return self.builder.call(op, *inputs, origin=Origin(f"{type(op).__name__.lower()}_{self.names}", "test"))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.rng.randrange(2**31)))

    def dyadic(self, *shape: int, fan_in: int = 1) -> Tensor:
        return (self.normal(*shape) * self.finest * (2 / fan_in) ** 0.5).round() / self.finest

    def conv(self, x: fx.Node, outputs: int | None = None, *, plain: bool = False) -> fx.Node:
        inputs, height, width = x.meta["shape"]
        outputs = outputs or self.rng.choice(CHANNELS)
        kernel = (1, 1) if plain else (self.rng.choice((1, 2, 3)), self.rng.choice((1, 3, 5)))
        groups = 1
        if not plain and self.rng.random() < 0.4:
            groups = self.rng.choice([g for g in range(1, inputs + 1) if inputs % g == 0])
            outputs = groups * self.rng.choice((1, 1, 2, 9))
        weight = self.dyadic(outputs, inputs // groups, *kernel, fan_in=inputs // groups * kernel[0] * kernel[1])
        bias = self.dyadic(outputs) / 4 if self.rng.random() < 0.7 else None
        stride, padding, dilation = (1, 1), (0, 0), (1, 1)
        if not plain:
            stride = (self.rng.choice((1, 1, 2)), self.rng.choice((1, 1, 2)))
            dilation = (self.rng.choice((1, 1, 2)), self.rng.choice((1, 1, 2)))
            least = [max(0, (dilation[i] * (kernel[i] - 1) + 2 - (height, width)[i]) // 2) for i in range(2)]
            padding = (self.rng.randint(least[0], least[0] + 2), self.rng.randint(least[1], least[1] + 2))
        return self.call(Conv(weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups), x)

    def neuron(self, x: fx.Node, model: str | None = None) -> fx.Node:
        shape = x.meta["shape"]
        size = self.rng.choice(((), (shape[0], *([1] * (len(shape) - 1))), shape))
        threshold = self.normal(*size).abs() + 0.3
        model = model or self.model
        levels = self.rng.choice(levels_of(NEURONS[model]))
        return self.call(Neuron(threshold, threshold / 2, model=model, levels=levels), x)

    def amplified(self, x: fx.Node) -> fx.Node:
        return self.call(Scale(self.normal(x.meta["shape"][0], 1, 1).abs()), x)

    def joined(self, x: fx.Node) -> fx.Node:
        """A residual join: of spikes sent round a convolution, of two convolutions, or of sums of them."""
        channels, height, width = x.meta["shape"]
        kind = self.rng.choice(("identity", "option_a", "projection", "nested"))
        if kind == "identity":
            return self.call(Add(), self.amplified(x), self.conv(x, channels, plain=True))
        if kind == "option_a":
            half = self.call(Slice(dim=3, start=0, stop=width, step=2), x)
            half = self.call(Slice(dim=2, start=0, stop=height, step=2), half)
            wider = self.call(Pad(pads=(0, 0, 0, 0, 1, 2)), half)
            main = self.call(Slice(dim=2, start=0, stop=height, step=2), x)
            main = self.conv(self.call(Slice(dim=3, start=0, stop=width, step=2), main), channels + 3, plain=True)
            return self.call(Add(), main, self.amplified(wider))
        first, second = self.conv(x, 19, plain=True), self.conv(x, 19, plain=True)
        if kind == "projection":
            return self.call(Add(), first, second)
        inner = self.call(Add(), first, second, self.conv(x, 19, plain=True))
        left = self.conv(x, 19, plain=True)
        if self.rng.random() < 0.5:
            left = self.call(Add(), left, self.conv(x, 19, plain=True))
        return self.call(Add(), left, inner)

    def block(self, x: fx.Node) -> fx.Node:
        size = min(x.meta["shape"][1:])
        kind = self.rng.choice(("conv", "conv", "join", "max", "sum", "concat"))
        if kind == "join":
            return self.neuron(self.joined(x))
        if kind == "concat":
            return self.neuron(self.conv(self.call(Concat(dim=1), x, x)))
        if kind == "max" and size >= 3:
            dilation = self.rng.choice(((1, 1), (1, 2))) if size >= 6 else (1, 1)
            geometry = {"kernel": (2, 3), "stride": (2, 1), "padding": (1, 1), "dilation": dilation}
            return self.neuron(self.conv(self.call(MaxPool(**geometry, ceil_mode=self.rng.random() < 0.3), x)))
        if kind == "sum" and size >= 3:
            x = self.call(SumPool(kernel=(2, 3), stride=(2, 2), padding=self.rng.choice(((0, 0), (1, 1)))), x)
        return self.neuron(self.conv(x))

    def finished(self, schedule: str, timesteps: int, wait: int) -> Snn:
        x = self.neuron(self.conv(self.builder.inputs["input"]))
        for _ in range(self.rng.randint(1, 3)):
            x = self.block(x)
        features = int(torch.tensor(x.meta["shape"]).prod())
        if self.rng.random() < 0.5:
            x = self.call(Reshape(shape=(features,)), x)
            x = self.neuron(self.call(Linear(self.dyadic(20, features, fan_in=features), self.dyadic(20)), x))
        else:  # a linear layer on every pixel
            channels = x.meta["shape"][0]
            x = self.call(Reshape(shape=(features // channels, channels)), x)
            x = self.neuron(self.call(Linear(self.dyadic(20, channels, fan_in=channels)), x))
            x = self.call(Reshape(shape=(features // channels * 20,)), x)
        x = self.call(Linear(self.dyadic(7, x.meta["shape"][0])), x)
        graph = self.builder.finish([x])
        depth = max(site_depths(graph).values())
        total = timesteps + (depth * wait if schedule == "wait" else 0)
        shape = tuple(self.builder.inputs["input"].meta["shape"])
        timing = Wait(total, depth, wait=wait) if schedule == "wait" else Streaming(total, depth)
        return Snn(graph, timing, shape, ("output",), Source("random", "", "", "test"), {}, {})


def network(seed: int, model: str, schedule: str = "streaming", timesteps: int = 6, wait: int = 2) -> Snn:
    return Network(random.Random(seed), model).finished(schedule, timesteps, wait)


def images_for(snn: Snn, count: int, seed: int = 0) -> Tensor:
    drawn = torch.randn((count, *snn.input_shape), generator=torch.Generator().manual_seed(seed))
    return (drawn * 8).round() / 4


@pytest.mark.parametrize("model", NEURONS)
@pytest.mark.parametrize(("schedule", "seed"), [("streaming", 1), ("streaming", 2), ("wait", 3)])
def test_torch_path_equals_oracle(model: str, schedule: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    snn = network(seed, model, schedule)
    images = images_for(snn, 2)
    seen = engine(snn, monkeypatch, "torch").run(images)
    assert_equal(seen, StepEngine(snn).run(images))
    assert any(int(counts.sum()) for counts in seen.spikes.values())


@needs_native
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**20),
    model=st.sampled_from(list(NEURONS)),
    schedule=st.sampled_from(["streaming", "streaming", "wait"]),
    instructions=st.sampled_from(INSTRUCTIONS),
    count=st.integers(1, 3),
    tables=st.booleans(),
)
def test_native_equals_oracle(  # noqa: PLR0917
    seed: int, model: str, schedule: str, instructions: str, count: int, tables: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "dense_from", lambda _: 2.0)  # always by spikes
    monkeypatch.setattr(layout, "tables_pay", lambda *_: tables)
    snn = network(seed, model, schedule)
    images = images_for(snn, count, seed)
    native = engine(snn, monkeypatch, "native")
    assert native.spiking is not None
    native.spiking.native = native.spiking.native.limited_to(instructions)
    assert_equal(native.run(images), StepEngine(snn).run(images))


@needs_native
@pytest.mark.parametrize("model", ["if", "graded"])
def test_batch_size_and_threads_do_not_matter(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snn = network(11, model)
    images, native = images_for(snn, 5), engine(snn, monkeypatch, "native")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = native.run(images)
        torch.set_num_threads(2)
        assert_equal(native.run(images), whole)
    finally:
        torch.set_num_threads(before)
    parts = [native.run(images[i : i + 1]) for i in range(5)]
    assert torch.equal(torch.cat([part.outputs[0] for part in parts], 1), whole.outputs[0])
    for name, counts in whole.spikes.items():
        assert torch.equal(torch.stack([part.spikes[name] for part in parts]).sum(0), counts)


@needs_native
@pytest.mark.parametrize("groups", [1, 4])
def test_one_dimensional_convolutions(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Network(random.Random(groups), "if")
    drawn.builder = Builder({"input": torch.zeros(2, 4, 23)})
    x = drawn.builder.inputs["input"]
    for inputs, outputs, stride in ((4, 20, 1), (20, 12, 2), (12, 12, 1)):
        weight = drawn.dyadic(outputs, inputs // groups, 3, fan_in=3 * inputs // groups)
        geometry = {"stride": (stride,), "padding": (2,), "dilation": (2,), "groups": groups}
        x = drawn.neuron(drawn.call(Conv(weight, drawn.dyadic(outputs) / 4, **geometry), x))
    x = drawn.call(Reshape(shape=(math.prod(x.meta["shape"]),)), x)
    graph = drawn.builder.finish([drawn.call(Linear(drawn.dyadic(7, x.meta["shape"][0])), x)])
    schedule = Streaming(6, max(site_depths(graph).values()))
    snn = Snn(graph, schedule, (4, 23), ("output",), Source("random", "", "", "test"), {}, {})
    images, native = images_for(snn, 3), engine(snn, monkeypatch, "native")
    monkeypatch.setattr(layout, "dense_from", lambda _: 2.0)
    assert native.spiking is not None
    seen, plain = [], native.spiking.native.currents
    monkeypatch.setattr(native.spiking.native, "currents", lambda *given: seen.append(given) or plain(*given))
    assert_equal(native.run(images), StepEngine(snn).run(images))
    assert len(seen) == 2 + 1  # and the read-out


@needs_native
def test_dense_and_event_path_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    snn = network(5, "if")
    images, native = images_for(snn, 2), engine(snn, monkeypatch, "native")
    monkeypatch.setattr(layout, "dense_from", lambda _: 2.0)
    by_events = native.run(images)
    monkeypatch.setattr(layout, "dense_from", lambda _: 0.0)
    monkeypatch.setattr(layout, "tables_pay", lambda *_: False)
    assert_equal(native.run(images), by_events)


@needs_native
def test_probe_sees_the_same_spikes(monkeypatch: pytest.MonkeyPatch) -> None:
    snn = network(7, "signed")
    images = images_for(snn, 2)
    seen: dict[str, dict[str, Tensor]] = {"native": {}, "torch": {}}
    for kernels, found in seen.items():
        engine(snn, monkeypatch, kernels).run(images, lambda name, frames, found=found: found.update({name: frames}))
    assert seen["native"].keys() == seen["torch"].keys()
    for name, frames in seen["native"].items():
        assert frames.shape[:2] == (6, 2)
        assert torch.equal(frames.double(), seen["torch"][name].double())


def test_a_network_with_more_summands_than_the_kernel_takes() -> None:
    drawn = Network(random.Random(3), "if")
    x = drawn.neuron(drawn.conv(drawn.builder.inputs["input"], 6))
    total = drawn.call(Add(), *(drawn.conv(x, 6, plain=True) for _ in range(11)))
    graph = drawn.builder.finish([drawn.call(Reshape(shape=(-1,)), drawn.conv(drawn.neuron(total), 6, plain=True))])
    shape = tuple(drawn.builder.inputs["input"].meta["shape"])
    snn = Snn(graph, Streaming(5, 2), shape, ("output",), Source("random", "", "", "test"), {}, {})
    images = images_for(snn, 2)
    assert_equal(LayerEngine(snn).run(images), StepEngine(snn).run(images))


def test_kernels_are_chosen_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    snn = network(1, "if")
    assert engine(snn, monkeypatch, "torch").spiking is None
    with pytest.raises(OptionError) as caught:
        engine(snn, monkeypatch, "fast")
    assert "native or torch" in caught.value.hint
    monkeypatch.setattr(kernels_package, "load", lambda: None)
    with pytest.raises(OptionError) as caught:
        engine(snn, monkeypatch, "native")
    assert "compiler" in caught.value.hint
    monkeypatch.delenv("SNNCONVERT_KERNELS", raising=False)
    assert LayerEngine(snn).spiking is None


def test_a_command_says_that_native_kernels_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["snnconvert", "zoo:digits-cnn", "-T", "2", "--calibration", "mse", "--schedule", "streaming"]
    command += ["--limit", "20", "--calibration-samples", "32", "-o", str(tmp_path / "a.snn")]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(kernels_package, "load", lambda: None)
    for variable, told in (("", True), ("torch", False)):
        monkeypatch.setenv("SNNCONVERT_KERNELS", variable)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
        assert ("torch stands in for the native kernels" in capsys.readouterr().err) is told
