"""Convolutions as matrix products, and what is switched off on a CUDA device while the engine runs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from snnconvert.graph.kinds import Conv
from snnconvert.simulate import exact_products, layer_engine
from snnconvert.simulate.exact_products import convolved, exact_arithmetic
from snnconvert.simulate.layer_engine import LayerEngine
from tests.simulate.small_networks import pictures, small_snn

CUDA = torch.device("cuda")


@pytest.mark.parametrize("seed", range(40))
def test_convolutions_equal_torch(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    rank, dtype = int(rng.choice([1, 2, 2, 3])), [torch.float32, torch.float64][seed % 2]
    groups, inputs, outputs = [(1, 5, 4), (1, 3, 1), (3, 2, 4), (6, 1, 1), (3, 1, 2)][seed % 5]

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(low, high, rank).tolist())

    def dyadic(*shape: int) -> Tensor:
        return torch.tensor(rng.integers(-8, 9, shape), dtype=dtype) / 8

    weight, bias = dyadic(groups * outputs, inputs, *each(1, 4)), dyadic(groups * outputs)
    op = Conv(weight, bias if rng.random() < 0.5 else None, stride=each(1, 4), padding=each(0, 3),
              dilation=each(1, 3), groups=groups)  # fmt: skip
    x = torch.tensor(rng.integers(-3, 4, (4, groups * inputs, *each(6, 10))), dtype=dtype)
    if rank == 2 and rng.random() < 0.5:
        x = x.contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(exact_products, "MOST_WINDOWS", int(rng.choice([1, 4000, 2**28])))
    found = convolved(op, x)
    assert found.dtype == dtype
    assert torch.equal(found, op(x))
    assert rank != 2 or found.is_contiguous(memory_format=torch.channels_last)


def settings() -> tuple[object, ...]:
    products = torch.backends.cuda.matmul
    return getattr(products, "fp32_precision", None), torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark


@pytest.fixture(params=["default", "older", "newer"])
def allowed(request: pytest.FixtureRequest) -> object:
    """TF32 for matrix products, as users allow it."""
    products = torch.backends.cuda.matmul
    if request.param != "default" and not hasattr(products, "fp32_precision"):
        pytest.skip("this torch has one setting only")
    before = products.fp32_precision if request.param == "newer" else products.allow_tf32
    if request.param == "older":
        products.allow_tf32 = True
    elif request.param == "newer":
        products.fp32_precision = "tf32"
    yield settings()
    if request.param == "newer":
        products.fp32_precision = before
    else:
        products.allow_tf32 = before


def test_tf32_and_cudnn_are_off_during_a_run_only(allowed: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_engine, "exact_arithmetic", lambda _: exact_arithmetic(CUDA))
    (snn, _), seen = small_snn(), list[tuple[object, ...]]()
    LayerEngine(snn).run(pictures(1), lambda *_: seen.append(settings()))
    assert seen
    for precision, cudnn, benchmark in seen:
        assert precision in ("ieee", None)
        assert not cudnn
        assert benchmark == torch.backends.cudnn.benchmark
    assert settings() == allowed


def test_settings_come_back_after_an_error(allowed: object) -> None:
    with pytest.raises(ZeroDivisionError), exact_arithmetic(CUDA):
        raise ZeroDivisionError
    assert settings() == allowed


def test_torch_before_2_9(monkeypatch: pytest.MonkeyPatch) -> None:
    products = SimpleNamespace(allow_tf32=True)
    monkeypatch.setattr(torch.backends.cuda, "matmul", products)
    with exact_arithmetic(CUDA):
        assert products.allow_tf32 is False
    assert products.allow_tf32 is True


def test_a_cpu_is_left_alone(allowed: object) -> None:
    with exact_arithmetic(torch.device("cpu")):
        assert settings() == allowed
