"""Memory that runs out leads to smaller chunks with the same result, and to a note; the engine keeps to its device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from snnconvert.allocator import out_of_memory
from snnconvert.graph.dialect import Builder
from snnconvert.graph.kinds import Add, Conv, Linear, Neuron, Reshape
from snnconvert.graph.schedule import Streaming
from snnconvert.graph.types import Origin, Snn, Source
from snnconvert.simulate import layer_engine
from snnconvert.simulate.chunks import chunk_size, frame_bytes, planned_size, with_smaller_chunks
from snnconvert.simulate.kernels import native_available
from snnconvert.simulate.kernels.native import MOST_TERMS
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import Batch, regrouped
from snnconvert.simulate.result import Probe, Simulation
from snnconvert.study.evaluate import evaluate, rerun
from tests.simulate.small_networks import pictures, small_snn

devices: list[str] = []


def test_halves_until_it_fits() -> None:
    tried = []

    def work(size: int) -> str:
        tried.append(size)
        if size > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return "done"

    assert with_smaller_chunks(13, work) == (
        "done",
        ("memory ran out with 13 images at once: simulated 3 images at a time",),
    )
    assert tried == [13, 6, 3]
    assert with_smaller_chunks(2, work) == ("done", ())


@pytest.mark.parametrize("error", [MemoryError(), ValueError("out of memory"), RuntimeError("shapes differ")])
def test_gives_up_on_one_image_and_on_other_errors(error: Exception) -> None:
    def work(_: int) -> None:
        raise error

    size = 1 if out_of_memory(error) else 8
    with pytest.raises(type(error)):
        with_smaller_chunks(size, work)


def test_evaluation_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    snn, ann = small_snn(timesteps=6)
    images = pictures(7)
    whole, alone = evaluate(ann, snn, images, batch_size=7), rerun(snn, images, batch_size=7)
    plain, calls = LayerEngine.run, []

    def scarce(self: LayerEngine, batch: Tensor, probe: Probe | None = None) -> Simulation:
        calls.append(len(batch))
        seen = plain(self, batch, probe)  # fails late: what watchers saw until then must not count
        if len(batch) > 4:
            raise MemoryError
        return seen

    monkeypatch.setattr(LayerEngine, "run", scarce)
    seen = evaluate(ann, snn, images, batch_size=7)
    assert max(calls) > 4
    assert len(seen.curve.notes) == 1
    assert not whole.curve.notes
    assert seen.curve.agreed == whole.curve.agreed
    assert seen.curve.spikes == whole.curve.spikes
    assert seen.curve.layers[0]["spikes_per_image"] == whole.curve.layers[0]["spikes_per_image"]
    again = rerun(snn, images, batch_size=7)
    assert np.array_equal(again.predictions, alone.predictions)
    assert again.notes


@pytest.mark.skipif(not native_available(), reason="the native kernels were not built")
def test_what_kernels_do_not_compute_in_passing_counts() -> None:
    """Spikes are bits; sums with more summands than the kernels take, and several sums in one, are floats over time."""

    def added(*groups: int) -> tuple[float, float]:
        builder = Builder({"input": torch.zeros(2, 8, 4, 4)})
        origin, ones = Origin("a", "test"), torch.ones(8, 1, 1)
        spikes = builder.call(Neuron(ones, ones, model="if", levels=1), builder.inputs["input"], origin=origin)
        geometry = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}

        def convolved() -> fx.Node:
            return builder.call(Conv(torch.ones(8, 8, 1, 1), None, **geometry), spikes, origin=origin)

        sums = [builder.call(Add(), *(convolved() for _ in range(count)), origin=origin) for count in groups]
        total = sums[0] if len(sums) == 1 else builder.call(Add(), *sums, origin=origin)
        sent = builder.call(Neuron(ones, ones, model="ternary", levels=1), total, origin=origin)
        last = builder.call(Reshape(shape=(128,)), sent, origin=origin)
        graph = builder.finish([builder.call(Linear(torch.ones(3, 128)), last, origin=origin)])
        snn = Snn(graph, Streaming(5, 2), (8, 4, 4), ("output",), Source("a", "", "", "test"), {}, {})
        return frame_bytes(snn)

    assert added(2) == (4 * 3, 128 * 2 / 8)
    assert added(MOST_TERMS) == (4 * 3, 128 * 2 / 8)
    assert added(MOST_TERMS + 1)[0] == 4 * 128
    assert added(2, 2)[0] == 4 * 128


def test_a_device_is_filled_as_far_as_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no device here: how much of it is free is made up, and no tensor is put there."""
    snn, _ = small_snn(timesteps=6)
    free = {"cuda": 10**6, "cuda:1": 10**7}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], 10**12))
    sizes = [planned_size(snn, device) for device in ("cuda", "cuda:1")]
    assert 1 < sizes[0] < sizes[1]
    assert 9 <= sizes[1] / sizes[0] <= 11
    free["cuda"] = 0
    assert planned_size(snn, "cuda") == 1
    assert planned_size(snn, "cpu") == chunk_size(snn)


def test_watched_images_come_in_the_same_chunks_everywhere() -> None:
    images = pictures(23)
    whole = [Batch(images, None, np.arange(23))]
    assert [len(part.images) for part in regrouped(whole, 4, 6, 10)] == [4, 4, 10, 5]
    assert [len(part.images) for part in regrouped(whole, 4, 6)] == [4] * 5 + [3]
    again = list(
        regrouped(iter([Batch(images[i : i + 3], None, np.arange(23)[i : i + 3]) for i in range(0, 23, 3)]), 4, 6, 10)
    )
    assert np.array_equal(np.concatenate([part.reference for part in again]), np.arange(23))
    assert torch.equal(torch.cat([part.images for part in again]), images)


@pytest.mark.parametrize("kind", ["streaming", "wait"])
def test_nothing_is_made_on_another_device(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands in for one that is not here: mixing it with the CPU is refused by torch."""
    monkeypatch.setattr(layer_engine, "to_host", lambda tensor: tensor)
    snn, _ = small_snn(timesteps=16, kind=kind, **({"wait": 1} if kind == "wait" else {}))
    seen = LayerEngine(snn, "meta").run(pictures(2), lambda _, spikes: devices.append(spikes.device.type))
    assert seen.outputs[0].device.type == "meta"
    assert all(counts.device.type == "meta" for counts in seen.spikes.values())
    assert all(buffer.device.type == "cpu" for buffer in snn.graph.buffers())
    assert set(devices) == {"meta"}
