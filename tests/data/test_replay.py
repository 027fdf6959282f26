"""Conversions that replay recordings of event cameras, and what does not go with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from event_recordings import MILLISECONDS, SIZE, recordings

import snnconvert
from snnconvert.data.moving import over_time_of
from snnconvert.errors import DataError, OptionError, SnnConvertError
from snnconvert.graph.dialect import calls
from snnconvert.graph.kinds import Events
from snnconvert.report.document import faults
from snnconvert.report.findings import warnings_for
from snnconvert.report.sections import energy, inside
from snnconvert.report.verdict import verdict
from snnconvert.simulate.step_engine import StepEngine

PLAN = {"events": "window:1", "scale": 4.0}
NETWORK = {**PLAN, "input_shape": (2, 8, 8)}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """Trained on sums of whole recordings."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(96, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 4),
    )
    given, labels = recordings(120, seed=5)
    frames = torch.zeros(len(given), 2, SIZE, SIZE)
    for index, events in enumerate(given):
        where = (torch.full((len(events),), index), *(torch.from_numpy(events[name].astype(int)) for name in "pyx"))
        frames.index_put_(where, torch.tensor(0.25), accumulate=True)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(net(frames), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


@pytest.fixture(scope="module")
def converted(network: torch.nn.Module) -> snnconvert.Conversion:
    return snnconvert.convert_model(
        network,
        data=recordings(60),
        calibration_data=recordings(40, seed=9)[0],
        neuron="ternary",
        timesteps=40,
        **NETWORK,
    )


def test_a_replay_answers_as_the_original_does_in_the_end(converted: snnconvert.Conversion) -> None:
    report = converted.report
    assert converted.ann_accuracy is not None
    assert converted.ann_accuracy > 90
    assert converted.accuracy is not None
    assert converted.accuracy >= converted.ann_accuracy - 2
    assert report["latency"]["step_milliseconds"] == 1.0
    assert report["task"]["input"] == "recording"
    assert report["neuron"]["input"] == "events"
    assert report["preprocessing"]["events"] == "window:1"
    assert " ms" in verdict(report)
    assert report["energy"]["operations"]["snn_multiplications"] == 0
    assert all(example["image"].startswith("data:image/png") for example in report["inside"]["examples"])
    assert len(report["fit_curve"]["accuracy"]) == MILLISECONDS
    assert report["fit_curve"]["accuracy"][-1] == converted.accuracy


def test_the_report_counts_in_milliseconds(converted: snnconvert.Conversion) -> None:
    report = converted.report
    drawn = {name: json.dumps(spec) for name, spec in (inside.charts(report) | energy.charts(report)).items()}
    over_time = {name: spec for name, spec in drawn.items() if '"field": "t"' in spec}
    assert {name.split("_")[0] for name in over_time} >= {"membrane", "approach", "raster", "example", "energy"}
    assert all("milliseconds since" in spec and '"title": "T (' not in spec for spec in over_time.values())
    assert "step" not in (energy.crossings(report) or "")


def test_who_only_guesses_holds_from_nowhere(converted: snnconvert.Conversion) -> None:
    report = converted.report
    assert "from 1 ms" in verdict(report | {"holds_from": 1})
    guessing = report | {"ann": {**report["ann"], "accuracy": 25.0}, "holds_from": 1}
    assert not faults(guessing)
    assert "only guesses among 4 classes, after 40 ms" in verdict(guessing)
    (warning,) = [found for found in warnings_for(guessing) if found["code"] == "ann_near_chance"]
    assert "--scale" in warning["hint"]
    assert "RGB" not in warning["hint"]
    seen = {**guessing, "latency": {**report["latency"], "step_milliseconds": None}}
    assert "RGB" in next(found for found in warnings_for(seen) if found["code"] == "ann_near_chance")["hint"]


def test_a_checkpoint_replays_the_same(converted: snnconvert.Conversion, tmp_path: Path) -> None:
    given, _ = recordings(5)
    converted.save(tmp_path / "net.snn")
    snn = snnconvert.load(tmp_path / "net.snn")
    x = snn.prepare(given)
    assert np.array_equal(snn(x), converted.snn(x))
    ((_, events),) = calls(snn.graph, Events)
    assert (events.slicing, events.steps, events.units) == ("window:1", MILLISECONDS, True)
    oracle = StepEngine(snn).run(x)
    seen = snn.simulate(x)
    assert torch.equal(seen.outputs, oracle.outputs[0] / torch.arange(1, 41).view(-1, 1, 1))
    dense = over_time_of(x).frames(0, MILLISECONDS)  # type: ignore[union-attr]
    assert torch.equal(snn.simulate(dense).outputs, seen.outputs)


def test_a_simulation_goes_on_where_another_stopped(converted: snnconvert.Conversion) -> None:
    snn, (given, _) = converted.snn, recordings(3)
    x = snn.prepare(given)
    dense, whole = over_time_of(x).frames(0, MILLISECONDS).numpy(), snn.simulate(x)  # type: ignore[union-attr]
    first = snn.simulate(dense[:15], state=True)
    second = snn.simulate(dense[15:16], state=first)
    third = snn.simulate(dense[16:], state=second)
    assert second.steps == [16]
    assert np.array_equal(np.concatenate([first.outputs, second.outputs, third.outputs]), whole.outputs.numpy())
    assert first.total_spikes + second.total_spikes + third.total_spikes == pytest.approx(whole.total_spikes)
    shorter = snn.simulate(snn.prepare(given, steps=15))
    assert np.array_equal(shorter.outputs.numpy(), first.outputs)
    with pytest.raises(DataError, match="the state is that of 3 inputs"):
        snn.simulate(dense[:, :2], state=first)
    with pytest.raises(OptionError, match="cannot be gone on from"):
        snn.simulate(dense, state=whole)


class LikeTonic:
    """What tonic's data sets are: pairs (events, label), the size of the sensor."""

    sensor_size = (SIZE, SIZE, 2)

    def __init__(self, count: int) -> None:
        self.given, self.targets = recordings(count)

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        kept = self.given[index][["x", "y", "t", "p"]]
        return kept.astype([("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")]), int(self.targets[index])


def test_data_sets_of_tonic_s_form_are_accepted(network: torch.nn.Module) -> None:
    made = snnconvert.convert_model(
        network, data=LikeTonic(40), calibration_samples=16, calibration="mse", neuron="ternary", reset_every=20, **PLAN
    )
    assert made.report["evaluation"]["samples"] == 24
    assert made.snn.input_shape == (2, SIZE, SIZE)
    ((_, events),) = calls(made.snn.graph, Events)
    assert events.reset == 20
    assert made.snn.timesteps in (MILLISECONDS - 1, MILLISECONDS)


def test_steps_of_tonic_s_own_data_sets_hold_what_its_frames_do(converted: snnconvert.Conversion) -> None:
    tonic = pytest.importorskip("tonic")
    given, labels = recordings(3)

    class Recorded(tonic.Dataset):  # type: ignore[misc]
        sensor_size, ordering, dtype = LikeTonic.sensor_size, tonic.io.events_struct.names, tonic.io.events_struct

        def __init__(self) -> None:
            super().__init__(".")
            self.data, self.targets = (
                [tonic.io.make_structured_array(*(one[n] for n in "xytp")) for one in given],
                labels,
            )

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            return self.data[index], int(self.targets[index])

        def __len__(self) -> int:
            return len(self.data)

        def _check_exists(self) -> bool:
            return True

    data = Recorded()
    moving = over_time_of(converted.snn.prepare(data))
    assert moving is not None
    frames_of = tonic.transforms.ToFrame(sensor_size=data.sensor_size, time_window=1000)
    for index in range(len(data)):
        theirs = frames_of(data[index][0])  # without the last window, where that is not full
        assert len(theirs) >= MILLISECONDS - 2
        assert np.array_equal(moving.frames(0, len(theirs))[:, index].numpy(), theirs)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"events": None}, "holds recordings of events"),
        ({"schedule": "bistable"}, "schedule bistable does not fit"),
        ({"mean": (1.0,)}, "mean means nothing to events"),
        ({"reset_every": 1.5}, "no whole number of steps"),
        ({"input_encoder": "spiking"}, "input_encoder does not fit"),
        ({"frontier": (4, 8)}, "frontier does not fit"),
        ({"events": None, "reset_every": 5.0}, "reset_every 5 is for recordings"),
        ({"resize": 4}, "resize means nothing to events"),
    ],
)
def test_what_does_not_go_with_recordings_is_refused(
    network: torch.nn.Module, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SnnConvertError, match=said):
        snnconvert.convert_model(network, data=recordings(8), calibration="mse", **{**NETWORK, **options})


def test_images_are_no_recordings(network: torch.nn.Module) -> None:
    with pytest.raises(DataError, match="holds no recordings of events"):
        snnconvert.convert_model(network, data=np.zeros((8, 2, SIZE, SIZE), np.float32), **PLAN)
