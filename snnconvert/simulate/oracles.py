"""Which oracle serves a schedule: the literal engine that the layer engine has to equal in every spike."""

from __future__ import annotations

from snnconvert.graph.types import Snn
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.simulate.step_engine import StepEngine

# by kind of schedule; all whose frames are steps are served by the step engine
ORACLES: dict[str, type[BistableEngine] | type[StepEngine]] = {"bistable": BistableEngine}


def oracle_of(snn: Snn) -> BistableEngine | StepEngine:
    """The oracle of `snn`."""
    return ORACLES.get(snn.schedule.kind, StepEngine)(snn)
