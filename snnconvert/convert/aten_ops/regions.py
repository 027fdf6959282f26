"""Regions in which automatic casts are switched off: what is in them computes as it stands."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx


def without_regions(module: fx.GraphModule) -> fx.Graph:
    """The graph of an exported program with the nodes of such regions in their place; changed in place."""
    graph = module.graph
    for region in list(graph.nodes):
        if str(region.target) != "wrap_with_autocast" or region.args[2] is not False:
            continue
        body = region.args[4]
        assert isinstance(body, fx.Node)
        held = module.get_submodule(str(body.target))
        assert isinstance(held, fx.GraphModule)
        inner = without_regions(held)
        inputs = [node for node in inner.nodes if node.op == "placeholder"]
        with graph.inserting_before(region):
            results: Any = graph.graph_copy(inner, dict(zip(inputs, region.args[5:], strict=True)))
        found = results if isinstance(results, list | tuple) else [results]
        for user in list(region.users):
            if user.target is operator.getitem:
                user.replace_all_uses_with(found[int(user.args[1])])
                graph.erase_node(user)
        graph.erase_node(region)
    return graph
