"""What attention is made of where all of it is sent as spikes, window by window: products, quotients, exponentials.

    layer norm   D = C x - sum x;   s = sqrt(mean of squares of D / C^2 + eps);   D / s, then gamma / C and beta
    attention    e = exp(q k^T - its row's largest);   (e v) / sum e

Operators on spikes alone (`Centre`, `Product`, `Squares`) add up counts; sites (`Function`, `Exponential`, `Quotient`)
become neurons that send f of their membrane, or whose threshold is a sum of spikes itself. All of them need the whole
of what they read, so that only a schedule of windows, in which each layer waits for the one before, has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from snnconvert.graph.kinds.activations import Activation
from snnconvert.graph.kinds.analog import FUNCTIONS
from snnconvert.graph.kinds.base import Op, Role, Shape
from snnconvert.graph.kinds.neurons import Neuron
from snnconvert.neurons.power_of_two import MOST_SLOTS, powers_of_two

_OUT_OF_REACH = 2.0**500
# what a neuron may send of its membrane
_SENT = {**FUNCTIONS, "identity": torch.clone}
# of what a product of units is worth, so that sums of products stay exact in float64
_WORTH_BITS = 12


def _few_bits(values: Tensor) -> Tensor:
    """Rounded to so many significant bits."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp((mantissa * 2.0**_WORTH_BITS).round() * 2.0**-_WORTH_BITS, exponent)


class Centre(Op):
    """C x - sum x along the last axis, of C values: C times what is left of x without its mean, exact on a grid."""

    role = Role.POOL

    def forward(self, x: Tensor) -> Tensor:
        centred: Tensor = x * x.shape[-1] - x.sum(-1, keepdim=True)
        return centred

    def largest(self, *inputs: float) -> float:
        """Not known without the shape."""
        return math.inf

    def pooled_axes(self, rank: int) -> tuple[int, ...]:
        """The last."""
        return (rank,)

    def additions(self, inputs: Sequence[Shape], output: Shape) -> int:
        """One into the sum, and one of it."""
        return 2 * math.prod(output)


class Product(Op):
    """Matrix product of two streams of spikes, times `scale`: S <- S + a B + A b for spikes a, b and counts A, B.

    In a spiking network `rows` and `columns`, which broadcast against a and b, say what a product of two units is
    worth: rows times columns, in place of `scale`.
    """

    role = Role.PRODUCT
    fields = ("scale",)
    rows: Tensor | None
    columns: Tensor | None

    def __init__(self, rows: Tensor | None = None, columns: Tensor | None = None, *, scale: float = 1.0) -> None:
        super().__init__()
        self.tensor("rows", rows)
        self.tensor("columns", columns)
        self.scale = float(scale)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.worth(a @ b)

    def worth(self, counted: Tensor) -> Tensor:
        """What products of counts stand for."""
        if self.rows is None or self.columns is None:
            return counted * self.scale
        return counted * (self.rows * self.columns)

    def on_units(self, *amplitudes: Tensor) -> Self | None:
        """Itself on unit spikes that are worth `amplitudes`, shaped as the inputs' samples.

        None where the units that are added up differ in worth: every product then takes a multiplication.
        """
        a, b = (one.double() for one in amplitudes)
        # along the sum: by how much a unit is worth more than the first, of every row of a and every column of b
        left, right = a / a[..., :1], b / b[..., :1, :]
        alike = all(
            torch.allclose(one, first.expand_as(one), rtol=1e-5)
            for one, first in (
                (left, left[..., :1, :]),
                (right, right[..., :1]),
            )
        )
        if not alike or not torch.allclose(left[..., :1, :] * right[..., :1].mT, torch.ones(()).double(), rtol=1e-5):
            return None
        return self.rebuilt(rows=_few_bits(a[..., :1] * self.scale), columns=_few_bits(b[..., :1, :]))

    def linear_part(self) -> Op | None:
        """None."""
        return None

    def multiply_accumulates(self, inputs: Sequence[Shape], output: Shape) -> int:
        """A row times a column for every output."""
        return math.prod(output) * inputs[0][-1]

    def reached(self, index: int, inputs: Sequence[Shape]) -> int:
        """Additions that a spike of input `index` causes: the counts that it meets, and its own."""
        return 1 + (inputs[1][-1] if index == 0 else inputs[0][-2])


class Squares(Op):
    """scale times the sum of the squares along the last axis, plus `eps`: n^2 grows by s (2 n + s) with a spike s.

    In a spiking network `weight` (1,) holds what the square of a unit is worth, in place of `scale`.
    """

    role = Role.PRODUCT
    fields = ("scale", "eps")
    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, *, scale: float, eps: float) -> None:
        super().__init__()
        self.tensor("weight", weight)
        self.scale, self.eps = float(scale), float(eps)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.scale if self.weight is None else self.weight
        summed: Tensor = (x.square() * weight).sum(-1, keepdim=True)
        return summed + self.eps

    def on_units(self, *amplitudes: Tensor) -> Self | None:
        """Itself on unit spikes that are all worth the same."""
        (amplitude,) = amplitudes
        worth = amplitude.double().flatten()
        if not torch.equal(worth, worth[:1].expand_as(worth)):
            return None
        return self.rebuilt(weight=_few_bits(worth[:1].square() * self.scale))

    def linear_part(self) -> Op | None:
        """None."""
        return None

    def multiply_accumulates(self, inputs: Sequence[Shape], output: Shape) -> int:
        """One for every value."""
        return math.prod(inputs[0])

    def reached(self, index: int, inputs: Sequence[Shape]) -> int:
        """Its count, and twice its count into the sum."""
        del index, inputs
        return 2


