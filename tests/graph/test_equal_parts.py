"""Operators whose inputs are parts with the same weights times a scale each."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from snnconvert.compile.exact import on_grid
from snnconvert.convert.approximate import approximate
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.pytorch import import_module
from snnconvert.graph.dialect import calls
from snnconvert.graph.kinds import Conv, Gathering, Linear
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine
from tests.exporters.networks import units_in_parts

SCALES = torch.tensor([0.5, -2.0, 0.25])


@pytest.mark.parametrize("shape", [(4, 12), (3, 7, 12)])
def test_features_are_added_up_first(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    narrow, bias, x = torch.randn(5, 4), torch.randn(5), torch.randn(shape)
    wide = torch.cat([narrow * scale for scale in SCALES], 1)
    op = Linear(wide, bias, scales=SCALES)
    given, weight = op.added_up(x)
    assert given.shape[-1] == weight.shape[1] == 4
    assert torch.allclose(op(x), Linear(wide, bias)(x), atol=1e-5)


def test_channels_are_added_up_first() -> None:
    torch.manual_seed(0)
    narrow, x = torch.randn(5, 4, 3, 3), torch.randn(2, 12, 9, 9).contiguous(memory_format=torch.channels_last)
    wide = torch.cat([narrow * scale for scale in SCALES], 1)
    options = {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1)}
    assert torch.allclose(Conv(wide, None, **options, scales=SCALES)(x), Conv(wide, None, **options)(x), atol=1e-4)


def test_a_copy_is_in_parts_and_has_tensors_of_its_own() -> None:
    op = Linear(torch.randn(5, 12), torch.randn(5), scales=SCALES)
    op.register_forward_hook(lambda _op, _given, made: made + 1)
    made = deepcopy(op)
    assert made.in_parts
    assert made.weight.data_ptr() != op.weight.data_ptr()
    x = torch.randn(2, 12)
    assert torch.equal(made(x), op(x))
    made.weight.zero_()
    made.stray = 1
    assert op.weight.any()
    assert not hasattr(op, "stray")


def test_other_weights_have_no_scales() -> None:
    op = Linear(torch.randn(5, 12), torch.randn(5), scales=SCALES)
    assert op.rebuilt(bias=None).scales is not None
    assert op.rebuilt(weight=torch.randn(5, 12)).scales is None
    x, copy = torch.randn(2, 12), deepcopy(op)
    assert copy.added_up(x)[0].shape == (2, 4)
    for changed in (op, copy):
        changed.weight = torch.randn(5, 12)  # as training does
        assert changed.tensors()["scales"] is None  # nor does a file say so
        assert torch.equal(changed(x), torch.nn.functional.linear(x, changed.weight, changed.bias))
    assert Linear(torch.randn(5, 12), scales=SCALES).double().added_up(x)[0] is x


def in_parts(width: int, *, kernel: tuple[int, ...] = ()) -> Gathering:
    """Three parts with the same weights times a scale of each channel."""
    torch.manual_seed(width)
    scales, narrow, bias = torch.rand(3, width) - 0.5, torch.randn(5, width, *kernel), torch.randn(5)
    wide = torch.cat([narrow * part.reshape(-1, *[1] * len(kernel)) for part in scales], 1)
    if not kernel:
        return Linear(wide, bias, scales=scales)
    return Conv(wide, bias, stride=(1,), padding=(1,), dilation=(1,), scales=scales)


@pytest.mark.parametrize("kernel", [(), (3,)])
@pytest.mark.parametrize("peak", [15, 127])
def test_on_a_grid_parts_give_the_sums_of_all_weights_to_the_last_bit(kernel: tuple[int, ...], peak: int) -> None:
    op = in_parts(400, kernel=kernel)
    amplitude = torch.rand(1200, dtype=torch.float64) + 0.1
    rounded, _ = on_grid(op.reading(amplitude), peak, signed=False, windowed=False)
    assert isinstance(rounded, Gathering)
    assert rounded.in_parts
    exact = op.weight.double() * amplitude.reshape(-1, *[1] * len(kernel))
    assert (rounded.weight - exact).abs().max() < 2.0**-13 * exact.abs().max()
    x = torch.randint(0, peak + 1, (2, 1200, 9) if kernel else (2, 9, 1200)).float()
    given, weight = rounded.added_up(x)
    assert weight.shape[1] == 400
    assert given.dtype == weight.dtype == torch.float64
    alone = rounded.rebuilt(weight=rounded.weight)
    assert not alone.in_parts
    assert torch.equal(rounded(x), alone(x.double()))
    assert torch.equal(rounded(x.to(torch.int16)), rounded(x))


def test_few_inputs_have_no_parts_on_a_grid() -> None:
    op = in_parts(4)
    rounded, _ = on_grid(op.reading(torch.ones(12)), 1, signed=False, windowed=False)
    assert rounded.weight.dtype == torch.float32
    assert not rounded.in_parts


def test_spiking_units_are_added_up_in_every_engine() -> None:
    snn, images = units_in_parts()
    found = [op for _, op in calls(snn.graph, Gathering) if op.in_parts]
    assert found
    fast = LayerEngine(snn).run(images[:4])
    assert torch.equal(fast.outputs[0], StepEngine(snn).run(images[:4]).outputs[0])
    for op in found:
        op.scales = None
    assert torch.equal(fast.outputs[0], LayerEngine(snn).run(images[:4]).outputs[0])


@pytest.mark.parametrize("layer", [nn.Linear(16, 7), nn.Conv1d(16, 7, 3)])
def test_units_of_a_smooth_function_share_their_weights(layer: nn.Module) -> None:
    torch.manual_seed(0)
    tokens = isinstance(layer, nn.Linear)
    first = nn.Linear(6, 16) if tokens else nn.Conv1d(6, 16, 3)
    shape = (9, 6) if tokens else (6, 12)
    network = nn.Sequential(first, nn.GELU(), layer).eval()
    ann = canonicalize(import_module(network, shape, name="net"))
    images = torch.randn(16, *shape)
    spiking, records = approximate(ann, images)
    assert records[0].units > 2
    (last,) = [op for _, op in calls(spiking.graph, Gathering) if op.scales is not None]
    assert last.scales is not None and len(last.scales) == records[0].units
    with torch.inference_mode():
        given = spiking.graph(images)[0]
        assert torch.allclose(given, network(images), atol=0.1)
        last.scales = None
        assert torch.allclose(given, spiking.graph(images)[0], atol=1e-4)
