"""The portable form: sums that no order of float32 changes, over all steps; a network that the engines agree on."""

from __future__ import annotations

import pytest
import torch

from snnconvert.compile.exact import finest_grids
from snnconvert.compile.integers import channel_rows
from snnconvert.compile.precision import in_precision
from snnconvert.exporters.dense import as_convolutions
from snnconvert.exporters.portable import Form, portable
from snnconvert.exporters.sums import counts, largest_by_channel, largest_values, sums_of
from snnconvert.exporters.verify import compare, engine_of
from snnconvert.graph.checkpoint import load_snn, packed, save_snn
from snnconvert.graph.dialect import Builder, arguments, calls, neurons_of
from snnconvert.graph.flow import flows
from snnconvert.graph.kinds import Conv, Linear, Pad, Reshape, Snap, Weighted
from snnconvert.graph.types import Origin, Snn
from tests.engines import assert_engines_agree, assert_sums_fit_their_grid
from tests.exporters.networks import CASES, IMAGES, Case, named, network_of


def assert_membranes_are_exact(snn: Snn) -> None:
    """Of every sum: summands, thresholds and starts on one grid per channel, on which all steps need 24 bits."""
    flows(snn.graph)
    values = largest_values(snn.graph, 2.0)
    seen = 0
    for sum_ in sums_of(snn.graph):
        axis, grids = sum_.axis, []
        most = largest_by_channel(sum_, values)
        for node, op in sum_.neurons.items():
            shape = tuple(node.meta["shape"])
            rows = [channel_rows(tensor, shape, axis) for tensor in (op.threshold, op.initial)]
            grids += [finest_grids(part) for part in rows]
            most = most * snn.schedule.frames + sum(part.abs().amax(1) for part in rows)
        for node in sum_.counted:
            op = snn.graph.get_submodule(str(node.target))
            if isinstance(op, Weighted):
                parts = op.by_rows(op.weight.double())
                parts = parts if op.bias is None else torch.cat([parts, op.bias.double()[:, None]], 1)
                grids.append(finest_grids(parts if axis is not None else parts.reshape(1, -1)))
            else:
                grids += [finest_grids(channel_rows(t, tuple(node.meta["shape"]), axis)) for t in op.buffers()]
        for source, _ in sum_.real:
            op = snn.graph.get_submodule(str(source.target))
            assert isinstance(op, Snap | Weighted)
            if isinstance(op, Snap):
                grids.append(torch.tensor([op.grid]).double())
        grid = grids[0]
        for other in grids[1:]:
            grid = torch.minimum(grid, other)
        assert float((most / grid).max()) <= 2**24
        seen += 1
    assert seen >= len(neurons_of(snn.graph))


@pytest.mark.parametrize("case", CASES, ids=named)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_sums_and_membranes_need_24_bits_in_every_order(
    case: Case, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snn = in_precision(network_of(case), precision)
    made = portable(snn)
    assert all(op.weight.dtype == torch.float32 for _, op in calls(made.graph, Weighted))
    assert_membranes_are_exact(made)
    assert assert_sums_fit_their_grid(made, IMAGES) >= 4
    assert_engines_agree(made, IMAGES, monkeypatch)
    found = compare(snn, engine_of(made), IMAGES)
    assert found.total < 0.2 * found.spikes
    if precision == "int8":
        assert all(packed("", op) for node, op in calls(made.graph, Weighted) if counts(node))


def test_it_is_a_checkpoint(tmp_path: object) -> None:
    made = portable(network_of(CASES[0]))
    path = f"{tmp_path}/p.snn"
    save_snn(made, path)
    assert compare(made, engine_of(load_snn(path)), IMAGES).equal


@pytest.mark.parametrize("case", [CASES[0], CASES[4], CASES[8]], ids=named)
def test_thresholds_of_one_and_convolutions_only(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    snn = network_of(case)
    made = portable(snn, Form(unit=True, convolutions=True))
    assert all(bool((op.threshold == 1).all()) for op in neurons_of(made.graph).values())
    assert not list(calls(made.graph, Linear))
    assert [node.name for node, _ in calls(made.graph, Reshape)] == [list(made.graph.graph.nodes)[-2].name]
    assert sum(1 for _ in calls(made.graph, Conv)) == sum(1 for _ in calls(snn.graph, Weighted))
    assert_membranes_are_exact(made)
    assert_engines_agree(made, IMAGES, monkeypatch)
    found = compare(snn, engine_of(made), IMAGES)
    assert found.total < 0.2 * found.spikes


@pytest.mark.parametrize("pads", [(1, 0, 0, 1), (0, 2, 0, 0), (1, 1, 2, 2)])
@pytest.mark.parametrize("snapped", [False, True])
def test_uneven_padding_is_in_the_kernel(pads: tuple[int, ...], snapped: bool) -> None:
    """The same sums on the same places, whatever the stride, the kernel and its own padding."""
    for size, stride, padding, groups in (((3, 3), (2, 2), (0, 0), 1), ((2, 3), (1, 2), (1, 0), 2)):
        weight = torch.rand(4, 4 // groups, *size, dtype=torch.float64)
        conv = Conv(weight, stride=stride, padding=padding, dilation=(1, 1), groups=groups)
        builder = Builder({"input": torch.rand(2, 4, 8, 9).double()})
        x = builder.call(Pad(pads=pads), builder.inputs["input"], origin=Origin("pad", "Pad"))
        x = builder.call(Snap(grid=2.0**-8), x, origin=Origin("snap", "Snap")) if snapped else x
        graph = builder.finish([builder.call(conv, x, origin=Origin("conv", "Conv"))])
        given = (torch.rand(2, 4, 8, 9) * 256).round().double() / 256
        wanted = graph(given)[0]
        as_convolutions(graph)
        assert not list(calls(graph, Pad))
        assert torch.allclose(graph(given)[0], wanted, atol=1e-12)


def test_padding_that_no_kernel_holds_stays() -> None:
    wide = Conv(torch.rand(4, 4, 3, 3), stride=(1, 1), padding=(0, 0), dilation=(2, 2))
    for pad, conv in ((Pad(pads=(1, 0, 0, 0)), wide), (Pad(pads=(-1, 0)), wide), (Pad(pads=(1, 1), value=1.0), wide)):
        builder = Builder({"input": torch.rand(2, 4, 8, 9)})
        x = builder.call(pad, builder.inputs["input"], origin=Origin("pad", "Pad"))
        graph = builder.finish([builder.call(conv, x, origin=Origin("conv", "Conv"))])
        as_convolutions(graph)
        assert list(calls(graph, Pad))


def test_without_roundings_the_first_layer_is_exact_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    made = portable(network_of(CASES[0]), Form(unit=True, convolutions=True, rounds=False))
    (snap,) = [node for node, _ in calls(made.graph, Snap)]
    assert arguments(snap)[0].op == "placeholder"
    assert_membranes_are_exact(made)
    assert_engines_agree(made, IMAGES, monkeypatch)
