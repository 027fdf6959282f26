"""Whether equations that somebody registers keep to what engines rely on, and are those that a checkpoint knows."""

from __future__ import annotations

import hashlib

import torch

from snnconvert.errors import OptionError
from snnconvert.neurons.base import NeuronModel, State, integrate

# of a digest: enough for what a neuron remembers to show
STEPS = 24


def check_equations(model: NeuronModel) -> None:
    """Try the equations on a few membranes.

    Raises:
        OptionError: what rule they break.
    """
    levels = model.levels
    try:
        low, high = model.range(levels)
        current = torch.linspace(-6, 6, 97, dtype=torch.float32).reshape(1, 97)
        threshold = torch.full((1, 1), 1.5)
        state = model.init(current, torch.tensor(0.5))
        for sign in (1, 1, -1, -1, 1):
            state = integrate(state, sign * current)
            before = State(state.v.clone(), None if state.sent is None else state.sent.clone())
            spikes, after = model.fire(state, threshold, levels)
            if not torch.equal(before.v, state.v):
                raise _refused(model, "fire changes the membrane in place", "let it return a new State")
            _check_step(model, spikes, after, (low, high))
            state = after
    except OptionError:
        raise
    except Exception as error:
        raise _refused(model, f"its equations fail: {type(error).__name__}: {error}") from error


def behaviour(model: NeuronModel) -> str:
    """A digest of what the equations do: the units that they send for a few currents, at several numbers of levels.

    The text of the equations may change, and membranes may differ in their last bits from machine to machine: neither
    changes it.
    """
    total = hashlib.sha256()
    current = torch.linspace(-3.1, 6.3, 95, dtype=torch.float32).reshape(1, 95)
    for levels in sorted({1, model.levels}):
        state = model.init(current, torch.tensor(0.45))
        for step in range(STEPS):
            state = integrate(state, current if step % 8 < 3 else 0.37 - current)  # there and back
            spikes, state = model.fire(state, torch.full((1, 1), 1.5), levels)
            total.update(spikes.to(torch.int64).numpy().tobytes())
    return total.hexdigest()[:16]


def _check_step(model: NeuronModel, spikes: torch.Tensor, after: State, limits: tuple[int, int]) -> None:
    low, high = limits
    if not isinstance(after, State) or after.v.shape != spikes.shape or after.v.shape != (1, 97):
        raise _refused(model, "fire does not return (spikes, State) of the membrane's shape")
    if model.memory != (after.sent is not None):
        raise _refused(model, f"memory is {model.memory}, but the state's count of spikes says otherwise")
    if not torch.equal(spikes, spikes.round()) or not bool(torch.isfinite(after.v).all()):
        raise _refused(model, "fire sends other than whole numbers of units, or its membrane is not finite")
    if float(spikes.min()) < low or float(spikes.max()) > high:
        raise _refused(
            model,
            f"fire sends {int(spikes.min())} to {int(spikes.max())} units where its range is {low} to {high}",
            "correct range: sums are exact within it only",
        )


def _refused(model: NeuronModel, reason: str, hint: str = "") -> OptionError:
    usual = "see snnconvert.NeuronModel for what fire has to do"
    return OptionError(f"neuron {model.name!r} cannot be registered: {reason}", hint=hint or usual)
