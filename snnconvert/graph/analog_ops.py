"""Operators without a spiking form of their own: legal in the graph, counted and named in every report."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.graph.ops import Op, Role

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


class Elementwise(Op):
    """A scalar function from FUNCTIONS, applied to every element."""

    role = Role.ANALOG
    fields = ("function",)

    def __init__(self, *, function: str) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return FUNCTIONS[self.function](x)


class Clamp(Op):
    """Clip to [low, high] where low is not 0 (a Clip with low = 0 is an activation site)."""

    role = Role.ANALOG
    fields = ("low", "high")

    def __init__(self, *, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = float(low), float(high)

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)


class Power(Op):
    """x ** exponent."""

    role = Role.ANALOG
    fields = ("exponent",)

    def __init__(self, *, exponent: float) -> None:
        super().__init__()
        self.exponent = float(exponent)

    def forward(self, x: Tensor) -> Tensor:
        return x**self.exponent


class Multiply(Op):
    """Product of two activations (squeeze-excite gates, Hadamard products)."""

    role = Role.ANALOG

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class Divide(Op):
    """Quotient of two activations."""

    role = Role.ANALOG

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a / b


class Maximum(Op):
    """Elementwise maximum of two activations."""

    role = Role.ANALOG

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b)


class MatMul(Op):
    """Matrix product of two activations (attention)."""

    role = Role.ANALOG

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        # A sum of spikes may come in float64 and meet an analog value in float32.
        kind = torch.promote_types(a.dtype, b.dtype)
        return a.to(kind) @ b.to(kind)


class Softmax(Op):
    """Softmax along `dim`."""

    role = Role.ANALOG
    fields = ("dim", "log")

    def __init__(self, *, dim: int, log: bool = False) -> None:
        super().__init__()
        self.dim, self.log = dim, log

    def forward(self, x: Tensor) -> Tensor:
        return x.log_softmax(self.dim) if self.log else x.softmax(self.dim)


class LayerNorm(Op):
    """Normalisation over the trailing axes `shape`. Tensors: weight and bias of that shape, or None."""

    role = Role.ANALOG
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


class GroupNorm(Op):
    """Normalisation over groups of channels (instance norm: groups = channels). Tensors: weight, bias (C) or None."""

    role = Role.ANALOG
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


class Reduce(Op):
    """A reduction over `dims` by `function`: max, min, or l2 (sums are Mean followed by Affine)."""

    role = Role.ANALOG
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
