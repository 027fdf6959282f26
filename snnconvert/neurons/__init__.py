"""Neuron models: NEURONS maps the name used in checkpoints and options to the equations."""

from __future__ import annotations

from snnconvert.neurons.base import NeuronModel, State, integrate
from snnconvert.neurons.bistable import BISTABLE
from snnconvert.neurons.burst import BURST, GRADED
from snnconvert.neurons.integrate_and_fire import IF
from snnconvert.neurons.signed import SIGNED
from snnconvert.neurons.ternary import TERNARY, TERNARY_LATE

__all__ = ["NEURONS", "RECTIFIERS", "NeuronModel", "State", "integrate"]

NEURONS: dict[str, NeuronModel] = {
    model.name: model for model in (IF, TERNARY, TERNARY_LATE, BURST, GRADED, SIGNED, BISTABLE)
}

# what may replace a rectifier: the values of --neuron (a bistable schedule brings its own neuron)
RECTIFIERS = ("if", "ternary", "ternary-late", "burst", "graded")
