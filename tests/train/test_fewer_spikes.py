"""Training for sparser spikes: of rates, and of first spikes in continuous time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import snnconvert
from snnconvert.compile.network import difference
from snnconvert.data.bundled import dataset_for
from snnconvert.errors import OptionError
from snnconvert.graph.schedule import FirstSpike
from snnconvert.simulate.event_engine import EventEngine
from snnconvert.simulate.layer_engine import LayerEngine

TRAIN, _, _ = dataset_for("digits-cnn")
STORED = np.load(TRAIN)
DATA = (STORED["x"][:600].astype(np.float32), STORED["y"][:600])
RATES = {"schedule": "streaming", "timesteps": 4, "calibration": "mse"}


def converted(options: dict[str, Any]) -> snnconvert.Conversion:
    return snnconvert.convert_model("zoo:digits-cnn", calibration_samples=64, limit=100, **options)


def spikes(conversion: snnconvert.Conversion) -> float:
    return float(conversion.report["analysis"]["final"]["spikes_per_image"])


@pytest.mark.parametrize(("options", "weight"), [(RATES, 30.0), ({"schedule": "ttfs"}, 30.0)])
def test_a_weight_on_spikes_saves_spikes(options: dict[str, Any], weight: float) -> None:
    before = converted(options)
    usual = {"data": DATA, "epochs": 1, "held_out": 100}
    plain, sparse = (snnconvert.finetune(before.snn, l1=one, **usual) for one in (0.0, weight))
    assert spikes(sparse) < 0.95 * min(spikes(before), spikes(plain))
    assert sparse.accuracy >= before.accuracy - 3
    assert difference(sparse.snn) == ""


def test_first_spikes_that_were_trained_are_still_exact() -> None:
    before = converted({"schedule": "ttfs"})
    snn = snnconvert.finetune(before.snn, data=DATA, epochs=1, held_out=100, l1=30.0).snn
    assert isinstance(snn.schedule, FirstSpike)
    assert snn.schedule.continuous
    images = torch.rand(2, *snn.input_shape, generator=torch.Generator().manual_seed(0))
    (events, *_), sent = EventEngine(snn).run(images)
    seen = LayerEngine(snn).run(images)
    assert np.allclose(events, seen.outputs[0][-1].numpy(), rtol=1e-9)
    assert all(len(np.unique(one.neurons)) == len(one.neurons) for each in sent for one in each.values())
    calibrated, original = snn.calibrated, before.snn.calibrated
    assert calibrated is not None
    assert original is not None
    assert any(not torch.equal(one.threshold, original.sites[name].threshold) for name, one in calibrated.sites.items())


@pytest.mark.parametrize(
    ("options", "asked", "said"),
    [
        ({"schedule": "ttfs"}, {"method": "stepwise"}, "stepwise trains spikes in steps"),
        ({"schedule": "ttfs", "time_bits": 4}, {}, "cannot be trained"),
        (RATES, {"l1": 1.0, "backward": "sparse"}, "does not fit backward sparse"),
        (RATES, {"l1": 1.0, "method": "dsr"}, "l1 means nothing to method dsr"),
    ],
)
def test_what_cannot_be_trained_is_refused(options: dict[str, Any], asked: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        snnconvert.finetune(converted(options).snn, data=DATA, epochs=1, **asked)
