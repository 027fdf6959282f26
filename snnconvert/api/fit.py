"""How well a model would fit a chip, found without data and without a conversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.cost.chip import load_target, violations
from snnconvert.data.selection import select_inputs
from snnconvert.graph.schedule import SCHEDULES
from snnconvert.graph.types import NeuronChoice
from snnconvert.neurons import offered
from snnconvert.request import Request
from snnconvert.search import ROUGH_IMAGES, candidates, roughly
from snnconvert.stages import for_task, open_ann, with_encoder


def fit(request: Request) -> dict[str, Any]:
    """What each neuron and schedule would break on the chip that `request.target` names.

    Returns:
        `target`, its name; `timesteps`; `choices`, a row for each neuron and schedule: name, the number of broken
        limits (None if it cannot be had in so many steps) and why; `violations` of those that break the fewest, as
        `cost.chip.violations` states them. JSON-able.

    Raises:
        OptionError: no such target.
        SnnConvertError: a model that cannot be opened or converted.
    """
    assert request.target is not None
    target = load_target(request.target)
    ann, _ = open_ann(request)
    inputs = select_inputs(ann, replace(request, data=None, calibration_samples=ROUGH_IMAGES))
    ann = for_task(request, ann, inputs.task)
    images = in_canonical_order(inputs.calibration)
    _, network = with_encoder(request, ann, images, inputs)
    neurons = [NeuronChoice(name, model.levels) for name, model in offered().items()]
    choices, best = list[dict[str, Any]](), None
    for one in candidates(network, request.timesteps, neurons=neurons, schedules=tuple(SCHEDULES)):
        broken = None if one.schedule is None else violations(roughly(network, images, one), target)
        choices.append(
            {"name": one.name, "broken": None if broken is None else len(broken), "reason": _why(one, broken)}
        )
        if broken is not None and (best is None or len(broken) < len(best)):
            best = broken
    return {"target": target.name, "timesteps": int(request.timesteps), "choices": choices, "violations": best or []}


def _why(one: Any, broken: Sequence[dict[str, Any]] | None) -> str:
    """The first limit that is broken, or why the schedule cannot be had."""
    if broken is None:
        return str(one.reason)
    return f"{broken[0]['text']} ({broken[0]['layer']})" if broken else ""
