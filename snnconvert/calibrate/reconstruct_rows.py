"""What least squares read of the two networks: the inputs of an operator, and what its outputs lack, at some positions.

Of a map only what these positions read is computed, as far as that is less than everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, fx

from snnconvert.calibrate.least_squares import Taps, outputs_by_group, patches, read_by, weights_solved
from snnconvert.calibrate.live_values import Chunk
from snnconvert.calibrate.pixels import at_pixels, pixels_behind
from snnconvert.calibrate.reconstruct_networks import Networks
from snnconvert.graph.dialect import arguments, op_of
from snnconvert.graph.kinds import Weighted


def rows_of(
    networks: Networks, node: fx.Node, positions: Tensor, *, start: int = 0
) -> Callable[[Chunk], Tensor | Taps]:
    """What the operator `node` reads for some of its outputs, averaged over the frames from `start` on, of any chunk.

    Shape (groups, reads * batch, positions, inputs per group + 1), as from `least_squares.patches`, or what says as
    much to kernels; without inputs where only the bias is solved.
    """
    op, (source,) = op_of(node, Weighted), arguments(node)
    if not weights_solved(op):
        reads = len(networks.read_at)
        return lambda chunk: torch.ones(op.groups, reads * len(chunk.images), len(positions), 1)
    form, rank = op.on_sums(), len(source.meta["shape"])
    if rank != 3 or op.weight.ndim != 4:
        axis = rank if op.features_last else 1
        return lambda chunk: patches(form, op.summed(networks.read(chunk, source, start), axis), positions)
    inner, read = pixels_behind(node, positions, kept=source in networks.stored)
    read = read.flatten(1)
    pixels, place = torch.unique(read[read >= 0], return_inverse=True)
    if start == 0 and 2 * len(pixels) <= math.prod(inner.meta["shape"][1:]):
        index = torch.full_like(read, -1).masked_scatter_(read >= 0, place)
        return lambda chunk: read_by(form, op.summed(_by_pixel(networks.mean_at(chunk, inner, pixels)), 2), index)
    _, whole = pixels_behind(node, positions, kept=True)
    return lambda chunk: read_by(form, _by_pixel(op.summed(networks.read(chunk, source, start), 1)), whole.flatten(1))


def _by_pixel(values: Tensor) -> Tensor:
    """(batch, channels, height, width) as (batch, pixels, channels)."""
    return values.flatten(2).transpose(1, 2)


def lacking_of(
    networks: Networks, chunk: Chunk, op: Weighted, target: fx.Node, positions: Tensor, *, start: int = 0
) -> Tensor:
    """What the spiking network's mean over the frames from `start` on lacks at `target`, where outputs of `op` end up.

    Shape (groups, reads * batch, positions, outputs per group). What the ANN has there is remembered.
    """
    wanted = networks.wanted(chunk, target, remember=True)
    if start == 0 and len(target.meta["shape"]) == 3:
        lacking = at_pixels(wanted, positions) - networks.mean_at(chunk, target, positions)
        return outputs_by_group(op, lacking)
    return outputs_by_group(op, wanted - networks.read(chunk, target, start), positions)