# --- sites, and the neurons that they become ------------------------------------------------------


class Coded(Activation):
    """A site whose neurons send a function of their membrane as a few powers of two.

    Attributes:
        spikes: how many for a value; every slot may have one where it is large enough.
        compared: comparisons and additions with which a neuron finds the function of its membrane.
    """

    signed = True
    spikes: int = 2
    compared: ClassVar[int] = 8

    def slots(self, window: int) -> int:
        """Those of a window in which its spikes are worth something."""
        return min(window, MOST_SLOTS)

    def levels_in(self, window: int, usual: int) -> int:
        """All slots together."""
        del usual
        return int(2 ** self.slots(window) - 1)

    def neuron(self, calibrated: Neuron, window: int, worth: Tensor) -> Neuron:
        """One that sends the function of its membrane."""
        del worth
        function = str(self.arguments().get("function", ""))
        threshold, slots = calibrated.threshold, self.slots(window)
        return CodedNeuron(threshold, torch.zeros_like(threshold), function=function, spikes=self.spikes, slots=slots)


class Function(Coded):
    """A scalar function from FUNCTIONS, or the identity: neurons compare membranes with where it takes each value."""

    elementwise = True
    fields = ("function", "spikes")

    def __init__(self, *, function: str, spikes: int = 2) -> None:
        super().__init__()
        self.function, self.spikes = function, spikes

    def forward(self, x: Tensor) -> Tensor:
        return _SENT[self.function](x)


class Exponential(Coded):
    """exp of x less the largest along the last axis: what a softmax divides by its sum."""

    elementwise = False
    fields = ("spikes",)

    def __init__(self, *, spikes: int = 2) -> None:
        super().__init__()
        self.spikes = spikes

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x - x.amax(-1, keepdim=True))

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """One for every value."""
        return inputs[0]

    @property
    def ceiling(self) -> float:
        """That of the largest."""
        return 1.0


class Quotient(Activation):
    """x / s, of a site that fires at thresholds of s times its own (s > 0 broadcasts against x)."""

    signed = True
    elementwise = False

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        return x / s

    def neuron(self, calibrated: Neuron, window: int, worth: Tensor) -> Neuron:
        """One whose threshold is times what its second input sends."""
        del window
        return DividingNeuron(**calibrated.tensors(), worth=worth, **calibrated.arguments())  # type: ignore[arg-type]


class CodedNeuron(Neuron):
    """A neuron that sends f of its membrane, rounded to a sum of at most `spikes` powers of two.

    f is `function`, or, where that is empty, exp of what the membrane lies below the largest of its row (last axis).
    """

    elementwise = False
    fields = ("function", "spikes", "slots")
    plain = False

    def __init__(self, threshold: Tensor, initial: Tensor, *, spikes: int, slots: int, function: str = "") -> None:
        super().__init__(threshold, initial, model="power-of-two", levels=2**slots - 1)
        self.function, self.spikes, self.slots = function, spikes, slots

    def arguments(self) -> dict[str, object]:
        """What it is made of."""
        return {name: getattr(self, name) for name in self.fields}

    def forward(self, x: Tensor) -> Tensor:
        return self.shaped(x).clamp(*self.limits)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """One for every membrane, of which each may see its whole row."""
        return self.broadcast(*inputs)

    def driven(self, *inputs: Tensor) -> Tensor:
        """The function of its membrane."""
        (membrane,) = inputs
        if self.function:
            return _SENT[self.function](membrane)
        return torch.exp(membrane - membrane.amax(-1, keepdim=True))

    def shaped(self, membrane: Tensor) -> Tensor:
        """The number of units to send, not rounded yet."""
        return self.driven(membrane) / self.threshold

    def in_window(self, membrane: Tensor) -> tuple[Tensor, Tensor] | None:
        """The nearest sum of so many powers of two."""
        return powers_of_two(self.shaped(membrane), self.slots, self.spikes)

    @property
    def compared(self) -> int:
        """As of its site; with the largest of the row, which is found and subtracted."""
        return Coded.compared + (0 if self.function else 2)


class DividingNeuron(Neuron):
    """A signed neuron of two inputs: it integrates the first, the second is what threshold and reset are times.

    A spike of the second adds `worth` thresholds to each neuron's threshold, which stays for the window in which they
    send. Nothing is sent where it is 0.
    """

    plain = False
    worth: Tensor

    def __init__(
        self,
        threshold: Tensor,
        initial: Tensor,
        worth: Tensor,
        *,
        model: str,
        levels: int = 1,
        ceiling: float | None = None,
    ) -> None:
        super().__init__(threshold, initial, model=model, levels=levels, ceiling=ceiling)
        self.tensor("worth", worth)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:  # type: ignore[override]
        return (self.driven(x, s) / self.threshold).clamp(*self.limits)

    def driven(self, *inputs: Tensor) -> Tensor:
        """What came in over what divides it."""
        x, s = inputs
        return torch.where(s > 0, x / (s * self.worth), 0.0)

    def scaled(self, *others: Tensor) -> tuple[Tensor, Tensor]:
        """Its own times what the second input is worth; no membrane reaches a threshold times nothing."""
        (s,) = others
        factor = s * self.worth
        return self.threshold * torch.where(s > 0, factor, _OUT_OF_REACH), self.initial * factor.clamp(min=0)


__all__ = [
    "Centre",
    "CodedNeuron",
    "DividingNeuron",
    "Exponential",
    "Function",
    "Product",
    "Quotient",
    "Squares",
]
