"""Normal equations: solutions, errors and groups against direct computations."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from snnconvert.calibrate import least_squares
from snnconvert.calibrate.least_squares import (
    BLOCK,
    Merged,
    NormalEquations,
    Taps,
    best_penalty,
    changed,
    inputs_of,
    least_penalty,
    outputs_by_group,
    patches,
    patches_of,
    read_by,
    solvable,
    split,
)
from snnconvert.graph.kinds import Conv, ConvTranspose, Linear
from snnconvert.simulate.kernels import choose, native_available

DRAW = torch.Generator().manual_seed(0)
needs_kernels = pytest.mark.skipif(not native_available(), reason="the native kernels were not built")


def made(outputs: int, inputs: int, groups: int, *, stride: int = 1, dilation: int = 1, rank: int = 2) -> Conv:
    weight = torch.randn(outputs, inputs // groups, *[3] * rank, generator=DRAW)
    return Conv(
        weight,
        torch.randn(outputs, generator=DRAW),
        stride=(stride,) * rank,
        padding=(1,) * rank,
        dilation=(dilation,) * rank,
        groups=groups,
    )


OPERATORS = [
    (made(6, 4, 1), (4, 7, 7)),
    (made(6, 4, 2, stride=2), (4, 7, 7)),
    (made(4, 4, 4, dilation=2), (4, 9, 9)),
    (made(5, 2, 1, rank=1), (2, 11)),
    (Linear(torch.randn(3, 8, generator=DRAW), torch.randn(3, generator=DRAW)), (8,)),
    (Linear(torch.randn(3, 8, generator=DRAW)), (5, 8)),
]


@pytest.mark.parametrize(("op", "shape"), OPERATORS)
def test_patches_times_weights_are_the_operator(op: Conv | Linear, shape: tuple[int, ...]) -> None:
    x = torch.randn(3, *shape, generator=DRAW)
    zeros = op.rebuilt(weight=op.weight * 0, bias=torch.zeros(op.weight.shape[0]))
    groups = 1 if isinstance(op, Linear) else op.groups
    rows = patches(op, x)
    bias = torch.zeros(op.weight.shape[0]) if op.bias is None else op.bias
    change = torch.cat([op.weight.reshape(groups, -1, op.weight[0].numel()), bias.reshape(groups, -1, 1)], 2)
    product = torch.einsum("gbpi,gio->gbpo", rows, change.transpose(1, 2))
    assert torch.allclose(product, outputs_by_group(op, op(x)), atol=1e-4)
    assert torch.allclose(changed(zeros, change.transpose(1, 2).double())(x), op(x), atol=1e-4)


@pytest.mark.parametrize(("op", "shape"), OPERATORS)
def test_a_known_change_is_found(op: Conv | Linear, shape: tuple[int, ...]) -> None:
    x = torch.randn(200, *shape, generator=DRAW)
    other = op.rebuilt(weight=op.weight + 0.3, bias=torch.ones(op.weight.shape[0]))
    equations = NormalEquations(op)
    for part in (x[:120], x[120:]):
        equations.add(patches(op, part), outputs_by_group(op, other(part) - op(part)))
    found = changed(op, equations.solve(1e-9))
    assert torch.allclose(found.weight, other.weight, atol=1e-3)
    assert found.bias is not None and other.bias is not None
    assert torch.allclose(found.bias, other.bias, atol=1e-3)


def test_errors_are_the_squared_residuals() -> None:
    op, x = made(6, 4, 2), torch.randn(9, 4, 6, 6, generator=DRAW)
    wanted = torch.randn(9, 6, 6, 6, generator=DRAW)
    equations = NormalEquations(op)
    equations.add(patches(op, x), outputs_by_group(op, wanted - op(x)))
    change = equations.solve(0.1)
    direct = (wanted - changed(op, change)(x)).double().square().sum((0, 2, 3))
    assert torch.allclose(equations.errors(change), direct, rtol=1e-4)


@pytest.mark.parametrize(("op", "shape"), OPERATORS)
def test_of_very_wide_sums_the_bias_alone_is_solved(
    op: Conv | Linear, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of the residual has no mean, and no weight has moved; parts, errors and factors as of any other."""
    monkeypatch.setattr(least_squares, "MOST_INPUTS", 5)
    x = torch.randn(40, *shape, generator=DRAW)
    lack = torch.randn(op(x).shape, generator=DRAW) + 2.0
    parts = [NormalEquations(op), NormalEquations(op)]
    for part, some in zip(parts, (slice(0, 25), slice(25, None)), strict=True):
        part.add(patches(op, x[some]), outputs_by_group(op, lack[some]))
    whole = Merged(parts)
    assert torch.equal(whole.errors(torch.zeros_like(whole.cross)), whole.power.flatten())
    change = parts[0].cleared().with_cross_of(parts).solve(0.1) * 25 / 40  # factors of 25 images, residuals of 40
    found = changed(op, whole.solve(0.1))
    assert torch.equal(found.weight, op.weight)
    left = outputs_by_group(op, lack - (found(x) - op(x)))
    assert float(left.mean((1, 2)).abs().max()) < 1e-3
    torch.testing.assert_close(change, whole.solve(0.1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        whole.errors(whole.solve(0.1)), left.double().square().sum((1, 2)).flatten(), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("kernels", [pytest.param("native", marks=needs_kernels), "torch"])
@pytest.mark.parametrize(("channels", "kernel"), [(37, 3), (16, 5), (5, 1)])
def test_what_a_depthwise_operator_reads_is_not_laid_out(
    channels: int, kernel: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its normal equations are those of rows, with pixels of zeros, in blocks, and with other residuals."""
    monkeypatch.setenv("SNNCONVERT_KERNELS", kernels)
    weight = torch.randn(channels, 1, kernel, kernel, generator=DRAW)
    op = Conv(weight, torch.zeros(channels), stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=channels)
    by_taps, by_rows = [NormalEquations(op) for _ in range(2)], [NormalEquations(op) for _ in range(2)]
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []
    for count, taps, rows in zip((7, 2), by_taps, by_rows, strict=True):
        values = torch.randn(count, 50, channels, generator=DRAW)
        read = torch.randint(-1, 50, (211, kernel * kernel), generator=DRAW)
        drawn.append((values, read, torch.randn(channels, count, 211, 1, generator=DRAW)))
        for part in (slice(0, 1), slice(1, None)):
            found = read_by(op, values[part], read)
            assert isinstance(found, Taps)
            taps.add(found, drawn[-1][2][:, part])
            rows.add(patches_of(op, values[part], read), drawn[-1][2][:, part])
    residuals = by_taps[0].cleared(), by_rows[0].cleared()
    values, read, lack = drawn[0]
    residuals[0].add(Taps(values, read), 2 * lack)
    residuals[1].add(patches_of(op, values, read), 2 * lack)
    pairs = [*zip(by_taps, by_rows, strict=True), residuals, (Merged(by_taps), Merged(by_rows))]
    for mine, wanted in pairs:
        assert mine.rows == wanted.rows
        for name in ("gram", "cross", "power"):
            torch.testing.assert_close(getattr(mine, name), getattr(wanted, name), rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(by_taps[0].solve(0.1), by_rows[0].solve(0.1), rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("instructions", ["portable", "avx2", "avx512"])
def test_kernels_add_up_what_a_depthwise_operator_reads_as_torch_does(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    op, values = made(21, 21, 21), torch.randn(6, 40, 21, generator=DRAW)
    read, lack = torch.randint(-1, 40, (201, 9), generator=DRAW), torch.randn(21, 6, 201, 1, generator=DRAW)
    native, found = choose(), []
    assert native is not None
    for kernels in (native.limited_to(instructions), None):
        monkeypatch.setattr(least_squares, "choose", lambda kernels=kernels: kernels)
        found.append(NormalEquations(op))
        found[-1].add(Taps(values, read), lack)
    assert torch.equal(found[0].gram, found[1].gram)
    assert torch.equal(found[0].cross, found[1].cross)
    assert torch.equal(found[0].power, found[1].power)


def test_blocks_add_up() -> None:
    op, x = made(6, 4, 1), torch.randn(8, 4, 6, 6, generator=DRAW)
    lack = torch.randn(8, 6, 6, 6, generator=DRAW)

    def over(*parts: tuple[Tensor, Tensor]) -> NormalEquations:
        equations = NormalEquations(op)
        for a, b in parts:
            equations.add(patches(op, a), outputs_by_group(op, b))
        return equations

    whole = over((x, lack))
    halves = Merged([over((x[:4], lack[:4])), over((x[4:], lack[4:]))])
    assert whole.rows == halves.rows == 8 * 36
    assert torch.allclose(whole.solve(0.01), halves.solve(0.01), atol=1e-6)
    assert torch.equal(whole.cleared().cross, torch.zeros_like(whole.cross))


def test_a_share_per_channel() -> None:
    op = made(6, 4, 2)
    change = torch.ones(2, op.weight[0].numel() + 1, 3, dtype=torch.float64)
    share = torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0, 0.5])
    moved = (changed(op, change, share).weight - op.weight).flatten(1)
    assert torch.allclose(moved, share.unsqueeze(1).expand_as(moved), atol=1e-5)
    assert split(op, change)[1].shape == (6,)


def test_what_cannot_be_solved() -> None:
    transposed = ConvTranspose(
        torch.zeros(2, 2, 3, 3), stride=(1, 1), padding=(0, 0), output_padding=(0, 0), dilation=(1, 1)
    )
    assert not solvable(transposed)
    assert solvable(made(2, 2, 1))


def test_the_least_penalty_is_found_with_few_trials() -> None:
    penalties = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    for best in range(len(penalties)):
        tried = list[float]()

        def errors(penalty: float, best: int = best, tried: list[float] = tried) -> Tensor:
            tried.append(penalty)
            return torch.tensor([abs(penalties.index(penalty) - best) + 1.0, 0.5])

        found, error = least_penalty(penalties, errors)
        assert found == penalties[best]
        assert float(error.sum()) == 1.5
        assert len(tried) == len(set(tried)) <= 3 + abs(best - 3)


@pytest.mark.parametrize("groups", [1, 2])
def test_sums_do_not_depend_on_how_rows_come_in(groups: int) -> None:
    """Blocks are cut where rows are counted, whoever brings them; and only half of a symmetric product is computed."""
    draw = torch.Generator().manual_seed(5)
    op = Linear(torch.randn(6, 7, generator=draw), None) if groups == 1 else made(6, 4, 2)
    inputs = op.weight[0].numel() + 1
    rows = torch.randn(groups, 1, 2 * BLOCK + 77, inputs, generator=draw)
    residual = torch.randn(groups, 1, rows.shape[2], 6 // groups, generator=draw)
    found = []
    for size in (1, 300, BLOCK, 5000):
        equations = NormalEquations(op)
        for some, wanted in zip(rows.split(size, 2), residual.split(size, 2), strict=True):
            equations.add(some, wanted)
        found.append(equations)
        assert equations.rows == rows.shape[2]
    for other in found[1:]:
        assert torch.equal(found[0].gram, other.gram)
        assert torch.equal(found[0].cross, other.cross)
        assert torch.equal(found[0].power, other.power)
    wide = rows[:, 0].double()
    assert torch.allclose(found[0].gram, wide.transpose(1, 2) @ wide, rtol=1e-4, atol=1e-2)
    half, flipped = inputs // 2, found[0].gram.transpose(1, 2)
    assert torch.equal(found[0].gram[:, half:, :half], flipped[:, half:, :half])
    assert torch.allclose(found[0].gram, flipped, rtol=1e-6, atol=1e-4)  # products of a block with itself are rounded


def test_a_penalty_is_chosen_on_some_outputs_and_judged_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(6)
    op = Linear(torch.randn(40, 12, generator=draw), None)
    x = torch.randn(2, 60, 12, generator=draw)
    noisy = x @ torch.randn(12, 40, generator=draw) * 0.05 + torch.randn(2, 60, 40, generator=draw)
    pair = NormalEquations(op), NormalEquations(op)
    for part, some, wanted in zip(pair, x, noisy, strict=True):
        part.add(patches(op, some), outputs_by_group(op, wanted))
    penalties = (0.001, 0.01, 0.1, 1.0, 10.0)
    every = best_penalty(penalties, [pair])
    monkeypatch.setattr(least_squares, "OUTPUTS", 8)
    assert pair[0].sampled().cross.shape[2] == 8
    assert pair[0].sampled().factors is pair[0].factors
    chosen, errors = best_penalty(penalties, [pair])
    assert chosen == every[0]
    assert torch.equal(errors, every[1])
    assert errors.shape == (40,)


@pytest.mark.parametrize("kernel", [(), (3,), (3, 3)])
def test_weights_of_parts_are_solved_as_those_of_one(kernel: tuple[int, ...]) -> None:
    """What units of a function add up to is what the weights behind them are solved on."""
    torch.manual_seed(0)
    scales, rank = torch.rand(3, 6) + 0.5, len(kernel)

    def whole(narrow: Tensor) -> Tensor:
        return torch.cat([narrow * part.reshape(-1, *[1] * rank) for part in scales], 1)

    bias, options = torch.randn(5), {"stride": (1,) * rank, "padding": (1,) * rank, "dilation": (1,) * rank}
    kind: Any = partial(Conv, **options) if kernel else Linear
    op = kind(whole(torch.randn(5, 6, *kernel)), bias, scales=scales)
    wanted = kind(whole(torch.randn(5, 6, *kernel)), torch.randn(5))
    x = torch.randn(40, 18, *[7] * rank) if kernel else torch.randn(40, 9, 18)
    assert inputs_of(op) == 6 * 3**rank
    rows = patches(op.on_sums(), op.summed(x, 1 if kernel else 2))
    normal = NormalEquations(op)
    normal.add(rows, outputs_by_group(op, wanted(x) - op(x)))
    found = changed(op, normal.solve(1e-7))
    assert found.in_parts
    assert torch.allclose(found(x), wanted(x), atol=1e-2)
