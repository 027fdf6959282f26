"""Calibration inputs without any data: smooth random images in the range the model seems to expect.

Each image is coloured noise whose amplitude falls as 1/f, as in photographs (D. J. Field, J. Opt. Soc. Am. A, 1987),
with channels that mostly agree, and a brightness and contrast drawn per image, so that some are flat and some clip.
This is a stand-in: thresholds found on it are worse than those from a few hundred real images, and every report that
rests on it must say so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from snnconvert.data.arrange import layout_of, prepare, sides
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.graph.dialect import role_of
from snnconvert.graph.kinds import Role
from snnconvert.graph.parts import fitting
from snnconvert.graph.types import Ann
from snnconvert.graph.walk import walk

# What models expect, in the order of preference where the evidence is equal.
RANGES: dict[str, Preprocessing] = {
    "standardised (mean 0, deviation 1)": Preprocessing(mean=(0.45,), std=(0.25,), scale=255.0),
    "0 to 1": Preprocessing(scale=255.0),
    "0 to 255": Preprocessing(scale=1.0),
}

# Median over channels of the deviation before the first activation, as trained networks show it: 16 of 17 published
# CIFAR, MNIST and ImageNet models lie between 0.14 and 3.4 in their own input range.
TYPICAL_DEVIATION = 0.5
_PROBE = 16


def synthetic_inputs(ann: Ann, count: int, seed: int, preprocessing: Preprocessing | None = None) -> Tensor:
    """Random inputs for `ann`, the same for the same seed.

    Args:
        preprocessing: the model's, where it is known; None takes the one `guess_range` finds.

    Returns:
        float32 of shape (count, *ann.input_shape).
    """
    chosen = guess_range(ann)[1] if preprocessing is None else preprocessing
    return fitting(ann.inputs, _prepared(ann.input_shape, count, seed, chosen))


def guess_range(ann: Ann) -> tuple[str, Preprocessing]:
    """The row of RANGES that best explains the model's first layer, by name, with its preprocessing.

    The images are put through the first layers in each range; the range wins whose deviation before the first
    activation (median over channels; batch norm included where the graph still has one) is nearest to
    TYPICAL_DEVIATION on a logarithmic scale. On those 17 models it told 0..255 from the two others 16 times; between
    these two, a factor of four apart, it is little better than a coin. Give the preprocessing wherever it is known.
    """
    distances = {}
    for name, candidate in RANGES.items():
        value = _before_first_site(ann.graph, fitting(ann.inputs, _prepared(ann.input_shape, _PROBE, 0, candidate)))
        channels = value.double().transpose(0, 1).flatten(1) if value.ndim > 1 else value.double()[None]
        deviation = float(channels.std(dim=1).median())
        distances[name] = abs(np.log(max(deviation, 1e-12) / TYPICAL_DEVIATION))
    best = min(RANGES, key=distances.__getitem__)
    return best, RANGES[best]


def smooth_images(count: int, height: int, width: int, channels: int, seed: int) -> NDArray[np.uint8]:
    """(count, height, width, channels) uint8 images with a 1/f amplitude spectrum."""
    generator = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    lowest = 1.0 / max(height, width)
    envelope = 1.0 / np.maximum(np.hypot(rows, columns), lowest)
    envelope[0, 0] = 0.0
    images = np.empty((count, height, width, channels), np.uint8)
    for index in range(count):
        # One image at a time from one stream: a longer set begins with the shorter one.
        noise = generator.standard_normal((channels + 1, height, width))
        brightness, contrast = generator.uniform(0.1, 0.7), generator.uniform(0.05, 0.35)
        smooth = np.fft.irfft2(np.fft.rfft2(noise) * envelope, s=(height, width))
        planes = 0.9 * smooth[:1] + 0.44 * smooth[1:]
        deviation = planes.std()
        values = brightness + contrast * planes / (deviation if deviation > 0 else 1.0)
        images[index] = np.moveaxis(np.rint(255 * values.clip(0, 1)), 0, -1).astype(np.uint8)
    return images


def _prepared(shape: tuple[int, ...], count: int, seed: int, preprocessing: Preprocessing) -> Tensor:
    if len(shape) == 3:
        height, width, channels = sides(shape, preprocessing.layout or layout_of(shape))
        images = smooth_images(count, height, width, channels, seed)
    else:
        # Features, sequences, volumes: smooth along the last axis only.
        last = shape[-1] if shape else 1
        others = int(np.prod(shape[:-1], dtype=np.int64))
        images = smooth_images(count, 1, last, others, seed)[:, 0].transpose(0, 2, 1).reshape(count, *shape)
    return prepare(replace(preprocessing, resize=None, crop=None), images, shape)


def _before_first_site(graph: fx.GraphModule, inputs: Tensor) -> Tensor:
    """The value that the first activation receives; the last computed value where there is none."""
    latest = inputs
    with torch.no_grad():
        for node, received, value in walk(graph, inputs):
            if role_of(node) in (Role.SITE, Role.ANALOG):
                return received[0]
            latest = value
    return latest
