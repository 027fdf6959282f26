"""What the closed loop will take, guessed from shapes before the work: processor time, and what has to be held."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import fx

from snnconvert.calibrate.least_squares import inputs_of, weights_solved
from snnconvert.calibrate.observe import channel_axis
from snnconvert.calibrate.options import Reconstruct
from snnconvert.graph.dialect import op_of
from snnconvert.graph.kinds import Role, Weighted

# rows of the sample for each weight of an output: six, on the images that are fitted, lose nothing (accuracy.md)
ROWS_PER_INPUT = 8
# nanoseconds: of all trials of a value in one frame; of a multiplication of the least squares, of the currents that
# neurons are tried on, and of spikes that are sent on; of a value that is kept, in one frame. Seven networks take 0.8
# to 1.7 times what these say, one of many candidates half (`python benchmarks/conversion_profile.py` prints both sides)
TRIED, SOLVED, CURRENT, SENT, KEPT = 20.0, 0.1, 0.04, 0.012, 4.0


@dataclass(frozen=True)
class Expected:
    """Seconds of one core, and bytes besides the network and the images."""

    seconds: float
    memory: float


def nanoseconds(node: fx.Node, images: int, frames: int, options: Reconstruct) -> float:
    """What the visit of an operator or a site takes."""
    op, size, share = op_of(node), float(math.prod(node.meta["shape"])), (1 + options.rounds) / 3
    if op.role == Role.SITE:
        channels = node.meta["shape"][channel_axis(node)]
        tried = min(options.rows_for(frames) * channels, images * size)
        return float(frames * (KEPT * images * size + TRIED * share * tried))
    if op.role != Role.WEIGHTED:
        return KEPT * frames * images * size
    weighted = op_of(node, Weighted)
    read, outputs = weighted.weight[0].numel(), len(weighted.weight)
    inputs = inputs_of(weighted) if weights_solved(weighted) else 1
    wanted = max(options.rows_for(frames, solved=inputs > 1), ROWS_PER_INPUT * inputs)
    rows = min(wanted, images * size / outputs)
    solving = inputs * (inputs + outputs) * rows + inputs * inputs * (inputs + 4 * outputs)
    currents = 3 * share * CURRENT * rows * outputs + SENT * images * size
    return SOLVED * solving + currents * read * frames
