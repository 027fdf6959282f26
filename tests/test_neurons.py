"""Every row of NEURONS says of its equations what they do."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from snnconvert.errors import OptionError
from snnconvert.graph.kinds import Neuron
from snnconvert.neurons import NEURONS, cheapest_first
from snnconvert.request import Request, check_request
from snnconvert.simulate.over_time import send
from tests.engines import levels_of

ROWS = [(name, levels) for name, row in NEURONS.items() for levels in levels_of(row)]


@pytest.mark.parametrize(("name", "levels"), ROWS)
def test_spikes_stay_in_their_range_and_fill_it(name: str, levels: int) -> None:
    op = Neuron(torch.tensor(0.3), torch.tensor(0.15), model=name, levels=levels)
    low, high = op.row.range(levels)
    assert low <= 0 < high == levels
    current = torch.randn(40, 4, 3000, generator=torch.Generator().manual_seed(0)) * 0.3 * levels
    spikes = send(op, current, 40, 0)
    assert torch.equal(spikes, spikes.round())
    assert (float(spikes.min()), float(spikes.max())) == (low, high)
    if op.row.rectifies:
        assert float(spikes.view(40, -1).cumsum(0).min()) >= 0


@pytest.mark.parametrize(("name", "levels"), ROWS)
def test_the_limit_is_that_of_the_equations(name: str, levels: int) -> None:
    """The rate on a constant current tends to what the neuron computes outside an engine: at most a unit in T off."""
    op = Neuron(torch.tensor(0.3), torch.tensor(0.15), model=name, levels=levels)
    current = torch.linspace(-1.2, 1.2, 101)[None] * 0.3 * levels
    rate = send(op, current[None], 400, 0).view(400, -1).mean(0)
    limit = op(current)[0]
    if op.row.equations is not None:  # leaks, and resets by more than it sends: the clipped value is out of its reach
        assert bool((rate <= limit + 1 / 400 + 1e-4).all())
        assert float(rate.max()) > 0.6 or op.row.once
        return
    if op.row.reset == "zero":  # every spike takes a whole number of steps, and loses what they brought too much
        steps = (0.3 / current[0].clamp(min=1e-9) - 1e-6).ceil()
        assert float((rate - limit).max()) <= 1 / 400 + 1e-4
        limit = torch.where(current[0] > 0, 1 / steps, 0.0)
    assert float((rate - limit).abs().max()) <= 1 / 400 + 1e-4


def test_a_search_begins_with_the_cheapest_spikes() -> None:
    found = cheapest_first()
    bits = [model.payload_bits(model.levels) for model in found]
    assert bits == sorted(bits)
    assert [model.name for model in found] == ["if", "ternary", "burst", "graded"]
    assert bits == [0, 1, 3, 5]


def test_names_are_known_without_torch() -> None:
    code = "import sys, snnconvert.neurons; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NEURONS)
def test_levels_are_asked_for_where_they_may_vary(name: str) -> None:
    row = NEURONS[name]
    if not row.offered:
        with pytest.raises(OptionError, match="not known"):
            check_request(Request("zoo:digits-cnn", neuron=name))
    elif row.adjustable or row.several:
        check_request(Request("zoo:digits-cnn", neuron=name, levels=row.levels + 1))
    else:
        with pytest.raises(OptionError, match="does not fit"):
            check_request(Request("zoo:digits-cnn", neuron=name, levels=row.levels + 1))


def test_an_unknown_neuron_is_refused() -> None:
    with pytest.raises(OptionError, match="'fancy' is not known"):
        Neuron(torch.ones(()), torch.ones(()), model="fancy")
