"""Neuron models: NEURONS maps the name used in checkpoints and options to the equations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from snnconvert import plugins
from snnconvert.errors import OptionError
from snnconvert.neurons.base import NeuronModel, State, integrate
from snnconvert.neurons.bistable import BISTABLE
from snnconvert.neurons.burst import BURST, GRADED
from snnconvert.neurons.complementary import CLIF
from snnconvert.neurons.first_spike import FIRST_SPIKE
from snnconvert.neurons.integrate_and_fire import IF, IF_ZERO
from snnconvert.neurons.power_of_two import POWER_OF_TWO
from snnconvert.neurons.signed import SIGNED
from snnconvert.neurons.single_spike import SINGLE
from snnconvert.neurons.ternary import TERNARY, TERNARY_LATE

__all__ = [
    "BISTABLE",
    "NEURONS",
    "SIGNED",
    "NeuronModel",
    "State",
    "cheapest_first",
    "integrate",
    "offered",
    "register_neuron",
    "sending",
]

GROUP = "snnconvert.neurons"
NEURONS: dict[str, NeuronModel] = {
    model.name: model
    for model in (
        IF,
        TERNARY,
        TERNARY_LATE,
        BURST,
        GRADED,
        IF_ZERO,
        CLIF,
        SINGLE,
        SIGNED,
        BISTABLE,
        FIRST_SPIKE,
        POWER_OF_TWO,
    )
}
_OWN = frozenset(NEURONS)


def offered() -> dict[str, NeuronModel]:
    """What may replace a rectifier: the values of --neuron."""
    return {name: model for name, model in NEURONS.items() if model.offered}


def cheapest_first() -> list[NeuronModel]:
    """What `--neuron auto` tries, by the bits of one spike."""
    tried = [model for model in offered().values() if model.tried]
    return sorted(tried, key=lambda model: model.payload_bits(model.levels))


def sending(name: str, levels: int) -> NeuronModel:
    """The equations of a model whose neurons may send `levels` units a step."""
    model = NEURONS[name]
    return NEURONS[model.several] if model.several and levels != model.levels else model


def register_neuron(model: NeuronModel) -> NeuronModel:
    """Add a neuron model of one's own, which `--neuron NAME` and `neuron="NAME"` then take.

    A package brings it to the command line by an entry point of the group `snnconvert.neurons`, whose name is the
    model's. A checkpoint of such neurons loads wherever they are registered, and is refused elsewhere.

    Args:
        model: the equations and what there is to know of them. Registering a name again replaces the model.

    Returns:
        The model.

    Raises:
        OptionError: no `NeuronModel`, a name of snnconvert's own neurons, or equations that break a rule: `fire` has
            to be pure, to send whole numbers within `range`, and to keep shapes.

    Examples:
        >>> import snnconvert
        >>> def fire(state, threshold, levels):
        ...     '''Up to two unit spikes of either sign; what was sent too early is taken back.'''
        ...     n = (state.v / threshold).floor().clamp(-levels, levels).maximum(-state.sent)
        ...     return n, snnconvert.State(state.v - threshold * n, state.sent + n)
        >>> model = snnconvert.NeuronModel("double", fire, range=lambda levels: (-levels, levels), source="an example",
        ...                                memory=True, levels=2)
        >>> _ = snnconvert.register_neuron(model)
        >>> options = {"timesteps": 8, "schedule": "streaming", "calibration": "mse", "limit": 50}
        >>> snnconvert.convert_model("zoo:digits-cnn", neuron="double", **options).snn
        SpikingNetwork(digits_cnn: streaming, T = 8, 4 layers of double neurons, input 1x8x8)
    """
    if not isinstance(model, NeuronModel):
        raise OptionError(
            f"{type(model).__name__} is no neuron model", hint="give snnconvert.NeuronModel(name, fire, ...)"
        )
    name = plugins.check_name(model.name, "neuron", _OWN)
    if (model.native, model.triton) != (None, None):
        raise OptionError(
            f"neuron {name!r} names kernels (native, triton), which are for the package's own equations",
            hint="leave native and triton out: torch computes it",
        )
    from snnconvert.neurons.checks import check_equations

    check_equations(model)
    NEURONS[name] = model if model.provider else replace(model, provider=_provider(model))
    return NEURONS[name]


def _provider(model: NeuronModel) -> str:
    """Where a model comes from, for those who miss it."""
    return str(getattr(model.fire, "__module__", "") or "")


def from_entry_point(name: str, brought: Any, package: str) -> None:
    """Add what a package brings under a name."""
    if isinstance(brought, NeuronModel) and brought.name != name:
        raise OptionError(f"the model calls itself {brought.name!r}", hint="give both the same name")
    register_neuron(replace(brought, provider=package) if isinstance(brought, NeuronModel) else brought)
