"""Neurons that are tried side by side do what each of them does alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from snnconvert.calibrate.reconstruct_neuron import SiteNeuron, Trial, candidates_of
from snnconvert.graph.schedule import Schedule, Streaming, Wait
from snnconvert.neurons import NEURONS
from snnconvert.simulate.kernels import choose, native_available

COUNT = 7  # four, two and one at a time


def drawn(channels: int, frames: int, *, reads: int) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Currents (frames, batch, channels, positions, 1), targets, thresholds and starts."""
    draw = torch.Generator().manual_seed(channels)
    current = torch.randn(frames, 5, 9, 1, channels, generator=draw).permute(0, 1, 4, 2, 3) * 0.7 + 0.2
    target = torch.rand(reads * 5, 9, 1, channels, generator=draw).permute(0, 3, 1, 2)
    thresholds = [torch.rand(channels, generator=draw) + 0.1 for _ in range(COUNT)]
    return current, target, thresholds, [torch.rand(channels, generator=draw) for _ in range(COUNT)]


@pytest.mark.skipif(not native_available(), reason="the native kernels were not built")
@pytest.mark.parametrize("instructions", ["portable", "avx2", "avx512"])
@pytest.mark.parametrize("schedule", [Streaming(12, 2), Wait(12, 2, wait=3)])
@pytest.mark.parametrize(("model", "levels"), [("if", 1), ("ternary", 1), ("ternary-late", 1), ("burst", 5),
                                              ("graded", 15), ("signed", 3)])  # fmt: skip
def test_kernels_try_what_torch_tries(model: str, levels: int, schedule: Schedule, instructions: str) -> None:
    reads, native = (schedule.frames // 2, schedule.frames), choose()
    assert native is not None
    ours = SiteNeuron(NEURONS[model], levels, schedule, native.limited_to(instructions), reads)
    plain = SiteNeuron(NEURONS[model], levels, schedule, None, reads)
    for channels in (3, 16, 70):
        for frames in (1, schedule.frames):
            current, target, thresholds, starts = drawn(channels, frames, reads=2)
            shift = torch.linspace(-0.5, 0.5, COUNT * channels).view(COUNT, channels)
            share = torch.tensor([1.0, 0.5, 1.5, 1.0, 0.25, 0.0, 0.7])
            for more, other in (({}, None), ({"shift": shift}, None), ({"share": share}, current.flip(1))):
                candidates = candidates_of(thresholds, starts, **more)
                found, wanted = (one.tried(current, target, candidates, other, rates=True) for one in (ours, plain))
                assert found.rates is not None and wanted.rates is not None
                assert torch.equal(found.rates, wanted.rates)
                assert torch.allclose(found.errors, wanted.errors, rtol=1e-9)
                assert torch.allclose(found.lacking, wanted.lacking, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not native_available(), reason="the native kernels were not built")
def test_sums_do_not_depend_on_threads() -> None:
    neuron = SiteNeuron(NEURONS["ternary"], 1, Streaming(16, 2), choose(), (16,))
    draw = torch.Generator().manual_seed(0)
    current = torch.randn(16, 32, 16, 40, 1, generator=draw)
    trial = Trial(neuron, [False], [32])
    trial.place(0, current, torch.rand(32, 16, 40, 1, generator=draw))
    candidates = candidates_of(
        [torch.full((16,), 0.7 + 0.1 * k) for k in range(COUNT)], [torch.full((16,), 0.5)] * COUNT
    )
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(trial.judged(candidates)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[0][:, 0], found[0][:, 1])  # nothing was held out: those fitted judge


@pytest.mark.parametrize("reads", [(6,), (3, 6)])
def test_a_thinned_trial_has_every_nth_row(reads: tuple[int, ...]) -> None:
    """Of the images that are fitted, and of those held out; itself where there are not twice as many as asked."""
    neuron = SiteNeuron(NEURONS["ternary"], 1, Streaming(6, 2), None, reads)
    draw = torch.Generator().manual_seed(1)
    trial = Trial(neuron, [False, False, True], [3, 2, 2])
    for chunk, images in enumerate((3, 2, 2)):
        current = torch.randn(6, images, 4, 5, 1, generator=draw)
        trial.place(chunk, current, torch.rand(len(reads) * images, 4, 5, 1, generator=draw))
    assert trial.thinned(18) is trial  # of 35
    few = trial.thinned(8)
    candidates = candidates_of([torch.full((4,), 0.7)], [torch.full((4,), 0.5)])
    errors, lacking = few.judged(candidates)
    for held, rows in ((False, 25), (True, 10)):
        kept = range(0, rows, 4)
        assert few.currents[held].shape == (6, len(kept), 4, 1, 1)
        current = torch.stack([trial.currents[held][:, row // 5, :, row % 5] for row in kept], 1).unsqueeze(-1)
        target = torch.stack([trial.targets[held][:, row // 5, :, row % 5] for row in kept], 1).unsqueeze(-1)
        assert torch.equal(few.currents[held], current)
        alone = neuron.tried(current, target.flatten(0, 1), candidates)
        assert torch.equal(errors[:, int(held)], alone.errors)
        assert held or torch.equal(lacking, alone.lacking)
    assert few.fitted == 7 * len(reads)
