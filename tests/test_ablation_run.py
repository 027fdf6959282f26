"""The ablation in a whole conversion."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from snnconvert.errors import OptionError
from snnconvert.pipeline import run
from snnconvert.report.from_run import document_of
from snnconvert.request import Request
from snnconvert.study.studies import STUDIES


def test_it_is_asked_for_and_does_not_depend_on_batches() -> None:
    request = Request("zoo:digits-resnet", calibration="mse", calibration_samples=64, limit=24, timesteps=30)
    found = []
    for size in (64, 7):
        bistable = Request(
            **{**vars(request), "schedule": "bistable", "window": 3, "batch_size": size, "studies": ("ablation",)}
        )
        found.append(document_of(run(bistable), command_line=""))
    document = found[0]
    assert document["ablation"] == found[1]["ablation"]
    first, last = document["ablation"]["arms"][0], document["analysis"]["final"]
    assert document["ablation"]["images"] == document["evaluation"]["samples"] == 24
    for figure in ("accuracy", "agreement", "spikes_per_image"):
        assert first[figure] == last[figure], figure
    unasked = Request(**{**vars(request), "schedule": "bistable", "window": 3})
    assert document_of(run(unasked), command_line="")["ablation"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"studies": ("abl",)}, "--study 'abl' is not known"),
        ({"studies": ("precision",)}, "--study 'precision' is not known"),
        ({"schedule": "wait"}, "--study ablation does not fit --schedule wait: it is for bistable networks"),
        ({"timesteps": 2, "calibration": "mse"}, "does not fit the streaming network that --schedule auto chose"),
    ],
)
def test_a_study_that_cannot_be_made_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        run(Request(**{"model": "zoo:digits-resnet", "limit": 24, "studies": ("ablation",), **options}))
    assert "ablation" in caught.value.hint


def test_every_study_can_be_loaded_and_is_listed_without_torch() -> None:
    for study in STUDIES.values():
        assert callable(study.function())
    code = "import sys; from snnconvert.study.studies import STUDIES; assert STUDIES; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
