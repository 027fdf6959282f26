"""What is done to spikes as bits is what is done to the spikes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from snnconvert.graph.kinds import Concat, Op, Pad, Permute, Reshape, Slice
from snnconvert.simulate.kernels import Native, choose, native_available
from snnconvert.simulate.kernels.bits import Bits, moved

pytestmark = pytest.mark.skipif(not native_available(), reason="the native kernels were not built")


def drawn(count: int, shape: tuple[int, ...], planes: int) -> Tensor:
    random = torch.Generator().manual_seed(len(shape))
    return torch.randint(1 - planes, 2, (count, *shape), generator=random, dtype=torch.int8)


# operator, shapes of its inputs, whether it goes without unpacking
MOVES: list[tuple[Op, list[tuple[int, ...]], bool]] = [
    (Concat(dim=1), [(16, 3, 4), (64, 3, 4), (5, 3, 4)], True),
    (Concat(dim=1), [(64, 3, 4), (128, 3, 4)], True),
    (Concat(dim=1), [(5, 3, 4), (16, 3, 4)], False),
    (Concat(dim=3), [(5, 3, 4), (5, 3, 2)], True),
    (Concat(dim=1), [(6, 8), (1, 8)], True),
    (Concat(dim=1), [(8,), (11,)], True),
    (Slice(dim=2, start=1, stop=9, step=2), [(13, 7, 5)], True),
    (Slice(dim=3, start=0, stop=5, step=2), [(16, 7, 5)], True),
    (Slice(dim=1, start=8, stop=99), [(21, 2, 2)], True),
    (Slice(dim=1, start=8, stop=16), [(21, 2, 2)], True),
    (Slice(dim=1, start=3, stop=16), [(21, 2, 2)], False),
    (Slice(dim=1, start=0, stop=16, step=2), [(16, 2, 2)], False),
    (Pad(pads=(1, 0, 2, 1)), [(7, 3, 4)], True),
    (Pad(pads=(0, 0, 0, 0, 8, 8)), [(16, 3, 4)], True),
    (Pad(pads=(0, 0, -1, 0, 8, 3)), [(16, 3, 4)], True),
    (Pad(pads=(0, 0, 0, 0, 8, 3)), [(5, 3, 4)], False),
    (Pad(pads=(0, 0, 0, 0, 1, 2)), [(16, 3, 4)], False),
    (Pad(pads=(0, 0, 0, 0, 0, -8)), [(24, 3, 4)], True),
    (Pad(pads=(0, 0, 0, 0, 0, -8)), [(12, 3, 4)], False),
    (Pad(pads=(0, 0, 0, 0, -8, -8)), [(21, 3, 4)], False),
    (Pad(pads=(0, 0, 0, 0, -8, -5)), [(21, 3, 4)], True),
    (Reshape(shape=(20,)), [(20, 1, 1)], True),
    (Reshape(shape=(24,)), [(6, 2, 2)], False),
    (Permute(dims=(0, 2, 1)), [(6, 7)], False),
]


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize(("op", "shapes", "as_bits"), MOVES, ids=str)
def test_moves_are_those_of_the_spikes(op: Op, shapes: list[tuple[int, ...]], as_bits: bool, planes: int) -> None:
    native = choose()
    assert isinstance(native, Native)
    inputs = [drawn(3, shape, planes) for shape in shapes]
    expected = op(*inputs)
    found = moved(op, [native.condensed(each, planes) for each in inputs], tuple(expected.shape[1:]))
    assert (found is not None) == as_bits
    if found is not None:
        assert found.planes == planes
        assert torch.equal(native.expanded(found), expected)
        assert torch.equal(found.bytes, native.condensed(expected, planes).bytes)  # nothing beyond the channels


def test_spikes_of_different_neurons_are_unpacked() -> None:
    native = choose()
    assert isinstance(native, Native)
    parts = [native.condensed(drawn(2, (8, 2, 2), planes), planes) for planes in (1, 2)]
    assert moved(Concat(dim=1), parts, (16, 2, 2)) is None


@pytest.mark.parametrize("shape", [(16, 40, 40), (5, 3, 3), (7,), (4, 9)])
def test_density_is_estimated(shape: tuple[int, ...]) -> None:
    native = choose()
    assert isinstance(native, Native)
    random = torch.Generator().manual_seed(1)
    spikes = (torch.rand((40, *shape), generator=random) < 0.2).to(torch.int8)
    bits = native.condensed(spikes)
    assert isinstance(bits, Bits)
    assert bits.density() == pytest.approx(float(spikes.float().mean()), abs=0.01)
    assert native.condensed(torch.zeros_like(spikes)).density() == 0.0
