"""The kernels for windows, with every instruction set, equal the torch path and the oracle bit for bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import images, random_snn
from torch import Tensor

from snnconvert.graph.kinds import Neuron
from snnconvert.graph.schedule import Bistable
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.simulate.kernels import Native, choose, native_available
from snnconvert.simulate.kernels.layout import per_element
from snnconvert.simulate.kernels.native import INSTRUCTIONS
from snnconvert.simulate.kernels.native_windows import Emitter, Values, send_by_window
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.window_neurons import count_window_spikes, send_windows

needs_native = pytest.mark.skipif(not native_available(), reason="the native kernels were not built")


def kernels(instructions: str) -> Native:
    native = choose()
    assert native is not None
    return native.limited_to(instructions)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    window=st.integers(1, 4),
    phases=st.sampled_from(["power2", "uniform"]),
    residual=st.sampled_from(["keep", "clear", "clamp"]),
    frames=st.integers(1, 3),
)
def test_the_torch_path_equals_the_oracle(seed: int, window: int, phases: str, residual: str, frames: int) -> None:
    snn, _, _ = random_snn(seed, window=window, phases=phases, residual=residual, frames=frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNCONVERT_KERNELS", "torch")
        engine = LayerEngine(snn)
    assert engine.windows is None
    seen, oracle = engine.run(images(seed)), BistableEngine(snn).run(images(seed))
    for name in oracle.spikes:
        assert torch.equal(seen.spikes[name], oracle.spikes[name]), name
        assert torch.equal(seen.units[name], oracle.units[name]), name
    assert torch.equal(seen.outputs[0], oracle.outputs[0])


def arbitrary(seed: int, shape: tuple[int, ...], *, per_pixel: bool) -> tuple[Tensor, Tensor, Tensor]:
    """A current that often stands exactly at a multiple of the threshold or just beside it; threshold; v(0)."""
    generator = torch.Generator().manual_seed(seed)
    own = shape[1:] if per_pixel else (shape[1], *([1] * (len(shape) - 2)))
    threshold = torch.rand(own, generator=generator).add_(0.01).double()
    units = torch.randint(-20, 300, shape, generator=generator).double()
    near = torch.randint(-2, 3, shape, generator=generator).double() * 2.0**-50
    current = torch.where(torch.rand(shape, generator=generator) < 0.5, units * threshold * (1 + near), units / 7.3)
    return current, threshold, threshold * 0.5


@needs_native
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("shape", [(3, 16, 5, 7), (2, 3, 40, 31), (4, 70), (2, 5, 9), (1, 1500)])
@pytest.mark.parametrize("residual", ["keep", "clear", "clamp"])
@pytest.mark.parametrize("window, phases", [(3, "power2"), (8, "power2"), (9, "uniform")])
def test_kernel_and_torch_send_the_same(
    instructions: str, shape: tuple[int, ...], residual: str, window: int, phases: str
) -> None:
    signed = window == 8
    schedule = Bistable(6 * window, 1, window=window, phases=phases, residual=residual)
    current, threshold, initial = arbitrary(window, shape, per_pixel=shape[0] == 3)
    op = Neuron(threshold, initial, model="signed" if signed else "bistable", levels=schedule.levels)
    expected = send_windows(op, current.unsqueeze(0), schedule)
    rows = [per_element(parameter, shape[1:], torch.float64) for parameter in (threshold, initial)]
    units, spikes = send_by_window(
        kernels(instructions),
        [Values(current, at=[0] * schedule.frames)],
        Emitter(shape[0], shape[1:], *rows, negative=signed, levels=schedule.levels),
        schedule,
    )
    assert torch.equal(units.view(expected.shape), expected)
    assert torch.equal(spikes.flatten(), count_window_spikes(expected, schedule, signed=signed)[0])


@needs_native
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_summands_are_added_in_order_and_rounded_to_their_grid(instructions: str) -> None:
    generator, shape, schedule = torch.Generator().manual_seed(0), (6, 33, 3, 5), Bistable(20, 1, window=5)
    floats, units = (torch.randn(shape, generator=generator), torch.randint(0, 31, shape, generator=generator).float())
    factor, threshold = torch.rand(33, 1, 1).double(), torch.rand(33, 1, 1).double() + 0.05
    grid = 2.0**-12
    expected = (floats.double() / grid).round() * grid + units * factor
    expected = expected.view(schedule.frames, -1, *shape[1:])
    op = Neuron(threshold, threshold / 2, model="bistable", levels=schedule.levels)
    rows = [per_element(parameter, shape[1:], torch.float64) for parameter in (factor, threshold, threshold / 2)]
    terms = [Values(floats, grid=grid, ours=True), Values(units, rows[0])]
    emitter = Emitter(3, shape[1:], *rows[1:], negative=False, levels=schedule.levels)
    sent, _ = send_by_window(kernels(instructions), terms, emitter, schedule)
    assert torch.equal(sent.view(expected.shape), send_windows(op, expected, schedule))


@needs_native
def test_what_is_not_a_number_stays_within_the_codes() -> None:
    current = torch.tensor([[float("nan"), float("inf"), -float("inf"), 1.0]], dtype=torch.float64)
    one = torch.ones(1, 4, dtype=torch.float64)
    schedule, emitter = Bistable(8, 1, window=4), Emitter(1, (4,), one, one / 2, negative=False, levels=15)
    units, spikes = send_by_window(kernels("avx512"), [Values(current)], emitter, schedule)
    assert units.tolist() == [[0.0, 15.0, 0.0, 1.0]]
    assert spikes.tolist() == [[1, 1, 1, 2]]
