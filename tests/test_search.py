"""Candidates within a budget, and the choice among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_networks import calibrated, images, random_ann

from snnconvert.compile.network import compile_network
from snnconvert.errors import OptionError
from snnconvert.graph.schedule import Schedule, Streaming
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice, Snn
from snnconvert.search import Candidate, Trial, best_of, candidates, choose, eligible, with_several_answers
from snnconvert.tasks import CLASSIFIER, METRICS, TaskChoice
from snnconvert.tasks.scores import DecisionScores, ErrorScores


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


def test_who_holds_earliest_is_chosen_and_ineligible_ones_keep_their_reason() -> None:
    ann = random_ann(5)
    made: list[Schedule] = []

    def make(network: Ann, schedule: Schedule, neuron: NeuronChoice) -> Snn:
        made.append(schedule)
        return compile_network(calibrated(network, schedule, 5), neuron=neuron)

    depth = max(site_depths(ann.graph).values())
    trials = choose(ann, candidates(ann, (depth + 1) * 3), make, torch.cat([images(s) for s in range(20)]))
    best = [trial for trial in trials if trial.chosen]
    assert len(best) == 1
    assert best[0].holds_from == min(trial.holds_from for trial in trials if trial.holds_from)
    for trial in trials:
        if trial.scores is not None:
            curve = trial.record()["curve"]
            assert curve["values"][-1] == trial.value == trial.record()["agreement"]
            assert curve["steps"] == list(trial.steps)
            assert curve["ranked_by"] == "calibration"
            assert trial.by_stand_in().record()["curve"]["ranked_by"] == "stand-in"
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


@pytest.mark.parametrize(("enough", "models"), [(0.0, ["if"]), (200.0, ["if", "ternary", "graded"])])
def test_neurons_after_a_good_one_are_not_even_made(
    monkeypatch: pytest.MonkeyPatch, enough: float, models: list[str]
) -> None:
    monkeypatch.setitem(METRICS, "agreement", replace(METRICS["agreement"], enough=enough))
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
        assert "not tried: cheaper neurons have agreement with the ANN" in trial.record()["reason"]


def test_early_exit_leaves_out_what_answers_once() -> None:
    ann = random_ann(1)
    found = candidates(ann, 40, schedules=("streaming", "bistable"), window=2)
    kept = [one for one in with_several_answers(found) if one.schedule is not None]
    assert {one.schedule.frames for one in found if one.schedule is not None} >= {1, 40}
    assert kept and all(one.schedule is not None and one.schedule.frames > 1 for one in kept)


def answered(steps: tuple[int, ...], right: list[int], spikes: float, images: int = 200) -> Trial:
    """A trial that agrees on the first `right` of the images after each of its answers."""
    scores = DecisionScores(CLASSIFIER)
    scores.rows = {"agreed": np.array([[index < count for index in range(images)] for count in right])}
    schedule = Streaming(max(steps), 1)
    return Trial(Candidate(str(steps), Streaming, schedule), scores=scores, spikes=spikes, steps=steps)


def chosen(*trials: Trial) -> tuple[int, list[int | None]]:
    """The index of the chosen one, and where each holds."""
    judged = best_of(trials, METRICS["agreement"])
    (index,) = [number for number, trial in enumerate(judged) if trial.chosen]
    return index, [trial.holds_from for trial in judged]


def test_an_answer_holds_from_where_it_stays_within_the_error_of_the_best() -> None:
    once = answered((12,), [200], 10.0)
    early = answered((1, 2, 3, 4, 8), [100, 150, 199, 198, 199], 50.0)
    assert chosen(once, early) == (1, [12, 3])
    dipped = answered((1, 2, 3, 4, 8), [100, 199, 199, 150, 199], 50.0)
    assert chosen(once, dipped) == (1, [12, 8])
    worse = answered((1, 2, 3), [100, 150, 180], 1.0)
    assert chosen(once, worse) == (0, [12, None])


def test_of_equals_the_one_that_goes_on_answering_then_the_cheapest_is_chosen() -> None:
    once, twice = answered((12,), [200], 10.0), answered((12, 16), [200, 200], 20.0)
    assert chosen(once, twice)[0] == 1
    assert chosen(twice, answered((12, 16), [200, 200], 19.0))[0] == 1
    assert chosen(once, answered((12,), [200], 9.0))[0] == 1


def test_where_nothing_can_be_compared_the_cheapest_is_chosen() -> None:
    scores = ErrorScores(TaskChoice("regression"))
    scores.add([np.zeros((1, 3, 1))], np.zeros((3, 1)), None)
    trials = [
        Trial(Candidate("a", Streaming, Streaming(2, 1)), scores=scores, spikes=spikes, steps=(2,))
        for spikes in (3.0, 1.0)
    ]
    assert [trial.chosen for trial in best_of(trials, METRICS["relative_error"])] == [False, True]
