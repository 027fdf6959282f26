"""What a conversion will take, in a line that is said before it begins.

Guessed from shapes alone (`calibrate.expected`); its constants are processor time on the machine that the results were
measured on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from typing import Any

from torch import Tensor

from snnconvert.calibrate import DRAFT_IMAGES, METHODS, Task
from snnconvert.calibrate.expected import SENT, Expected
from snnconvert.compile.balance import with_identity_sites
from snnconvert.graph.dialect import op_of, role_of
from snnconvert.graph.kinds import Role
from snnconvert.graph.types import Ann
from snnconvert.search import RANKING_IMAGES, Candidate

# nothing is said of what takes less, in seconds
LONG = 30.0
# of Python and its libraries; and how often a network's weights and the images are held at once
BASE, COPIES = 0.6e9, 5
# seconds of Python, its libraries, opening the network and looking at what a few images do inside
START = 8.0
How = Callable[..., tuple[str, dict[str, Any]]]


def forecast(network: Ann, found: Sequence[Candidate], how: How, images: Tensor, measured: Sized) -> str:
    """Minutes and memory, and those with half of the calibration images; "" where that is little, or not known.

    Args:
        network: the network to convert.
        found: the neurons and schedules to try.
        how: the calibration method and its options for a schedule; with quick=True those where schedules are compared.
        images: calibration inputs, (n, *sample).
        measured: what will be evaluated.
    """
    whole = expected(network, found, how, images, len(measured))
    if whole is None or whole.seconds < LONG:
        return ""
    line, fewer = f"expected: {_said(whole)}", len(images) // 2
    half = expected(network, found, how, images[:fewer], len(measured)) if fewer >= DRAFT_IMAGES else None
    return line if half is None else f"{line}; with --calibration-samples {fewer}: {_said(half)}"


def expected(network: Ann, found: Sequence[Candidate], how: How, images: Tensor, measured: int) -> Expected | None:
    """What calibration, comparing and measuring take; None if the method does not say, or nothing fits."""
    tried = [one for one in found if one.schedule is not None]
    if not tried:
        return None
    schedule, neuron = tried[0].schedule, tried[0].neuron
    assert schedule is not None
    shaped = with_identity_sites(network, schedule)

    def calibrating(some: Tensor, *, quick: bool = False) -> Expected | None:
        method, own = how(schedule, quick=quick)
        return METHODS[method].expected(Task(shaped, some, schedule, neuron, own))

    one, stand_in = calibrating(images), calibrating(images[:DRAFT_IMAGES], quick=True)
    if one is None or stand_in is None:
        return None
    each = SENT * 1e-9 * schedule.timesteps * _operations(network)
    seconds = START + one.seconds + each * measured
    if len(tried) > 1:
        seconds += len(tried) * (stand_in.seconds + each * min(RANKING_IMAGES, len(images)))
    held = sum(4.0 * buffer.numel() for buffer in network.graph.buffers()) + 4.0 * images.numel()
    return Expected(seconds, BASE + COPIES * held + one.memory)


def _operations(network: Ann) -> float:
    """Multiplications of one pass."""
    weighted = (node for node in network.graph.graph.nodes if role_of(node) == Role.WEIGHTED)
    return float(sum(math.prod(node.meta["shape"]) * op_of(node).get_buffer("weight")[0].numel() for node in weighted))


def _said(what: Expected) -> str:
    minutes = what.seconds / 60
    time = f"{math.ceil(what.seconds / 10) * 10:g} seconds" if minutes < 2 else f"{round(minutes):g} minutes"
    return f"about {time} of one core and {what.memory / 1e9:.1f} GB"
