"""Where windows lie: padding, ceil_mode and stated output shapes against ONNX Runtime, over 1, 2 and 3 axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import Nodes, checked, floats, kinds, save

from snnconvert.budget import VARIABLE
from snnconvert.convert.onnx_import import import_onnx
from snnconvert.errors import ClaimError, UnsupportedError

SIZES = (13, 4, 5)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": 3, "pads": (2, 2), "strides": 3},
        {"kernel_shape": 3, "pads": (0, 2), "strides": 3},
        {"kernel_shape": 3, "pads": (2, 0), "strides": 2},
        {"kernel_shape": 2, "pads": (0, 1), "strides": 4},
        {"kernel_shape": 2, "pads": (1, 0), "strides": 5},
        {"kernel_shape": 4, "pads": (3, 1), "strides": 2},
        {"kernel_shape": 2, "pads": (1, 1), "strides": 3, "dilations": 2},
        {"kernel_shape": 3, "pads": (1, 2), "strides": 1},
    ],
    ids=str,
)
def test_no_window_starts_in_the_padding_behind(
    window: dict[str, object], operator: str, rectified: bool, rank: int, tmp_path: Path
) -> None:
    begin, end = window["pads"]  # type: ignore[misc]
    sliding = {name: [value] * rank for name, value in window.items()} | {"pads": [begin] * rank + [end] * rank}
    for ceil_mode in (0, 1):
        nodes: Nodes = [
            ("Relu" if rectified else "Neg", ["x"], ["r"], {}),
            (operator, ["r"], ["y"], {**sliding, "ceil_mode": ceil_mode}),
        ]
        checked(save(tmp_path / "net.onnx", nodes, {}, shape=("N", 2, *SIZES[:rank]), opset=19))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "more",
    [
        {"strides": 3, "output_shape": 12},
        {"strides": 5, "output_shape": 18},
        {"strides": 5, "output_shape": 20},
        {"strides": 5, "output_shape": 20, "auto_pad": "SAME_LOWER"},
        {"strides": 5, "output_shape": 19, "auto_pad": "SAME_UPPER"},
        {"strides": 5, "output_shape": 15},
        {"strides": 4, "auto_pad": "SAME_UPPER"},
        {"strides": 4, "auto_pad": "SAME_LOWER"},
        {"strides": 3, "output_padding": 2, "pads": (1, 0)},
        {"strides": 3, "output_padding": 1, "pads": (0, 2)},
    ],
    ids=str,
)
def test_every_row_of_a_transposed_convolution_has_its_bias(rank: int, more: dict[str, object], tmp_path: Path) -> None:
    sliding = {name: [value] * rank if isinstance(value, int) else value for name, value in more.items()}
    if "pads" in more:
        begin, end = more["pads"]  # type: ignore[misc]
        sliding["pads"] = [begin] * rank + [end] * rank
    for bias in ({}, {"b": np.array([0.5, 0.7, 0.9, 1.1], np.float32)}):
        nodes: Nodes = [("ConvTranspose", ["x", "w", *bias], ["y"], sliding)]
        constants = {"w": floats(3, 4, *(2,) * rank), **bias}
        checked(save(tmp_path / "net.onnx", nodes, constants, shape=("N", 3, *(4,) * rank)))


def test_a_bias_stays_in_the_layer_where_nothing_is_appended(tmp_path: Path) -> None:
    nodes: Nodes = [("ConvTranspose", ["x", "w", "b"], ["y"], {"strides": [2, 2], "pads": [0, 0, 1, 1]})]
    ann = checked(save(tmp_path / "net.onnx", nodes, {"w": floats(3, 4, 3, 3), "b": floats(4)}))
    assert kinds(ann) == ["ConvTranspose", "Pad"]


WIDE = ("N", 1, 1, 30_000)
TABLES: dict[str, tuple[Nodes, tuple[object, ...], str]] = {
    "the average of a padded input": (
        [("AveragePool", ["x"], ["y"], {"kernel_shape": [2, 2], "pads": [30_000] * 4, "count_include_pad": 1})],
        ("N", 3, 8, 8),
        "the result of AveragePool_0",
    ),
    "how often its elements count": (
        [("AveragePool", ["x"], ["y"], {"kernel_shape": [2], "pads": [10**12] * 2})],
        ("N", 1, 8),
        "the result of AveragePool_0",
    ),
    "sums over channels": ([("LRN", ["x"], ["y"], {"size": 3})], ("N", 30_000, 1, 1), "the sums over neighbouring"),
    "linear interpolation": ([("Resize", ["x", "", "s"], ["y"], {"mode": "linear"})], WIDE, "the weights of one axis"),
    "cubic interpolation": ([("Resize", ["x", "", "s"], ["y"], {"mode": "cubic"})], WIDE, "the weights of one axis"),
}


@pytest.mark.parametrize("name", list(TABLES))
def test_a_table_is_claimed_before_it_is_made(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, shape, what = TABLES[name]
    monkeypatch.setenv(VARIABLE, "64MiB")
    for made in ("zeros", "full", "outer", "arange", "eye"):
        real = getattr(np, made)

        def small(*given: object, real: object = real, **options: object) -> object:
            result = real(*given, **options)  # type: ignore[operator]
            assert getattr(result, "nbytes", 0) < 2**26
            return result

        monkeypatch.setattr(np, made, small)
    path = save(tmp_path / "net.onnx", nodes, {"s": np.array([1, 1, 1, 1.01], np.float32)}, shape=shape)  # type: ignore[arg-type]
    with pytest.raises(ClaimError, match=rf"net\.onnx asks for .* {what}"):
        import_onnx(path)


def test_a_kernel_larger_than_its_input_is_refused(tmp_path: Path) -> None:
    nodes: Nodes = [("AveragePool", ["x"], ["y"], {"kernel_shape": [10**6] * 2, "dilations": [2, 2]})]
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(save(tmp_path / "net.onnx", nodes, {}, opset=19))
    assert "reaches over more than its input" in caught.value.render()
