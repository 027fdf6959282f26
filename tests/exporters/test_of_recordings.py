"""Networks that replay recordings of events: an exporter holds them, or refuses them with the layer and the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession

import snnconvert
from snnconvert.errors import UnsupportedError
from snnconvert.exporters import EXPORTERS

SIZE = 6
WAYS = [(to, form) for to, row in EXPORTERS.items() for form in row.forms or [None]]


def recordings(count: int) -> list[np.ndarray]:
    rng, made = np.random.default_rng(3), []
    for _ in range(count):
        events = np.empty(120, [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")])
        events["x"], events["y"] = rng.integers(0, SIZE, (2, 120))
        events["t"], events["p"] = np.sort(rng.integers(0, 10_000, 120)), rng.random(120) < 0.5
        made.append(events)
    return made


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3)
    return torch.nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def snn(module: torch.nn.Module) -> snnconvert.SpikingNetwork:
    given = recordings(8), np.arange(8) % 3
    return snnconvert.convert_model(
        module, data=given, events="window:1", scale=4.0, calibration="mse", input_shape=(2, 6, 6)
    ).snn


@pytest.mark.parametrize(("to", "form"), WAYS)
def test_every_exporter_holds_recordings_or_refuses_them_by_name(
    snn: snnconvert.SpikingNetwork, module: torch.nn.Module, tmp_path: Path, to: str, form: str | None
) -> None:
    path = tmp_path / f"written{EXPORTERS[to].suffix}"
    further = {"reader": "primitive"} if to == "nir" else {}
    if (form or "") not in EXPORTERS[to].events:
        with pytest.raises(UnsupportedError, match=f"--to {to}.* holds networks whose input stays the same") as error:
            snnconvert.export(snn, path, to=to, form=form, **further)
        (fault,) = error.value.faults
        assert "recordings of events come in here" in fault.reason
        assert not path.exists()
        return
    snnconvert.export(snn, path, to=to, form=form, **further)
    given = snn.prepare(recordings(5))
    if path.is_file():  # the original network, of accumulated frames
        session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
        answers = session.run(None, {session.get_inputs()[0].name: given.numpy()})[0]
        assert np.allclose(answers, module(given.as_subclass(torch.Tensor)).detach(), atol=1e-5)
        return
    again = snnconvert.load(path / "network.snn")
    assert np.array_equal(again.simulate(given).outputs, snn.simulate(given).outputs)
    card = (path / "README.md").read_text("utf-8")
    assert "snn.simulate(snn.prepare(recordings))" in card
    assert "recordings of" in card
    assert "image" not in card
