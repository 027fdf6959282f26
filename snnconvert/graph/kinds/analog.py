"""Operators without a spiking form of their own: legal in the graph, counted and named in every report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.graph.kinds.base import Op, Role, Shape

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "mish": F.mish,
    "softsign": F.softsign,
    "erf": torch.erf,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "abs": torch.abs,
    "square": torch.square,
    "sin": torch.sin,
    "cos": torch.cos,
    "floor": torch.floor,
    "sign": torch.sign,
}


class Analog(Op):
    """Computed on the means so far, exact at every step (see `simulate.over_time`)."""

    role = Role.ANALOG

    def multiply_accumulates(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Counted as one for every value."""
        return math.prod(output)

    def linear_part(self) -> Op | None:
        """None."""
        return None


class Elementwise(Analog):
    """A scalar function from FUNCTIONS, applied to every element."""

    elementwise = True
    fields = ("function",)

    def __init__(self, *, function: str) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return FUNCTIONS[self.function](x)


class Clamp(Analog):
    """Clip to [low, high] where low is not 0 (a Clip with low = 0 is an activation site)."""

    elementwise = True
    fields = ("low", "high")

    def __init__(self, *, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = float(low), float(high)

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)


class Power(Analog):
    """x ** exponent."""

    elementwise = True
    fields = ("exponent",)

    def __init__(self, *, exponent: float) -> None:
        super().__init__()
        self.exponent = float(exponent)

    def forward(self, x: Tensor) -> Tensor:
        return x**self.exponent


class Multiply(Analog):
    """Product of two activations (squeeze-excite gates, Hadamard products)."""

    elementwise = True

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class Divide(Analog):
    """Quotient of two activations."""

    elementwise = True

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a / b


class Maximum(Analog):
    """Elementwise maximum of two activations."""

    elementwise = True

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b)


class Choose(Analog):
    """The second of three values where the first, which is 0 or 1, is 1; else the third."""

    elementwise = True

    def forward(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(condition > 0.5, a, b)


class MatMul(Analog):
    """Matrix product of two activations (attention)."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        # A sum of spikes may come in float64 and meet an analog value in float32.
        kind = torch.promote_types(a.dtype, b.dtype)
        return a.to(kind) @ b.to(kind)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """Rows of the first by columns of the second."""
        a, b = inputs
        if len(a) != len(b) or len(a) < 3 or a[-1] != b[-2]:
            return None
        fits = all(one == other or 1 in {one, other} for one, other in zip(a[:-2], b[:-2], strict=True))
        return (*map(max, zip(a[:-2], b[:-2], strict=True)), a[-2], b[-1]) if fits else None

    @property
    def plain_name(self) -> str:
        """As a sentence has it."""
        return "matrix product"

    def multiply_accumulates(self, inputs: Sequence[Shape], output: Shape) -> int:
        """A row times a column for every output."""
        return math.prod(output) * inputs[0][-1]


class Embedding(Analog):
    """Rows of a table by whole numbers, (..., width) for (...). Tensors: weight (rows, width)."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.tensor("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        # A mean over time is near the whole number that it stands for.
        rows: Tensor = F.embedding(x.round().long().clamp(0, len(self.weight) - 1), self.weight)
        return rows

    @property
    def plain_name(self) -> str:
        """As a sentence has it."""
        return "look-up in a table"

    def multiply_accumulates(self, inputs: Sequence[Shape], output: Shape) -> int:
        """None: values are read."""
        return 0


class Softmax(Analog):
    """Softmax along `dim`."""

    fields = ("dim", "log")

    def __init__(self, *, dim: int, log: bool = False) -> None:
        super().__init__()
        self.dim, self.log = dim, log

    def forward(self, x: Tensor) -> Tensor:
        return x.log_softmax(self.dim) if self.log else x.softmax(self.dim)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """One for every value."""
        (shape,) = inputs
        return shape if -len(shape) <= self.dim < len(shape) else None


class LayerNorm(Analog):
    """Normalisation over the trailing axes `shape`. Tensors: weight and bias of that shape, or None."""

    fields = ("shape", "eps")
    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self, weight: Tensor | None, bias: Tensor | None, *, shape: tuple[int, ...], eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.tensor("weight", weight)
        self.tensor("bias", bias)
        self.shape, self.eps = tuple(shape), float(eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """One for every value, where the trailing axes are its own."""
        (shape,) = inputs
        own = all(tuple(buffer.shape) == self.shape for buffer in self.buffers())
        return shape if own and shape[-len(self.shape) :] == self.shape else None


class GroupNorm(Analog):
    """Normalisation over groups of channels (instance norm: groups = channels). Tensors: weight, bias (C) or None."""

    fields = ("groups", "eps")
    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, weight: Tensor | None, bias: Tensor | None, *, groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.tensor("weight", weight)
        self.tensor("bias", bias)
        self.groups, self.eps = groups, float(eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """One for every value, where its groups are whole."""
        (shape,) = inputs
        fits = len(shape) > 1 and self.groups > 0 and shape[1] % self.groups == 0
        return shape if fits and all(tuple(buffer.shape) == (shape[1],) for buffer in self.buffers()) else None


class Reduce(Analog):
    """A reduction over `dims` by `function`: max, min, or l2 (sums are Mean followed by Affine)."""

    fields = ("function", "dims", "keepdim")

    def __init__(self, *, function: str, dims: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.function, self.dims, self.keepdim = function, tuple(dims), keepdim

    def forward(self, x: Tensor) -> Tensor:
        if self.function == "max":
            return x.amax(self.dims, self.keepdim)
        if self.function == "min":
            return x.amin(self.dims, self.keepdim)
        return x.square().sum(self.dims, self.keepdim).sqrt()
