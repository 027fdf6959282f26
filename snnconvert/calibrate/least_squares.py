"""Ridge least squares for a weighted operator, from normal equations accumulated block by block.

With U the rows that an output value is computed from (unfolded patches and a constant 1), R what the output lacks, and
n rows in all, the change of weights and bias that minimises |R - U dW|^2 / n + lambda D |dW|^2 is

    dW = (U^T U / n + lambda D)^-1 U^T R / n

with D the mean diagonal of the weights' block; the bias is hardly penalised. Memory depends on the operator only, not
on the number of images. Grouped and depthwise convolutions are solved group by group; what depthwise ones read is not
laid out as rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.graph.kinds import Op, Weighted
from snnconvert.simulate.kernels import choose
from snnconvert.simulate.kernels.native_statistics import add_products
from snnconvert.threads import threads

# entries of a Cholesky factor that is kept (8 bytes each)
KEPT_FACTOR = 2**25
# rows that are multiplied in float32 before they are added up in float64
BLOCK = 1024
# of a group, by which a penalty is chosen: every penalty that is tried is solved for and judged at each of them
OUTPUTS = 128
BIAS_PENALTY = 1e-6
# the most inputs whose weights are solved for: the time of a Gram matrix and its factors grows with their cube
MOST_INPUTS = 5000


def solvable(op: Op) -> bool:
    """Whether `patches` knows the operator."""
    return op.gathers and op.get_buffer("weight").ndim <= 4


def inputs_of(op: Weighted) -> int:
    """How many inputs of one output are solved for, where weights are: those of one part of them."""
    return op.weight[0].numel() // op.parts


def weights_solved(op: Weighted) -> bool:
    """Whether weights are solved for, or only the bias, since a Gram matrix of that many inputs takes too long."""
    return inputs_of(op) <= MOST_INPUTS


def patches(op: Weighted, x: Tensor, positions: Tensor | None = None) -> Tensor:
    """The rows that every output position reads, shape (groups, batch, positions, inputs per group + 1)."""
    if op.features_last:
        rows = x.reshape(x.shape[0], -1, x.shape[-1]).unsqueeze(0)
    else:
        flat = op.weight.ndim == 3
        image = x.unsqueeze(-2) if flat else x
        one: tuple[int, ...] = (1,) if flat else ()
        zero: tuple[int, ...] = (0,) if flat else ()
        kernel = one + tuple(op.weight.shape[2:])
        columns = F.unfold(image, kernel, one + op.dilation, zero + op.padding, one + op.stride)
        rows = columns.reshape(x.shape[0], op.groups, -1, columns.shape[-1]).permute(1, 0, 3, 2)
    if positions is not None:
        rows = rows[:, :, positions]
    return torch.cat([rows, rows.new_ones(*rows.shape[:-1], 1)], -1)


@dataclass(frozen=True)
class Taps:
    """What a depthwise convolution reads for some outputs.

    Attributes:
        values: (batch, pixels, channels).
        read: the pixels of each output, (positions, pixels of the kernel); -1 is a pixel of zeros.
    """

    values: Tensor
    read: Tensor


def read_by(op: Weighted, by_pixel: Tensor, read: Tensor) -> Tensor | Taps:
    """As `patches_of`, or not laid out where each channel is read alone."""
    return Taps(by_pixel, read) if op.depthwise else patches_of(op, by_pixel, read)


def _add_products(taps: Taps, wanted: Tensor, to: tuple[Tensor | None, Tensor]) -> None:
    """`native_statistics.add_products` without kernels, to the last bit: in float32, one row after the other."""
    silent = torch.zeros_like(taps.values[:, :1])
    rows = torch.cat([taps.values, silent], 1)[:, taps.read].flatten(0, 1)  # -1 is the last pixel
    rows = torch.cat([rows, rows.new_ones(len(rows), 1, rows.shape[2])], 1)
    first, second = torch.tril_indices(rows.shape[1], rows.shape[1])
    for some, lacking in zip(rows.split(BLOCK), wanted.flatten(0, 1).split(BLOCK), strict=True):  # type: ignore[no-untyped-call]
        pairs, cross = torch.zeros(len(first), rows.shape[2]), torch.zeros(rows.shape[1:])
        for row, lack in zip(some, lacking, strict=True):
            pairs += row[first] * row[second]
            cross += row * lack
        to[1].add_(cross)
        if to[0] is not None:
            to[0].add_(pairs)


def patches_of(op: Weighted, by_pixel: Tensor, read: Tensor) -> Tensor:
    """As `patches`, of pixels (batch, pixels, channels).

    `read` are those of each position, (positions, pixels of the kernel); -1 is a pixel of zeros.
    """
    count = len(by_pixel)
    taken = by_pixel.index_select(1, read.clamp(min=0).flatten())
    taken = taken.view(count, *read.shape, op.groups, -1).masked_fill((read < 0)[..., None, None], 0)
    rows = by_pixel.new_ones(op.groups, count, len(read), op.weight[0].numel() + 1)
    by_group = rows[..., :-1].view(op.groups, count, len(read), -1, read.shape[1])
    by_group.copy_(taken.permute(3, 0, 1, 4, 2))
    return rows


def outputs_by_group(op: Weighted, y: Tensor, positions: Tensor | None = None) -> Tensor:
    """Values at the operator's output as (groups, batch, positions, outputs per group)."""
    if op.features_last:
        values = y.reshape(y.shape[0], -1, y.shape[-1]).unsqueeze(0)
    else:
        values = y.reshape(y.shape[0], op.groups, y.shape[1] // op.groups, -1).permute(1, 0, 3, 2)
    return values if positions is None else values[:, :, positions]


class NormalEquations:
    """Sums of U^T U, U^T R and R^2 over any number of blocks, float64; within `BLOCK` rows float32.

    Rows that come in few at a time wait until they are so many: to add up a large product costs as much as some hundred
    rows.

    Args:
        op: the operator to solve for; outputs are numbered as its output channels.

    Attributes:
        left_out: the first inputs, which are not solved for.
    """

    # sums over the channels' taps that wait: of pairs, unless these are known, and with residuals
    _products: tuple[Tensor | None, Tensor] | None = None
    _pairs_known = False

    def __init__(self, op: Weighted) -> None:
        groups, read = op.groups, inputs_of(op)
        self.left_out = 0 if weights_solved(op) else read
        inputs, outputs = read + 1 - self.left_out, op.weight.shape[0] // groups
        self._gram = torch.zeros(groups, inputs, inputs, dtype=torch.float64)
        self._cross = torch.zeros(groups, inputs, outputs, dtype=torch.float64)
        self._power = torch.zeros(groups, outputs, dtype=torch.float64)
        self._rows, self._skewed = 0, False
        self.factors: dict[float, Tensor] = {}
        self._waiting: list[tuple[Tensor, Tensor]] = []

    @property
    def rows(self) -> int:
        """How many have been added to the Gram matrix."""
        self._settle()
        return self._rows

    @property
    def gram(self) -> Tensor:
        """U^T U, (groups, inputs + 1, inputs + 1)."""
        self._settle()
        if self._skewed:  # what is below the diagonal is the same again
            half = self._gram.shape[1] // 2
            self._gram[:, half:, :half] = self._gram[:, :half, half:].transpose(1, 2)
            self._skewed = False
        return self._gram

    @property
    def cross(self) -> Tensor:
        """U^T R, (groups, inputs + 1, outputs per group)."""
        self._settle()
        return self._cross

    @property
    def power(self) -> Tensor:
        """R^2, (groups, outputs per group)."""
        self._settle()
        return self._power

    def add(self, rows: Tensor | Taps, residual: Tensor) -> None:
        """Add a block: `rows` from `patches`, with or without what is left out, `residual` from `outputs_by_group`."""
        if isinstance(rows, Taps):
            self._add_taps(rows, residual)
            return
        used = rows[..., -self._gram.shape[1] :]
        self._waiting.append((used.flatten(1, 2), residual.flatten(1, 2)))
        if sum(u.shape[1] for u, _ in self._waiting) >= BLOCK:
            self._settle(all_of_them=False)

    def _settle(self, *, all_of_them: bool = True) -> None:
        """Take in the rows that wait, or as many whole blocks as there are."""
        self._settle_products()
        if not self._waiting:
            return
        u, r = (torch.cat(parts, 1) for parts in zip(*self._waiting, strict=True))
        kept = 0 if all_of_them else u.shape[1] % BLOCK
        whole = u.shape[1] - kept
        self._waiting = [(u[:, whole:].clone(), r[:, whole:].clone())] if kept else []
        blocks = zip(torch.split(u[:, :whole], BLOCK, 1), torch.split(r[:, :whole], BLOCK, 1), strict=True)
        with threads(1):  # sums that do not depend on how many there are
            for some, wanted in blocks:
                self._add_block(some, wanted)

    def _add_taps(self, taps: Taps, residual: Tensor) -> None:
        (groups, terms), native = self._gram.shape[:2], choose()
        if self._products is None:
            pairs = None if self._pairs_known else torch.zeros(terms * (terms + 1) // 2, groups, dtype=torch.float64)
            self._products = pairs, torch.zeros(terms, groups, dtype=torch.float64)
        values, wanted = taps.values.float(), residual.squeeze(-1).permute(1, 2, 0).float()
        if native is None:
            _add_products(Taps(values, taps.read), wanted, self._products)
        else:
            add_products(native, values, taps.read, wanted, self._products)
        self._power += residual.double().square().sum((1, 2))
        self._rows += 0 if self._pairs_known else residual.shape[1] * residual.shape[2]

    def _settle_products(self) -> None:
        if self._products is None:
            return
        (pairs, cross), self._products = self._products, None
        self._cross += cross.t().unsqueeze(-1)
        if pairs is not None:
            row, column = torch.tril_indices(len(cross), len(cross))
            whole = torch.empty_like(self._gram)
            whole[:, row, column] = whole[:, column, row] = pairs.t()
            self._gram += whole
            self.factors.clear()

    def _add_block(self, some: Tensor, wanted: Tensor) -> None:
        half = some.shape[2] // 2
        left, right = some[..., :half], some[..., half:]
        self._gram[:, :half, :half] += left.transpose(1, 2) @ left
        self._gram[:, half:, half:] += right.transpose(1, 2) @ right
        self._gram[:, :half, half:] += left.transpose(1, 2) @ right
        self._add_wanted(some, wanted)
        self._rows, self._skewed = self._rows + some.shape[1], True
        self.factors.clear()

    def _add_wanted(self, some: Tensor, wanted: Tensor) -> None:
        self._cross += some.transpose(1, 2) @ wanted
        self._power += wanted.double().square().sum(1)

    def cleared(self) -> Residuals:
        """The same Gram matrix, waiting for new residuals."""
        return Residuals(self, torch.zeros_like(self.cross), torch.zeros_like(self.power))

    def with_cross_of(self, parts: Sequence[NormalEquations]) -> NormalEquations:
        """The same Gram matrix and its factors, with the residuals of `parts`, whose rows are its own."""
        return Residuals(self, sum_of([one.cross for one in parts]), sum_of([one.power for one in parts]))

    def sampled(self) -> NormalEquations:
        """The same for some of the outputs, at most `OUTPUTS` of a group: enough to choose a penalty by."""
        step = -(-self.cross.shape[2] // OUTPUTS)
        return self if step == 1 else Residuals(self, self.cross[..., ::step], self.power[:, ::step])

    def solve(self, penalty: float) -> Tensor:
        """dW for lambda = `penalty`, shape (groups, inputs + 1, outputs per group)."""
        solution = torch.cholesky_solve(self.cross / max(self.rows, 1), self._factor(penalty))
        return F.pad(solution, (0, 0, self.left_out, 0))

    def _factor(self, penalty: float) -> Tensor:
        """The Cholesky factor of the Gram matrix with its ridge; all but large ones are kept for the corrections."""
        if penalty in self.factors:
            return self.factors[penalty]
        gram = self.gram / max(self.rows, 1)
        diagonal = torch.diagonal(gram, dim1=1, dim2=2)
        mean = diagonal[:, : max(gram.shape[1] - 1, 1)].mean(1, keepdim=True).clamp(min=1e-12)
        ridge = torch.cat([mean.expand(-1, gram.shape[1] - 1) * penalty, mean * 0 + BIAS_PENALTY], 1)
        factor: Tensor = torch.linalg.cholesky(gram + torch.diag_embed(ridge))
        if factor.numel() <= KEPT_FACTOR:
            self.factors[penalty] = factor
        return factor

    def errors(self, change: Tensor) -> Tensor:
        """Sum of squared residuals per output channel after `change`, shape (outputs,)."""
        change = change[:, -self.gram.shape[1] :]
        explained = (change * self.cross).sum(1) * 2 - (change * (self.gram @ change)).sum(1)
        return (self.power - explained).flatten()


def least_penalty(penalties: Sequence[float], errors: Callable[[float], Tensor]) -> tuple[float, Tensor]:
    """The penalty with the least sum of `errors`, and these: downhill from the middle of the list.

    The error falls and then rises along the list; every penalty that is tried costs a decomposition.
    """
    known: dict[int, Tensor] = {}

    def error(index: int) -> float:
        if index not in known:
            known[index] = errors(penalties[index])
        return float(known[index].sum())

    best = len(penalties) // 2
    for step in (1, -1):
        while 0 <= best + step < len(penalties) and error(best + step) < error(best):
            best += step
    error(best)
    return penalties[best], known[best]


# what is fitted, and what judges it
Split = tuple[NormalEquations, NormalEquations]


def _judged(splits: Sequence[Split], penalty: float) -> Tensor:
    return sum_of([judge.errors(fit.solve(penalty)) for fit, judge in splits])


def chosen_penalty(penalties: Sequence[float], splits: Sequence[Split]) -> tuple[float, Tensor]:
    """The penalty with the least error at some of the outputs, and the errors of these."""
    some = [(fit.sampled(), judge.sampled()) for fit, judge in splits]
    return least_penalty(penalties, lambda penalty: _judged(some, penalty))


def best_penalty(penalties: Sequence[float], splits: Sequence[Split]) -> tuple[float, Tensor]:
    """The same, and the errors of all outputs."""
    best, found = chosen_penalty(penalties, splits)
    return best, found if len(found) == splits[0][1].power.numel() else _judged(splits, best)


class Residuals(NormalEquations):
    """Other right-hand sides for a Gram matrix, whose factors they share.

    Args:
        of: the Gram matrix.
        cross: U^T R, (groups, inputs + 1, outputs per group).
        power: R^2, (groups, outputs per group).
    """

    _pairs_known = True

    def __init__(self, of: NormalEquations, cross: Tensor, power: Tensor) -> None:
        self._gram, self._rows, self.factors, self.left_out = of.gram, of.rows, of.factors, of.left_out
        self._cross, self._power = cross, power
        self._waiting, self._skewed = [], False

    def _add_block(self, some: Tensor, wanted: Tensor) -> None:
        self._add_wanted(some, wanted)


class Merged(NormalEquations):
    """The sums over the blocks of all `parts`, which stay as they are."""

    def __init__(self, parts: Sequence[NormalEquations]) -> None:
        self._gram, self._cross = sum_of([one.gram for one in parts]), sum_of([one.cross for one in parts])
        self._power, self._rows = sum_of([one.power for one in parts]), sum(one.rows for one in parts)
        self.factors, self.left_out = {}, parts[0].left_out
        self._waiting, self._skewed = [], False


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Added in order."""
    return reduce(torch.add, tensors)


def changed(op: Weighted, change: Tensor, share: Tensor | float = 1.0) -> Weighted:
    """`op` with `share` (per output channel) of `change` added to its weights and bias."""
    scales, before = op.part()
    weight, bias = split(op.on_sums(), change)
    factor = torch.as_tensor(share, dtype=torch.float64).expand(op.weight.shape[0])
    old = torch.zeros(op.weight.shape[0]) if op.bias is None else op.bias
    moved = (old.double() + bias * factor).float()
    if not weights_solved(op):
        return op.rebuilt(bias=moved)
    found = (before.double() + weight * factor.reshape(-1, *([1] * (weight.ndim - 1)))).float()
    return op.of_part(found, moved, scales)


def split(op: Weighted, change: Tensor) -> tuple[Tensor, Tensor]:
    """A solution as weights shaped like the operator's and a bias."""
    by_output = change.transpose(1, 2).reshape(op.weight.shape[0], -1)
    return by_output[:, :-1].reshape(op.weight.shape), by_output[:, -1]
