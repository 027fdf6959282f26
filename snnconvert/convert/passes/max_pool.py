"""Move activations, and affine maps with positive scale, in front of a max pooling: both are monotone.

    relu(maxpool(x)) = maxpool(relu(x));    a maxpool(x) + c = maxpool(a x + c)  for a > 0, per channel

On spikes the maximum of counts is exact; the maximum of per-step currents is not (it over-estimates).
"""

from __future__ import annotations

from torch import fx

from snnconvert.convert.passes.fold_affine import per_channel
from snnconvert.graph.dialect import arguments, calls, op_of
from snnconvert.graph.edit import kind_of, only_user, redirect
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Affine, MaxPool


def swap_max_pool(graph: fx.GraphModule) -> int:
    """Swap (max pool, activation or positive affine) pairs; returns how many were swapped."""
    swapped, moves = 0, flows(graph)
    for node, _ in list(calls(graph, MaxPool)):
        user = only_user(node)
        if user is None or not _movable(node, user, moves):
            continue
        (source,) = arguments(node)
        for reader in list(user.users):
            redirect(reader, user, node)
        user.args, node.args = (source,), (user,)
        source.append(user)
        user.meta["shape"] = source.meta["shape"]
        user.append(node)
        swapped += 1
    return swapped


def _movable(pool: fx.Node, user: fx.Node, moves: dict[fx.Node, Flow]) -> bool:
    if user.op != "call_module":
        return False
    if op_of(user).rectifies:
        return True
    if kind_of(user) != "Affine" or moves.get(pool) == Flow.SPIKES:  # behind neurons it is for the next weights
        return False
    affine = op_of(user, Affine)
    channels, rank = pool.meta["shape"][0], len(pool.meta["shape"])
    scale, shift = (per_channel(part, rank, channels) for part in (affine.scale, affine.shift))
    return scale is not None and shift is not None and bool((scale > 0).all())
