"""Channels of a layer as layers of their own, so that they may send more units a step than its others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, fx

from snnconvert.graph.channels import Channels, made_by, some_channels, some_outputs
from snnconvert.graph.dialect import arguments, op_of, origin_of, sites, verify
from snnconvert.graph.edit import copied, finish, insert_before
from snnconvert.graph.kinds import Concat, Stage
from snnconvert.graph.types import Ann, Origin


def can_be_apart(ann: Ann) -> set[str]:
    """The sites whose channels can be layers of their own: weights make each of them, and nothing else reads those."""
    return {
        node.name for node, _ in sites(ann.graph) if len(node.meta["shape"]) in (1, 3) and made_by(node) is not None
    }


def with_channels_apart(ann: Ann, groups: Mapping[str, Mapping[int, Tensor]]) -> tuple[Ann, dict[str, int]]:
    """`ann` with a site for every group of channels, and what each group was called.

    Args:
        ann: the network.
        groups: by site, of those that can be apart, and by a number that a group is to be known by: its channels,
            int64. Together they are all that the site has.

    Returns:
        the network, which computes the same, itself where no site has two groups; and the number of every site of it
        that is in `groups`.
    """
    if all(len(parts) == 1 for parts in groups.values()):
        return ann, {name: number for name, parts in groups.items() for number in parts}
    graph, numbers = copied(ann.graph), dict[str, int]()
    channels = Channels(graph)
    for node in list(graph.graph.nodes):
        channels.follow(node)
        parts = groups.get(node.name, {})
        if len(parts) == 1:
            (numbers[node.name],) = parts
        elif parts:
            joined = _apart(graph, node, parts, numbers)
            node.replace_all_uses_with(joined)
            graph.graph.erase_node(node)
            channels.sources[joined] = torch.cat(list(parts.values()))
    return replace(ann, graph=verify(finish(graph), Stage.ANN)), numbers


def _apart(graph: fx.GraphModule, node: fx.Node, parts: Mapping[int, Tensor], numbers: dict[str, int]) -> fx.Node:
    """One operator with weights and one site for every part of the channels of `node`, and these side by side."""
    (before,), made, shape, origin = arguments(node), made_by(node), tuple(node.meta["shape"]), origin_of(node)
    assert made is not None
    found = []
    for number, some in parts.items():
        weighted = insert_before(graph, before, some_outputs(made, some), *arguments(before), suffix=f"of_{number}")
        site = insert_before(graph, node, some_channels(op_of(node), some), weighted, suffix=f"of_{number}")
        weighted.meta["shape"] = site.meta["shape"] = (len(some), *shape[1:])
        site.meta["origin"] = Origin(origin.name, f"{origin.operator}, {len(some)} channels")
        numbers[site.name] = number
        found.append(site)
    return insert_before(graph, node, Concat(dim=1), *found, suffix="joined")
