"""Candidates within a budget, and the choice among them."""

from __future__ import annotations

import pytest
import torch
from random_networks import calibrated, images, random_ann

from snnconvert import search
from snnconvert.compile.network import compile_network
from snnconvert.errors import OptionError
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice, Snn
from snnconvert.search import candidates, choose, eligible, with_several_answers


def test_bistable_takes_one_window_and_as_many_as_fit() -> None:
    ann = random_ann(1)
    depth = max(site_depths(ann.graph).values())
    found = candidates(ann, (depth + 1) * 4, schedules=["bistable"])
    assert [one.name for one in found if one.schedule is not None][-1] == "bistable, window 4, 1 window"
    assert len([one for one in found if one.schedule is None]) == 4  # windows 5 to 8
    for one in found:
        if one.schedule is None:
            assert f"of {(depth + 1) * 4} steps" in one.reason
        else:
            assert one.schedule.timesteps <= (depth + 1) * 4
            assert one.schedule.latency["total"] == one.schedule.timesteps


def test_a_budget_too_small_names_the_totals_for_two_and_four() -> None:
    ann = random_ann(1)
    depth = max(site_depths(ann.graph).values())
    with pytest.raises(OptionError) as raised:
        eligible(candidates(ann, depth, schedules=["bistable", "wait"]))
    assert f"-T {2 * (depth + 1)}" in raised.value.hint
    assert f"-T {4 * (depth + 1)}" in raised.value.hint
    assert any("wait 1" in cause for cause in raised.value.causes)


def test_the_best_agreement_is_chosen_and_ineligible_ones_keep_their_reason() -> None:
    ann = random_ann(5)
    made: list[Schedule] = []

    def make(network: Ann, schedule: Schedule, neuron: NeuronChoice) -> Snn:
        made.append(schedule)
        return compile_network(calibrated(network, schedule, 5), neuron=neuron)

    depth = max(site_depths(ann.graph).values())
    trials = choose(ann, candidates(ann, (depth + 1) * 3), make, torch.cat([images(s) for s in range(20)]))
    best = [trial for trial in trials if trial.chosen]
    assert len(best) == 1
    assert best[0].agreement == max(trial.agreement or 0.0 for trial in trials)
    assert len(made) == len([trial for trial in trials if trial.snn is not None])
    rows = [trial.record() for trial in trials]
    assert {row["name"] for row in rows} >= {"streaming", "wait 1", "bistable, window 2, 1 window"}
    assert all("reason" in row for row in rows if not row["eligible"])
    assert all({"window", "first_output", "total", "agreement", "spikes", "interval"} <= row.keys()
               for row in rows if row["eligible"])  # fmt: skip


NEURONS = (NeuronChoice("if"), NeuronChoice("ternary"), NeuronChoice("graded", 15))


def test_neurons_come_cheapest_first_and_bistable_schedules_once() -> None:
    ann = random_ann(1)
    depth = max(site_depths(ann.graph).values())
    names = [one.name for one in candidates(ann, (depth + 1) * 2, neurons=NEURONS, window=2)]
    assert names == [
        *("if, streaming", "if, wait 1", "bistable, window 2, 1 window"),
        *("ternary, streaming", "ternary, wait 1", "graded, streaming", "graded, wait 1"),
    ]


@pytest.mark.parametrize(("enough", "models"), [(0.0, ["if"]), (2.0, ["if", "ternary", "graded"])])
def test_neurons_after_a_good_one_are_not_even_made(
    monkeypatch: pytest.MonkeyPatch, enough: float, models: list[str]
) -> None:
    monkeypatch.setattr(search, "ENOUGH", enough)
    ann, made = random_ann(5), list[str]()

    def make(network: Ann, schedule: Schedule, neuron: NeuronChoice) -> Snn:
        made.append(neuron.model)
        return compile_network(calibrated(network, schedule, 5), neuron=neuron)

    found = candidates(ann, 16, neurons=NEURONS, schedules=["streaming"])
    trials = choose(ann, found, make, torch.cat([images(s) for s in range(20)]))
    assert made == models
    assert [trial.candidate.neuron for trial in trials] == list(NEURONS)
    assert sum(trial.chosen for trial in trials) == 1
    for trial in trials[len(models) :]:
        assert trial.snn is None
        assert "not tried: cheaper neurons agree" in trial.record()["reason"]


def test_early_exit_leaves_out_what_answers_once() -> None:
    ann = random_ann(1)
    found = candidates(ann, 40, schedules=("streaming", "bistable"), window=2)
    kept = [one for one in with_several_answers(found) if one.schedule is not None]
    assert {one.schedule.frames for one in found if one.schedule is not None} >= {1, 40}
    assert kept and all(one.schedule is not None and one.schedule.frames > 1 for one in kept)
