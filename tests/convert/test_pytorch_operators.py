"""Every ATen operator with a rule, alone in a small module, against PyTorch itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnconvert.convert.aten_ops import OPERATORS
from snnconvert.convert.aten_ops.canonicalise import is_aten
from snnconvert.convert.pytorch import import_module, relative_difference, seeded_samples

Function = Callable[[Tensor], Any]
aten = torch.ops.aten
IMAGE, ROW, TOKENS, SIGNAL, VOLUME = (4, 6, 6), (8,), (5, 8), (4, 9), (2, 4, 5, 6)


@cache
def weight(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3)) * 0.3


VECTOR, SQUARE = weight(8), weight(8, 8)
CHANNEL = (weight(4), weight(4), weight(4), weight(4).abs() + 0.5)
HALVES = torch.tensor([True, False, True, True, False, True])


def named(name: str, *args: Any, positive: bool = False) -> Function:
    function = getattr(aten, name)
    return lambda x: function(x.abs() + 0.5 if positive else x, *args) + 1


# One row per rule: a function that reaches it, and the shape of one sample.
CASES: dict[str, tuple[Function, tuple[int, ...]]] = {
    "conv1d": (lambda x: F.conv1d(x, weight(6, 4, 3), weight(6), padding="same"), SIGNAL),
    "conv2d": (lambda x: F.conv2d(x, weight(6, 2, 2, 3), None, (2, 1), padding=(1, 0), groups=2), IMAGE),
    "conv3d": (lambda x: F.conv3d(x.unsqueeze(1), weight(2, 1, 2, 2, 2)), IMAGE),
    "conv_transpose1d": (lambda x: F.conv_transpose1d(x, weight(4, 3, 3), weight(3), 2), SIGNAL),
    "conv_transpose2d": (lambda x: F.conv_transpose2d(x, weight(4, 3, 3, 3), None, 2, 1, 1, dilation=2), IMAGE),
    "conv_transpose3d": (lambda x: F.conv_transpose3d(x.unsqueeze(1), weight(1, 2, 2, 2, 2)), IMAGE),
    "convolution": (
        lambda x: aten.convolution(x, weight(6, 4, 3, 3), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
        IMAGE,
    ),
    "linear": (lambda x: F.linear(x, weight(3, 8), weight(3)), TOKENS),
    "einsum": (lambda x: torch.einsum("bnc,dc->bdn", x, weight(3, 8)), TOKENS),
    "batch_norm": (lambda x: F.batch_norm(x, CHANNEL[2], CHANNEL[3], CHANNEL[0], CHANNEL[1]), IMAGE),
    "_native_batch_norm_legit_no_training": (
        lambda x: aten._native_batch_norm_legit_no_training(x, *CHANNEL, 0.1, 1e-5)[0],
        IMAGE,
    ),
    "addmm": (lambda x: torch.addmm(VECTOR, x, SQUARE, beta=2, alpha=0.5), ROW),
    "matmul": (lambda x: x @ SQUARE, TOKENS),
    "mm": (lambda x: torch.mm(x, SQUARE), ROW),
    "bmm": (lambda x: torch.bmm(x, x.transpose(1, 2)), TOKENS),
    "baddbmm": (lambda x: torch.baddbmm(weight(5), x, x.transpose(1, 2), beta=2, alpha=0.5), TOKENS),
    "relu": (F.relu, ROW),
    "relu6": (lambda x: aten.relu6(x * 5), ROW),
    "clamp": (lambda x: x.clamp(-0.5, 1.0), ROW),
    "clip": (lambda x: aten.clip(x, 0, 0.7), ROW),
    "clamp_min": (lambda x: aten.clamp_min(x, 0), ROW),
    "clamp_max": (lambda x: aten.clamp_max(x, 0.3), ROW),
    "hardtanh": (F.hardtanh, ROW),
    "threshold": (
        lambda x: F.threshold(x, 0, 0) + F.threshold(x, 0.3, 5) + F.threshold(x, -0.4, 0) + F.threshold(x, 0.2, 0.2),
        ROW,
    ),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), ROW),
    "rrelu": (named("rrelu"), ROW),
    "prelu": (lambda x: F.prelu(x, weight(4)), IMAGE),
    "_prelu_kernel": (lambda x: aten._prelu_kernel(x, weight(1, 4, 1, 1)), IMAGE),
    "gelu": (lambda x: F.gelu(x) + F.gelu(x, approximate="tanh"), ROW),
    "elu": (F.elu, ROW),
    "celu": (lambda x: F.celu(x, 0.7), ROW),
    "log1p": (lambda x: (x.abs() + 0.2).log1p(), ROW),
    "softplus": (lambda x: F.softplus(x) + F.softplus(x, 2.0, 10.0), ROW),
    "log_sigmoid": (F.logsigmoid, ROW),
    "glu": (F.glu, ROW),
    "add": (lambda x: torch.add(x.relu(), x, alpha=3) + VECTOR, ROW),
    "sub": (lambda x: torch.sub(x, x.relu(), alpha=2) - 1, ROW),
    "subtract": (lambda x: aten.subtract(VECTOR, x, alpha=2), ROW),
    "rsub": (lambda x: torch.rsub(x, VECTOR, alpha=2), ROW),
    "neg": (lambda x: -x, ROW),
    "mul": (lambda x: x * x.sigmoid() * VECTOR * 2, ROW),
    "multiply": (lambda x: aten.multiply(x, x), ROW),
    "div": (lambda x: x / (x.abs() + 1) / VECTOR + 1 / (2 + x.abs()), ROW),
    "divide": (lambda x: aten.divide(x, VECTOR), ROW),
    "true_divide": (lambda x: aten.true_divide(x, VECTOR), ROW),
    "addcmul": (lambda x: torch.addcmul(VECTOR, VECTOR, x, value=2) + torch.addcmul(x, x, x.relu()), ROW),
    "addcdiv": (lambda x: torch.addcdiv(x, x, x.abs() + 1), ROW),
    "pow": (lambda x: x**2 + x**3 + x.abs() ** 0.5 + (x.abs() + 1) ** -0.5, ROW),
    "maximum": (lambda x: torch.maximum(x, VECTOR) + torch.maximum(x, -x), ROW),
    "minimum": (lambda x: torch.minimum(x, VECTOR) + torch.minimum(x, x * x), ROW),
    "where": (lambda x: torch.where(HALVES, x, 0.5) + torch.where(HALVES, x, -x), IMAGE),
    "masked_fill": (lambda x: x.masked_fill(HALVES, -2.0), IMAGE),
    **{
        name: (named(name), ROW)
        for name in ("sigmoid", "tanh", "hardsigmoid", "hardswish", "silu", "selu", "mish", "erf", "exp")
    },
    **{name: (named(name), ROW) for name in ("abs", "square", "sin", "cos", "floor", "sign")},
    **{name: (named(name, positive=True), ROW) for name in ("log", "sqrt", "rsqrt", "reciprocal")},
    "max_pool1d": (lambda x: F.max_pool1d(x, 3, 2, 1), SIGNAL),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGE),
    "max_pool3d": (lambda x: F.max_pool3d(x, (3, 2, 3), (2, 1, 3), (1, 0, 1), ceil_mode=True), VOLUME),
    "max_pool3d_with_indices": (lambda x: aten.max_pool3d_with_indices(x, [2, 2, 2])[0], VOLUME),
    "max_pool1d_with_indices": (lambda x: aten.max_pool1d_with_indices(x, [2])[0], SIGNAL),
    "max_pool2d_with_indices": (lambda x: aten.max_pool2d_with_indices(x, [2, 2])[0], IMAGE),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 3), SIGNAL),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), IMAGE),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 4), SIGNAL),
    "avg_pool3d": (lambda x: F.local_response_norm(x, 3, alpha=0.5), IMAGE),
    "var": (lambda x: x.var((2, 3)) + x.var((2, 3), unbiased=False), IMAGE),
    "std": (lambda x: x.std(1, keepdim=True), IMAGE),
    "logsumexp": (lambda x: x.logsumexp((2, 3)), IMAGE),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), IMAGE),
    "_adaptive_avg_pool2d": (lambda x: aten._adaptive_avg_pool2d(x, [12, 6]), IMAGE),
    "adaptive_max_pool1d": (lambda x: F.adaptive_max_pool1d(x, 3) + F.adaptive_max_pool1d(x, 20)[..., :3], SIGNAL),
    "adaptive_max_pool2d": (
        lambda x: F.adaptive_max_pool2d(x, (2, 3)) + F.adaptive_max_pool2d(x, (4, 5))[..., 1:3, :3],
        IMAGE,
    ),
    "adaptive_avg_pool3d": (lambda x: F.adaptive_avg_pool3d(x, (2, 3, 3)), VOLUME),
    "adaptive_max_pool3d": (lambda x: F.adaptive_max_pool3d(x, (3, 2, 4)), VOLUME),
    "mean": (lambda x: x.mean((-1, -2)), IMAGE),
    "sum": (lambda x: x.sum(1, keepdim=True), IMAGE),
    "amax": (lambda x: x.amax((2, 3)), IMAGE),
    "amin": (lambda x: x.amin(1), IMAGE),
    "max": (lambda x: torch.max(x, dim=1)[0] + torch.max(x, -x).mean(1), IMAGE),
    "min": (lambda x: torch.min(x, dim=1)[0] + torch.min(x, -x).mean(1), IMAGE),
    "linalg_vector_norm": (lambda x: torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True), IMAGE),
    "norm": (lambda x: aten.norm(x, 2, [1]), IMAGE),
    "upsample_nearest2d": (lambda x: F.interpolate(x, scale_factor=2), IMAGE),
    "_upsample_nearest_exact2d": (
        lambda x: (
            F.interpolate(x, (9, 7), mode="nearest-exact")[..., :6] + F.interpolate(x, (9, 6), mode="nearest-exact")
        ),
        IMAGE,
    ),
    "upsample_bilinear2d": (lambda x: F.interpolate(x, size=(9, 7), mode="bilinear", align_corners=True), IMAGE),
    "upsample_bicubic2d": (lambda x: F.interpolate(x, size=(9, 4), mode="bicubic"), IMAGE),
    "contiguous": (lambda x: x.transpose(1, 2).contiguous(), TOKENS),
    "clone": (lambda x: x.clone() + 1, ROW),
    "alias": (lambda x: aten.alias(x) + 1, ROW),
    "detach": (lambda x: aten.detach(x) + 1, ROW),
    "lift_fresh_copy": (lambda x: aten.lift_fresh_copy(x) + 1, ROW),
    **{
        name: (named(name, 0.5, False), IMAGE)
        for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
    },
    "to": (lambda x: aten.to(x, torch.float32) + 1, ROW),
    "_to_copy": (lambda x: aten._to_copy(x, dtype=torch.float32) + 1, ROW),
    "type_as": (lambda x: x.type_as(VECTOR) + 1, ROW),
    "reshape": (lambda x: x.reshape(x.shape[0], 2, -1), IMAGE),
    "view": (lambda x: x.view(-1, 144), IMAGE),
    "_unsafe_view": (lambda x: aten._unsafe_view(x, [x.shape[0], 24, 6]), IMAGE),
    "reshape_as": (lambda x: x.flatten(1).reshape_as(x) + 1, IMAGE),
    "view_as": (lambda x: x.flatten(1).view_as(x) + 1, IMAGE),
    "flatten": (lambda x: x.flatten(1), IMAGE),
    "unflatten": (lambda x: x.unflatten(1, (2, -1)), IMAGE),
    "squeeze": (lambda x: x[:, :1].squeeze(), IMAGE),
    "unsqueeze": (lambda x: x.unsqueeze(-1), IMAGE),
    "permute": (lambda x: x.permute(0, 3, 1, 2), IMAGE),
    "transpose": (lambda x: x.transpose(-1, 1), IMAGE),
    "swapaxes": (lambda x: aten.swapaxes(x, 1, 2), IMAGE),
    "t": (lambda x: F.linear(aten.t(x).t(), SQUARE), ROW),
    "movedim": (lambda x: x.movedim((1, 2), (-1, 1)), IMAGE),
    "expand": (lambda x: x.unsqueeze(2).expand(-1, -1, 3) + x.sum(1).view(-1, 1, 1), ROW),
    "expand_as": (lambda x: x.mean(1, keepdim=True).expand_as(x) + x, IMAGE),
    "repeat": (lambda x: x.repeat(1, 2, 1, 3), IMAGE),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, dim=2), IMAGE),
    "slice": (lambda x: x[:, 1:-1, ::2], IMAGE),
    "narrow": (lambda x: x.narrow(2, 1, 3), IMAGE),
    "select": (lambda x: x[:, -1] + x[:, 0], IMAGE),
    "unbind": (lambda x: x.unbind(1)[2] * 2, IMAGE),
    "split": (lambda x: x.split(4, 2)[1] * 2, IMAGE),
    "split_with_sizes": (lambda x: x.split([1, 5], -1)[1] * 2, IMAGE),
    "chunk": (lambda x: torch.cat(x.chunk(4, 2)[::-1], 2), IMAGE),
    "index_select": (lambda x: x.index_select(1, torch.tensor([3, 0, 0])), IMAGE),
    "index": (lambda x: x[:, :, [5, -6, 1]], IMAGE),
    "flip": (lambda x: x.flip(1, 3), IMAGE),
    "rot90": (lambda x: sum(torch.rot90(x, k, (3, 2)) * k for k in (1, 2, -1)) + torch.rot90(x, 5, (2, 3)), IMAGE),
    "roll": (lambda x: x.roll((2, -1), (2, 3)), IMAGE),
    "pad": (lambda x: F.pad(F.pad(x, (1, 2, 0, 1), mode="reflect"), (0, 0, -1, 1, 2, 0), value=0.5), IMAGE),
    "constant_pad_nd": (lambda x: aten.constant_pad_nd(x, [1, 0, 0, 1], 2.0), IMAGE),
    "im2col": (lambda x: F.unfold(x, (3, 2), dilation=(1, 2), padding=1, stride=2), IMAGE),
    "cat": (lambda x: torch.cat([x, weight(1, 4, 2, 6).expand(x.shape[0], -1, -1, -1), x], 2), IMAGE),
    "concat": (lambda x: aten.concat([x, x * 2], 1), IMAGE),
    "stack": (lambda x: torch.stack([x, x * 2], -1), IMAGE),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), IMAGE),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 3), IMAGE),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), IMAGE),
    "softmax": (lambda x: x.softmax(-1), IMAGE),
    "_softmax": (lambda x: aten._softmax(x, 1, False), IMAGE),
    "log_softmax": (lambda x: x.log_softmax(1), IMAGE),
    "_log_softmax": (lambda x: aten._log_softmax(x, 1, False), IMAGE),
    "layer_norm": (lambda x: F.layer_norm(x, (8,), VECTOR, VECTOR), TOKENS),
    "rms_norm": (lambda x: F.rms_norm(x, (8,), VECTOR) + F.rms_norm(x, (5, 8), eps=0.1), TOKENS),
    "group_norm": (lambda x: F.group_norm(x, 2, weight(4)), IMAGE),
    "instance_norm": (lambda x: F.instance_norm(x, weight=weight(4)), IMAGE),
    "scaled_dot_product_attention": (
        lambda x: F.scaled_dot_product_attention(x.unsqueeze(1), x.unsqueeze(1), x.unsqueeze(1), is_causal=True),
        TOKENS,
    ),
    "full": (lambda x: torch.cat([x, torch.full((x.shape[0], 2), 0.5)], 1), ROW),
    "zeros": (lambda x: torch.cat([x, torch.zeros(x.shape[0], 2)], 1), ROW),
    "ones": (lambda x: torch.cat([x, torch.ones(x.shape[0], 2)], 1), ROW),
    "new_zeros": (lambda x: torch.cat([x, x.new_zeros(x.shape[0], 2)], 1), ROW),
    "new_ones": (lambda x: x * x.new_ones(8), ROW),
    "new_full": (lambda x: torch.cat([x, x.new_full((x.shape[0], 2), 3.0)], 1), ROW),
    "zeros_like": (lambda x: torch.cat([x, torch.zeros_like(x)], 1), ROW),
    "ones_like": (lambda x: x + torch.ones_like(x), ROW),
    "full_like": (lambda x: x + torch.full_like(x, 2.0), ROW),
}


class Applied(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


# Comparisons have no value of their own: they are tested in the activations that they make up.
CASES |= {
    "gt": (lambda x: torch.where(x > 0, x, 0.1 * x), (3, 4)),
    "ge": (lambda x: x * (x >= 0).float(), (3, 4)),
    "logical_and": (lambda x: torch.where((x > -0.5).logical_and(x < 0.7), x.exp(), x), (3, 4)),
    "bitwise_and": (lambda x: torch.bitwise_and(x > -0.5, x < 0.7).float() + x, (3, 4)),
    "__and__": (lambda x: ((x > -0.5) & (x < 0.7)).float() + x, (3, 4)),
    "logical_or": (lambda x: x.masked_fill((x < -0.5).logical_or(x > 0.7), 0.1), (3, 4)),
    "bitwise_or": (lambda x: torch.bitwise_or(x < -0.5, x >= 0.7) * x, (3, 4)),
    "__or__": (lambda x: ((x < -0.5) | (x >= 0.7)) * x, (3, 4)),
    "logical_not": (lambda x: torch.where((x > 0.2).logical_not(), x, 2.0), (3, 4)),
    "bitwise_not": (lambda x: torch.where(~(x > 0), x, 2.0), (3, 4)),
    "hardshrink": (lambda x: F.hardshrink(x, 0.4), (3, 4)),
    "softshrink": (lambda x: F.softshrink(x, 0.4), (3, 4)),
    "lt": (lambda x: torch.where(x < 0, torch.zeros_like(x), x), (3, 4)),
    "le": (lambda x: torch.where(x <= 0, x * torch.tensor([0.5, -0.2, 2.0, 0.0]), x), (3, 4)),
}


def test_every_rule_has_a_case() -> None:
    assert {*CASES, "embedding"} == set(OPERATORS)  # of whole numbers: test_several_inputs.py


@pytest.mark.parametrize("name", CASES)
def test_rule_is_exact(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, shape = CASES[name]
    rule, used = OPERATORS[name], []

    def counted(*args: Any, **options: Any) -> Any:
        used.append(name)
        return rule(*args, **options)

    monkeypatch.setitem(OPERATORS, name, counted)
    ann = import_module(Applied(function), shape)
    samples = seeded_samples(4, shape, 5)
    assert relative_difference(function(samples), ann.graph(samples)[0]) < 2e-6
    assert used, f"the case does not reach {name}"


def test_only_aten_is_trusted() -> None:
    assert is_aten(aten.relu.default)
    assert not is_aten(print)
