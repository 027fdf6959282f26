"""The layer engine on a real network: equal to the oracle whichever kernels run, in chunks of any size."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.compile.network import compile_network
from snnconvert.convert.doors import open_model
from snnconvert.convert.passes import canonicalize
from snnconvert.graph.schedule import Streaming
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import NeuronChoice, Snn
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.kernels import native_available
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine

DATA = Path(os.environ.get("SNNCONVERT_DATA") or Path(__file__).parents[2] / "../shared/data")
needs_data = pytest.mark.skipif(not (DATA / "models").is_dir(), reason="the data pack is not there (SNNCONVERT_DATA)")
KERNELS = ["torch", pytest.param("native", marks=pytest.mark.skipif(not native_available(), reason="not built"))]


@pytest.fixture(scope="module")
def images() -> Tensor:
    with np.load(DATA / "cifar10_test.npz") as file:
        pixels = torch.tensor(file["x"][:16]).permute(0, 3, 1, 2) / 255
    return (pixels - torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)) / torch.tensor((0.229, 0.224, 0.225)).view(
        3, 1, 1
    )


@pytest.fixture(scope="module")
def resnet(images: Tensor) -> Snn:
    arch = f"{DATA / 'models' / 'resnet_cifar.py'}:resnet20"
    weights = str(DATA / "models" / "resnet20-12fca82f.th")
    ann = canonicalize(open_model(weights, arch=arch, input_shape=(3, 32, 32)))
    depth = max(site_depths(ann.graph).values())
    task = Task(ann, in_canonical_order(images), Streaming(6, depth), NeuronChoice())
    return compile_network(METHODS["percentile"](task))


@needs_data
@pytest.mark.parametrize("kernels", KERNELS)
def test_resnet20_equals_the_oracle(resnet: Snn, images: Tensor, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNCONVERT_KERNELS", kernels)
    seen, oracle = LayerEngine(resnet).run(images[:3]), StepEngine(resnet).run(images[:3])
    assert torch.equal(seen.outputs[0], oracle.outputs[0])
    assert len(oracle.spikes) == 19
    for name, counts in oracle.spikes.items():
        assert int(counts.sum()) > 0
        assert torch.equal(seen.spikes[name], counts)
        assert torch.equal(seen.units[name], oracle.units[name])


@needs_data
def test_an_engine_keeps_nothing_between_runs(resnet: Snn, images: Tensor) -> None:
    engine = LayerEngine(resnet)
    first = engine.run(images[:2])
    engine.run(images[2:5])
    assert torch.equal(engine.run(images[:2]).outputs[0], first.outputs[0])


@needs_data
def test_chunks_hold_the_widest_layer_in_the_memory_given(resnet: Snn, monkeypatch: pytest.MonkeyPatch) -> None:
    widest, frames = 16 * 32 * 32, resnet.schedule.frames
    monkeypatch.setenv("SNNCONVERT_KERNELS", "torch")
    assert chunk_size(resnet, 10 * 4 * widest * frames) == 10
    assert chunk_size(resnet, 1) == 1
    if native_available():
        monkeypatch.setenv("SNNCONVERT_KERNELS", "native")
        assert chunk_size(resnet, spike_bytes=10 * widest * frames // 8) == 10
        assert chunk_size(resnet, spike_bytes=1) == 1
