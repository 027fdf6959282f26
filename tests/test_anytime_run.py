"""A conversion that is compared with one per number of steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from snnconvert.errors import OptionError
from snnconvert.pipeline import run
from snnconvert.report.from_run import document_of
from snnconvert.request import Request
from snnconvert.zoo.manifest import load_manifest

REQUEST = Request("zoo:digits-resnet", timesteps=6, calibration_samples=48, limit=60, calibrate_for=(2, 4))


@pytest.mark.parametrize("neuron", ["if", "ternary"])
def test_networks_per_t_are_those_of_a_conversion_for_t(neuron: str) -> None:
    request, told = replace(REQUEST, neuron=neuron), set[str]()
    document = document_of(run(request, lambda what, *_: told.add(what)), command_line="")
    assert document["schedule"]["kind"] == "streaming"
    section = document["anytime"]
    assert section["calibrated_for"] == [2, 4, 6]
    assert [row["t"] for row in section["rows"]] == [2, 4, 6]
    assert {"T = 2: reconstruct", "T = 4: reconstruct", "T = 4: simulate"} <= told
    for row in section["rows"]:
        for key in ("accuracy", "agreement", "spikes_per_image"):
            assert row["this"][key] == document["fit_curve"][key][row["t"] - 1]
        alone = replace(request, timesteps=row["t"], calibrate_for=(), schedule="streaming", batch_size=7)
        other = document_of(run(alone), command_line="")
        assert other["anytime"] is None
        final = other["analysis"]["final"]
        for key in ("accuracy", "agreement", "spikes_per_image"):
            assert row["own"][key] == pytest.approx(final[key])
        assert row["own"]["accuracy_interval"] == pytest.approx(other["fit_curve"]["accuracy_interval"][-1])
        assert row["own"]["read_from"] == other["schedule"]["read_from"]
        assert not row["own"]["same"]


def test_the_networks_beside_it_need_not_leave_early() -> None:
    """One that answers once has nothing to leave early from."""
    request = replace(REQUEST, early_exit=0.9, calibrate_for=(1, 4))
    section = document_of(run(request), command_line="")["anytime"]
    assert [row["t"] for row in section["rows"]] == [1, 4, 6]


def test_without_data_agreement_is_compared() -> None:
    from snnconvert.data.bundled import model_path

    request = replace(REQUEST, model=str(model_path("digits-resnet")), calibrate_for=(3,), limit=None)
    section = document_of(run(request), command_line="")["anytime"]
    assert [row["own"]["accuracy"] for row in section["rows"]] == [None, None]
    assert 0 < section["rows"][0]["own"]["agreement"] <= 100


FREE = Request("zoo:digits-resnet", timesteps=12, calibration_samples=48, limit=60, calibration="mse")


def test_the_frontier_has_the_networks_of_conversions_for_each_t() -> None:
    document = document_of(run(replace(FREE, frontier=(16, 2, 12))), command_line="")
    rows = document["frontier"]
    assert [(row["T"], row["same"]) for row in rows] == [(2, False), (12, True), (16, False)]
    assert document["anytime"] is None
    for row in rows:
        alone = document_of(run(replace(FREE, timesteps=row["T"], batch_size=7)), command_line="")
        assert (row["metric"], row["neuron"]) == ("accuracy", "if")
        assert row["value"] == alone["analysis"]["final"]["value"]
        assert row["interval"] == pytest.approx(alone["analysis"]["final"]["interval"])
        assert row["spikes_per_image"] == pytest.approx(alone["analysis"]["final"]["spikes_per_image"])
        assert row["schedule"].startswith(alone["schedule"]["kind"])


def test_a_t_into_which_nothing_fits_says_so() -> None:
    document = document_of(run(replace(FREE, schedule="bistable", frontier=(4,))), command_line="")
    few, this = document["frontier"]
    assert (few["value"], few["schedule"]) == (None, None)
    assert "no schedule fits" in few["reason"]
    assert this["same"]


@pytest.mark.parametrize("name", ["frontier", "compare_at"])
def test_a_manifest_may_ask_for_it_by_its_old_name_too(name: str, tmp_path: Path) -> None:
    path = tmp_path / "zoo.toml"
    path.write_text(f'[[model]]\nsource = "zoo:digits-cnn"\ntimesteps = 8\n{name} = [2, 4]\n')
    (entry,) = load_manifest(path).entries
    assert entry.options["frontier"] == (2, 4)
    path.write_text(path.read_text().replace("[2, 4]", "[2, 0]"))
    with pytest.raises(OptionError, match=r"line 4: .*--frontier"):
        load_manifest(path)
