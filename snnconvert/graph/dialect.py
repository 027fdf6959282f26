"""The closed dialect: which kinds of node exist, how a graph of them is built, and what makes it legal.

After a door has read a model, every node of its `torch.fx.GraphModule` is a `placeholder`, the `output`, or a
`call_module` whose type is a row of KINDS, each module called exactly once. `verify` runs between any two passes.
"""

from __future__ import annotations

import keyword
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar, overload

import torch
from torch import Tensor, fx

from snnconvert.budget import budget
from snnconvert.errors import InternalError
from snnconvert.graph.claims import check_module
from snnconvert.graph.kinds import KINDS, Neuron, Op, Role, Stage
from snnconvert.graph.types import Origin
from snnconvert.tasks.assume import Output

Kind = TypeVar("Kind", bound=Op)
# every use of a name is written into the code of its graph
_LONGEST_NAME = 200
_ENDS = {"sigmoid": "sigmoid", "hardsigmoid": "sigmoid", "Softmax": "softmax"}


@overload
def op_of(node: fx.Node) -> Op: ...


@overload
def op_of(node: fx.Node, kind: type[Kind]) -> Kind: ...


def op_of(node: fx.Node, kind: type[Op] = Op) -> Op:
    """The module a `call_module` node calls, which has to be of `kind` or of a kind below it."""
    assert node.graph.owning_module is not None
    # names have no dots, which get_submodule would take five times as long to look for
    module = getattr(node.graph.owning_module, str(node.target))
    assert isinstance(module, kind)
    return module


@overload
def calls(graph: fx.GraphModule) -> Iterator[tuple[fx.Node, Op]]: ...


@overload
def calls(graph: fx.GraphModule, kind: type[Kind]) -> Iterator[tuple[fx.Node, Kind]]: ...


def calls(graph: fx.GraphModule, kind: type[Op] = Op) -> Iterator[tuple[fx.Node, Op]]:
    """Every operator node of `kind` (or of a kind below it) with its module, in data-flow order."""
    for node in graph.graph.nodes:
        if node.op == "call_module" and isinstance(op := op_of(node), kind):
            yield node, op


def role_of(node: fx.Node) -> Role | None:
    """The role of a node's operator; None for what is no call."""
    return op_of(node).role if node.op == "call_module" else None


def neurons_of(graph: fx.GraphModule) -> dict[fx.Node, Neuron]:
    """The neuron layers, in data-flow order."""
    return dict(calls(graph, Neuron))


def sites(graph: fx.GraphModule) -> list[tuple[fx.Node, Op]]:
    """Activation call sites (or the rate norms and neurons that replaced them), in data-flow order."""
    wanted = (Role.SITE, Role.NEURON)
    return [(node, op) for node, op in calls(graph) if op.role in wanted]


def origin_of(node: fx.Node) -> Origin:
    """The user's own name for a node."""
    found = node.meta.get("origin")
    return found if isinstance(found, Origin) else Origin(node.name, str(node.target))


def safe_name(name: str, taken: Callable[[str], bool]) -> str:
    """A name for a node and its module that is not `taken` and still reads like the user's own, whatever that is.

    Of a graph Python code is made, with modules as attributes: no keyword can stand there, nor what a GraphModule has
    already, such as `graph` and `code`.
    """
    cleaned = re.sub(r"\W+", "_", name[:_LONGEST_NAME], flags=re.ASCII).strip("_") or "node"
    base = f"n_{cleaned}" if cleaned[0].isdigit() else cleaned
    candidate, counter = base, 1
    while is_reserved(candidate) or taken(candidate):
        candidate, counter = f"{base}_{counter}", counter + 1
    return candidate


def is_reserved(name: str) -> bool:
    """Whether a node cannot bear `name`, because Python or a GraphModule does."""
    return keyword.iskeyword(name) or name in _attributes()


@cache
def _attributes() -> frozenset[str]:
    return frozenset((*dir(fx.GraphModule(torch.nn.Module(), fx.Graph())), "self"))


