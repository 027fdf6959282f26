"""What holds in every schedule: a new row of SCHEDULES is tested the day it is added."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from random_networks import calibrated, images, random_ann

from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.errors import OptionError
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.schedule import SCHEDULES, Schedule, schedule_from
from snnconvert.graph.schedule.timing import plan, site_depths
from snnconvert.graph.types import Snn
from snnconvert.search import candidates
from snnconvert.simulate.layer_engine import LayerEngine
from tests.engines import oracle_of

SEEDS = (1, 4, 9)


def fitting(kind: str, depth: int, timesteps: int = 24) -> list[Schedule]:
    """The schedules of a class that are tried on a network of this depth."""
    tried = [schedule for _, schedule in SCHEDULES[kind].within(timesteps, depth)]
    return [schedule for schedule in tried if isinstance(schedule, Schedule)]


def network(kind: str, seed: int, index: int) -> Snn:
    """A random network in the `index`-th of the schedules that are tried on it."""
    (first, *_) = fitting(kind, 1, 1000)
    ann = with_identity_sites(random_ann(seed), first)
    depth = max(site_depths(ann.graph).values())
    tried = fitting(kind, depth)
    return compile_network(calibrated(ann, tried[index % len(tried)], seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_layer_engine_equals_the_oracle(kind: str, seed: int) -> None:
    for index in (0, -1):
        snn = network(kind, seed, index)
        seen, oracle = LayerEngine(snn).run(images(seed)), oracle_of(snn).run(images(seed))
        assert seen.spikes.keys() == oracle.spikes.keys()
        for name in oracle.spikes:
            assert torch.equal(seen.spikes[name], oracle.spikes[name]), name
            assert torch.equal(seen.units[name], oracle.units[name]), name
        assert torch.equal(seen.outputs[0], oracle.outputs[0])
        assert len(oracle.outputs[0]) == len(snn.schedule.answer_steps)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("depth", [1, 3, 6])
def test_times_fit_together(kind: str, depth: int) -> None:
    schedules = fitting(kind, depth)
    assert schedules
    for schedule in schedules:
        answers = schedule.answer_steps
        assert answers == sorted(set(answers)) and answers[0] >= 1 and answers[-1] <= schedule.timesteps
        assert schedule.latency["first_output"] == answers[0] and schedule.latency["total"] == answers[-1]
        for site in range(depth + 1):
            sent = [step for first, last in schedule.intervals(site) for step in range(first, last)]
            assert len(sent) == schedule.frames * schedule.steps_per_frame
            assert sent == [
                schedule.emission_step(site, frame, phase)
                for frame in range(schedule.frames)
                for phase in range(schedule.steps_per_frame)
            ]
            if site:
                assert schedule.integration_step(site, 0) == schedule.intervals(site - 1)[0][0]
                updates = schedule.updates(site)
                assert len(updates) == schedule.timesteps
                assert sum(updates) >= schedule.frames * schedule.steps_per_frame
        for reads in range(schedule.frames if "read_from" in schedule.options() else 1):
            assert schedule.reading_from(reads).answer_steps == answers[reads:]


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("timesteps", [2, 5, 16])
def test_candidates_fit_their_budget_or_say_why_not(kind: str, timesteps: int) -> None:
    for seed in SEEDS:
        for one in candidates(random_ann(seed), timesteps, schedules=[kind]):
            if one.schedule is None:
                assert one.reason and one.hint
            else:
                assert isinstance(one.schedule, SCHEDULES[kind])
                assert one.schedule.latency["total"] <= one.schedule.timesteps <= timesteps
                assert one.name.startswith(one.schedule.name)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_plan_has_every_site_in_turn(kind: str) -> None:
    snn = network(kind, 4, -1)
    rows = plan(snn, windows=1000)
    for row in rows:
        assert row["integrates"][0][0] >= snn.schedule.start(row["depth"] - 1)
        if row["kind"] != "read-out":
            assert row["emits"] == snn.schedule.intervals(row["depth"])
    assert rows[-1]["kind"] == "read-out" and rows[-1]["integrates"][-1][1] == snn.schedule.answer_steps[-1]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_checkpoint_keeps_the_schedule(kind: str, tmp_path: Path) -> None:
    snn = network(kind, 1, -1)
    save_snn(snn, tmp_path / "m.snn")
    assert load_snn(tmp_path / "m.snn").schedule == snn.schedule
    assert schedule_from(json.loads(json.dumps(snn.schedule.to_dict()))) == snn.schedule


@pytest.mark.parametrize("kind", SCHEDULES)
def test_checkpoints_that_name_the_fields_of_every_schedule_are_read(kind: str) -> None:
    (schedule, *_) = fitting(kind, 2)
    rest = {"wait": 0, "window": 0, "phases": "power2", "residual": "keep", "read_from": 0}
    assert schedule_from({**rest, **schedule.to_dict()}) == schedule
    foreign = {"wait": 3, "window": 4, "read_from": 2, "phases": "uniform"}
    name = next(one for one in foreign if one not in schedule.options())
    with pytest.raises(OptionError, match=f"{name} = .* means nothing to schedule {kind}"):
        schedule_from({**schedule.to_dict(), name: foreign[name]})
    with pytest.raises(OptionError, match="colour = 'red' means nothing"):
        schedule_from({**schedule.to_dict(), "colour": "red"})
