"""Inputs made without data: reproducible, smooth, and in the model's range."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from snnconvert.data.arrange import prepare
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.synthetic import guess_range, smooth_images, synthetic_inputs
from snnconvert.graph import kinds
from snnconvert.graph.dialect import Builder
from snnconvert.graph.types import Ann, Origin, Source


def small(gain: float, shape: tuple[int, ...] = (3, 16, 16)) -> Ann:
    """Convolution, batch norm as an affine, activation; the deviation before it is about `gain` times the input's."""
    generator = torch.Generator().manual_seed(0)
    builder = Builder({"input": torch.zeros(2, *shape)})
    x = builder.inputs["input"]
    if len(shape) == 3:
        weight = torch.randn(8, shape[0], 3, 3, generator=generator) / 6
        conv = kinds.Conv(weight, stride=(1, 1), padding=(1, 1), dilation=(1, 1))
        x = builder.call(conv, x, origin=Origin("conv", "Conv"))
        affine = kinds.Affine(torch.full((8, 1, 1), gain), torch.zeros(8, 1, 1))
        x = builder.call(affine, x, origin=Origin("norm", "BatchNormalization"))
    else:
        linear = kinds.Linear(gain * torch.randn(8, shape[-1], generator=generator))
        x = builder.call(linear, x, origin=Origin("dense", "Gemm"))
    graph = builder.finish([builder.call(kinds.Relu(), x, origin=Origin("relu", "Relu"))])
    return Ann(graph, shape, ("output",), Source("small", "-", "0", "test"))


def test_same_seed_same_images_and_longer_sets_begin_with_shorter() -> None:
    ann = small(1.0)
    first = synthetic_inputs(ann, 6, 3)
    assert first.shape == (6, 3, 16, 16)
    assert first.dtype == torch.float32
    torch.manual_seed(9)
    assert torch.equal(first, synthetic_inputs(ann, 6, 3))
    assert torch.equal(first[:2], synthetic_inputs(ann, 2, 3))
    assert not torch.equal(first, synthetic_inputs(ann, 6, 4))


def test_spectrum_falls_like_one_over_frequency() -> None:
    images = smooth_images(64, 64, 64, 1, 0)[..., 0].astype(float)
    amplitude = np.abs(np.fft.fft2(images - images.mean((1, 2), keepdims=True))).mean(0)[0]
    slope = np.polyfit(np.log(np.arange(2, 20)), np.log(amplitude[2:20]), 1)[0]
    assert -1.5 < slope < -0.6


def test_images_use_the_whole_range_and_differ() -> None:
    images = smooth_images(64, 16, 16, 3, 0)
    assert images.min() == 0
    assert images.max() == 255
    assert images.mean((1, 2, 3)).std() > 20
    red, green = images[..., 0].ravel(), images[..., 1].ravel()
    assert 0.7 < np.corrcoef(red, green)[0, 1] < 0.999


@pytest.mark.parametrize(("gain", "name"), [(0.004, "0 to 255"), (3.0, "0 to 1"), (0.5, "standardised")])
def test_range_follows_the_first_layer(gain: float, name: str) -> None:
    found, preprocessing = guess_range(small(gain))
    assert found.startswith(name)
    assert torch.equal(synthetic_inputs(small(gain), 3, 0), synthetic_inputs(small(gain), 3, 0, preprocessing))


def test_known_preprocessing_is_used() -> None:
    plan = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.4), channels="BGR", resize=9, crop=9)
    found = synthetic_inputs(small(1.0), 4, 0, plan)
    raw = smooth_images(4, 16, 16, 3, 0)
    assert torch.equal(found, prepare(Preprocessing(plan.mean, plan.std, 255.0, None, "BGR"), raw, (3, 16, 16)))


@pytest.mark.parametrize("shape", [(20,), (5, 12), (32, 32, 3), (1, 784, 1), (1, 1, 1), (2, 4, 6, 8)])
def test_every_input_shape(shape: tuple[int, ...]) -> None:
    found = synthetic_inputs(
        small(1.0, shape) if len(shape) < 3 else Ann(**{**vars(small(1.0)), "input_shape": shape}),
        3,
        0,
        Preprocessing(),
    )
    assert found.shape == (3, *shape)
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
