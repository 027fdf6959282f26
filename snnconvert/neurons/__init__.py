"""Neuron models: NEURONS maps the name used in checkpoints and options to the equations."""

from __future__ import annotations

from snnconvert.neurons.base import NeuronModel, State, integrate
from snnconvert.neurons.bistable import BISTABLE
from snnconvert.neurons.burst import BURST, GRADED
from snnconvert.neurons.first_spike import FIRST_SPIKE
from snnconvert.neurons.integrate_and_fire import IF
from snnconvert.neurons.signed import SIGNED
from snnconvert.neurons.ternary import TERNARY, TERNARY_LATE

__all__ = ["BISTABLE", "NEURONS", "SIGNED", "NeuronModel", "State", "cheapest_first", "integrate", "offered"]

NEURONS: dict[str, NeuronModel] = {
    model.name: model for model in (IF, TERNARY, TERNARY_LATE, BURST, GRADED, SIGNED, BISTABLE, FIRST_SPIKE)
}


def offered() -> dict[str, NeuronModel]:
    """What may replace a rectifier: the values of --neuron."""
    return {name: model for name, model in NEURONS.items() if model.offered}


def cheapest_first() -> list[NeuronModel]:
    """What `--neuron auto` tries, by the bits of one spike."""
    tried = [model for model in offered().values() if model.tried]
    return sorted(tried, key=lambda model: model.payload_bits(model.levels))