class Builder:
    """Builds a graph in the dialect, running every node once on samples, so that each shape is known at once.

    Example:
        builder = Builder({"input": torch.rand(2, 3, 32, 32)})
        x = builder.inputs["input"]
        x = builder.call(kinds.Conv(weight, bias, stride=(1, 1), ...), x, origin=Origin("Conv_0", "Conv"))
        graph = builder.finish([x])

    `builder.sample(node)` is the value of the node on the samples (batch first). The newest values are kept, as many as
    fit into a quarter of the budget of what a file may ask for; older ones are computed again where they are read.

    Args:
        samples: by the names of the inputs.
        source: the file or name that the graph is read from; what its nodes make is held against what it may ask for.
    """

    def __init__(self, samples: dict[str, Tensor], source: str | Path = "the network") -> None:
        self._root, self.source = torch.nn.Module(), source
        self._graph = fx.Graph()
        self._samples: dict[fx.Node, Tensor] = {}
        self._free = budget() // 4
        self._taken: set[str] = set()
        self.inputs: dict[str, fx.Node] = {}
        for name, value in samples.items():
            node = self._graph.placeholder(self._unique(name))
            node.meta["origin"] = Origin(name, "input")
            self._record(node, value)
            self.inputs[name] = node

    def sample(self, node: fx.Node) -> Tensor:
        """The value of `node` on the builder's samples."""
        return self._samples[node] if node in self._samples else self._again(node)

    def op(self, node: fx.Node) -> Op | None:
        """The operator of `node`; None for an input."""
        found = self._root.get_submodule(str(node.target)) if node.op == "call_module" else None
        return found if isinstance(found, Op) else None

    def call(self, op: Op, *inputs: fx.Node, origin: Origin) -> fx.Node:
        """Append `op` applied to `inputs`; its name in the graph is derived from `origin`.

        Raises:
            ClaimError: it would take more memory than the source may ask for.
        """
        target = self._unique(origin.name)
        op.eval()
        given = [self.sample(node) for node in inputs]
        check_module(op, given, str(origin), self.source)
        with torch.no_grad():
            value = op(*given)
        self._root.add_module(target, op)
        node = self._graph.create_node("call_module", target, tuple(inputs), {}, name=target)
        node.meta["origin"] = origin
        self._record(node, value)
        return node

    def finish(self, outputs: Sequence[fx.Node]) -> fx.GraphModule:
        """Close the graph with `outputs` (a tuple, in the model's order) and drop the samples."""
        self._graph.output(tuple(outputs))
        self._samples.clear()
        module = fx.GraphModule(self._root, self._graph)
        module.eval()
        erase_dead(module)
        return module

    def _record(self, node: fx.Node, value: Tensor) -> None:
        self._samples[node] = value
        self._free -= value.nbytes
        node.meta["shape"] = tuple(value.shape[1:])
        for oldest in [kept for kept in self._samples if kept.op != "placeholder" and kept is not node]:
            if self._free >= 0:
                break
            self._free += self._samples.pop(oldest).nbytes

    def _again(self, node: fx.Node) -> Tensor:
        """A value that is no longer kept, from those that are."""
        wanted, missing = [node], set[fx.Node]()
        while wanted:
            current = wanted.pop()
            if current not in self._samples and current not in missing:
                missing.add(current)
                wanted += arguments(current)
        left = Counter(source for one in missing for source in arguments(one) if source in missing)
        values = dict[fx.Node, Tensor]()
        for one in [each for each in self._graph.nodes if each in missing]:
            op = self.op(one)
            assert op is not None
            sources = arguments(one)
            with torch.no_grad():
                values[one] = op(*(values[each] if each in missing else self._samples[each] for each in sources))
            left.subtract(each for each in sources if each in missing)
            for each in sources:
                if each in values and not left[each]:
                    del values[each]
        return values[node]

    def _unique(self, name: str) -> str:
        found = safe_name(name, self._taken.__contains__)
        self._taken.add(found)
        return found


def erase_dead(graph: fx.GraphModule) -> None:
    """Remove nodes and modules that no output needs, and compile the graph again."""
    for node in reversed(list(graph.graph.nodes)):
        if node.op == "call_module" and not node.users:
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()


def arguments(node: fx.Node) -> list[fx.Node]:
    """The input nodes in call order (a node given twice appears twice)."""
    return [argument for argument in node.args if isinstance(argument, fx.Node)]


def output_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """The nodes that the graph returns, in order."""
    (output,) = [node for node in graph.graph.nodes if node.op == "output"]
    returned = output.args[0]
    assert isinstance(returned, tuple)
    return [node for node in returned if isinstance(node, fx.Node)]


def class_count(graph: fx.GraphModule) -> int:
    """The number of values in the first output of one sample: the classes of a classifier."""
    return math.prod(output_nodes(graph)[0].meta["shape"])


def outputs_of(graph: fx.GraphModule) -> list[Output]:
    """Shape of each output and the function at its very end, for `tasks.assume`."""
    found = []
    for output in output_nodes(graph):
        node = output
        while node.op == "call_module" and type(op_of(node)).__name__ == "Reshape":
            (node,) = arguments(node)
        op = op_of(node) if node.op == "call_module" else None
        function = op.arguments().get("function") if op is not None else None
        ends = _ENDS.get(str(function) if function else type(op).__name__, "")
        found.append(Output(tuple(output.meta["shape"]), ends))
    return found


def verify(graph: fx.GraphModule, stage: Stage) -> fx.GraphModule:
    """Check that `graph` is legal at `stage`, and return it.

    Raises:
        InternalError: naming every node that breaks a rule of the dialect.
    """
    faults = []
    targets: set[str] = set()
    for node in graph.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        where = f"{node.name} from {origin_of(node)}"
        if node.op != "call_module":
            faults.append(f"{where}: op {node.op} is not of the dialect")
            continue
        module = graph.get_submodule(str(node.target))
        kind = type(module).__name__
        if KINDS.get(kind) is not type(module):
            faults.append(f"{where}: {kind} is no kind of the dialect")
            continue
        if node.target in targets:
            faults.append(f"{where}: module {node.target} is called twice; every call site needs its own")
        targets.add(str(node.target))
        if node.kwargs or len(arguments(node)) != len(node.args):
            faults.append(f"{where}: arguments must be nodes")
        if stage not in module.stages:
            legal = " and ".join(one.name for one in module.stages)
            faults.append(f"{where}: {kind} is legal at stage {legal} only")
    if faults:
        raise InternalError(f"the graph is not legal at stage {stage.name}", causes=tuple(faults))
    return graph
