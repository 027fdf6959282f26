"""What calibration counts, by native kernels and by torch: the same to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from snnconvert.calibrate import sent_spikes
from snnconvert.calibrate.histogram import BINS, histograms
from snnconvert.calibrate.observe import ranges
from snnconvert.calibrate.packed_units import mean_sent
from snnconvert.calibrate.sent_spikes import Sent
from snnconvert.convert.doors import open_model
from snnconvert.convert.passes import canonicalize
from snnconvert.simulate.kernels import VARIABLE, Native, choose, native_available
from snnconvert.simulate.kernels.native_statistics import MOST_FRAMES, add_to_histogram, means
from snnconvert.simulate.over_time import by_frames

pytestmark = pytest.mark.skipif(not native_available(), reason="the native kernels were not built")


@pytest.fixture
def native() -> Native:
    found = choose()
    assert found is not None
    return found


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("shape", [(3, 5, 4), (64, 7, 7), (197, 20), (13,), (16,)])
@pytest.mark.parametrize(("frames", "read_at"), [(1, (1,)), (7, (2, 7)), (MOST_FRAMES, (MOST_FRAMES,))])
def test_means_of_bits(
    native: Native, planes: int, shape: tuple[int, ...], frames: int, read_at: tuple[int, ...]
) -> None:
    torch.manual_seed(frames)
    units = torch.randint(1 - planes, 2, (frames * 2, *shape), dtype=torch.int8)
    bits = native.condensed(units, planes)
    of_channels = torch.rand(shape[0], *[1] * (len(shape) - 1)) + 0.1
    for amplitude in (of_channels, torch.rand(shape) + 0.1):
        wanted = mean_sent(by_frames(units, frames), amplitude, 1, read_at)
        assert torch.equal(means(native, bits, amplitude, frames, read_at), wanted)


def test_means_of_more_frames_than_a_byte_counts(native: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    units = torch.ones(2 * (MOST_FRAMES + 1), 9, dtype=torch.int8)
    sent = Sent(native.condensed(units), torch.full((9,), 0.5), (0, 1), density=1.0)
    assert torch.equal(sent.means(MOST_FRAMES + 1, (MOST_FRAMES + 1,)), torch.full((2, 9), 0.5))
    called: list[int] = []
    monkeypatch.setattr(sent_spikes, "means", lambda *given: called.append(given[3]))
    sent.means(MOST_FRAMES + 1, (MOST_FRAMES + 1,))
    Sent(native.condensed(units[2:]), torch.full((9,), 0.5), (0, 1), density=1.0).means(MOST_FRAMES, (MOST_FRAMES,))
    assert called == [MOST_FRAMES]


def _counted(values: Tensor, axis: int, largest: Tensor, bins: int) -> Tensor:
    rows = values.movedim(axis, 0).flatten(1)
    places = [
        torch.bincount((row / most * bins).abs().ceil().clamp(max=bins).long(), minlength=bins + 1)
        for row, most in zip(rows, largest, strict=True)
    ]
    return torch.stack(places)[:, 1:]


@pytest.mark.parametrize(
    ("shape", "axis"), [((2, 5, 9, 3), 1), ((3, 33, 6, 6), 1), ((2, 11, 40), 2), ((2, 7, 5), 1), ((50, 17), 1)]
)
def test_histograms_of_values(native: Native, shape: tuple[int, ...], axis: int) -> None:
    torch.manual_seed(axis)
    values = torch.randn(shape)
    values[values.abs() < 0.3] = 0.0
    largest = torch.rand(shape[axis]) + 1.0  # some values are larger
    counts = torch.ones(shape[axis], 64, dtype=torch.int64)
    wanted = 1 + _counted(values, axis, largest, 64)
    add_to_histogram(native, values, axis, largest, counts)
    assert torch.equal(counts, wanted)
    if len(shape) == 4:
        counts.fill_(1)
        add_to_histogram(native, values.contiguous(memory_format=torch.channels_last), axis, largest, counts)
        assert torch.equal(counts, wanted)


def test_histograms_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = canonicalize(open_model("zoo:digits-resnet")).graph
    images = torch.rand(9, 1, 8, 8)
    found, _ = ranges(graph, images)
    by_kernel = histograms(graph, images, found)
    monkeypatch.setenv(VARIABLE, "torch")
    by_torch = histograms(graph, images, found)
    assert by_kernel.keys() == by_torch.keys()
    assert all(torch.equal(by_kernel[name], by_torch[name]) for name in by_torch)
    assert all(one.shape[1] == BINS and one.sum() > 0 for one in by_torch.values())
