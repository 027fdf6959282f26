"""From an ATen graph, as torch.export or a .pt2 file has it, to the dialect."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.budget import Claims
from snnconvert.convert.aten_ops import OPERATORS, comparisons, wiring
from snnconvert.convert.aten_ops.comparisons import Comparison
from snnconvert.convert.aten_ops.context import BatchSize, Context, shape_of
from snnconvert.convert.lowering.flow import Flow, Refusal
from snnconvert.convert.lowering.instead import instead_of
from snnconvert.errors import InternalError, NodeFault, UnsupportedError
from snnconvert.graph.claims import result_bytes
from snnconvert.graph.dialect import Builder
from snnconvert.graph.inputs import cut_out
from snnconvert.graph.kinds import Op
from snnconvert.graph.parts import Part, unpacked
from snnconvert.graph.types import Origin

# The only Python functions that may stand in a graph: arithmetic on sizes, and picking one of several results.
SIZE_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem")
}
COMPARISONS: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name) for name in ("eq", "ne", "le", "lt", "ge", "gt", "and_", "or_", "not_")
}
_MISFITS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
CHECKS = ("_assert_scalar", "_assert_async", "_assert_tensor_metadata", "sym_constrain_range", "_guards_fn")
# Arguments that say where or how a tensor is stored or computed, never what it holds.
_STORAGE = ("memory_format", "device", "layout", "pin_memory", "non_blocking", "copy", "cudnn_enable", "cudnn_enabled")


@dataclass(frozen=True)
class Program:
    """An ATen graph with its constants.

    Attributes:
        graph: placeholders, `call_function` nodes of ATen overloads or of SIZE_FUNCTIONS, and one output.
        constants: value of every placeholder that is no input of the model.
        inputs: the placeholders that are, in the order in which one sample holds them.
        where: the user's name for each node.
        source: the file or name that it is read from.
        batch: the batch size that its shapes are written for, or None where they hold for any.
    """

    graph: fx.Graph
    constants: dict[str, Tensor]
    inputs: tuple[Part, ...]
    where: Callable[[fx.Node], str]
    source: str | Path = "the network"
    batch: int | None = None

    @torch.no_grad()
    def values(self, samples: Tensor) -> Iterator[tuple[fx.Node, Any]]:
        """Every node with the value that PyTorch itself computes for `samples`; that of the output is a list.

        Raises:
            UnsupportedError: PyTorch refuses a node, whose arguments no program that it wrote would have.
        """
        values: dict[fx.Node, Any] = {}
        given = {**self.constants, **unpacked(self.inputs, samples)}
        for node in self.graph.nodes:
            if node.op == "placeholder":
                values[node] = given[node.name].detach().clone()
            elif node.op == "output":
                values[node] = list(fx.node.map_arg(node.args[0], values.__getitem__))
            else:
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
                try:
                    values[node] = node.target(*args, **kwargs)
                except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
                    raise self._not_run(node, error) from error
            yield node, values[node]

    def _not_run(self, node: fx.Node, error: Exception) -> UnsupportedError:
        text = (str(error) or type(error).__name__).splitlines()[0].partition(" Declaration:")[0][:200]
        return UnsupportedError(
            f"PyTorch itself cannot run {self.source}",
            hint="export the model again, and check that it runs: torch.export.load(FILE).module()(x)",
            faults=(NodeFault(self.where(node), f"aten.{operator_name(node)}", text),),
        )


class _Lost:
    """Stands for the value of a node that could not be converted, so that the others are still looked at."""


_LOST = _Lost()


def operator_name(node: fx.Node) -> str:
    """The name under which OPERATORS knows the node: no namespace, overload or in-place underscore."""
    if isinstance(node.target, torch._ops.OpOverload):
        schema = node.target._schema
        name = str(schema.name).split("::")[-1]
        return name[:-1] if schema.is_mutable and name.endswith("_") else name
    return str(getattr(node.target, "__name__", node.target))


def is_aten(target: object) -> bool:
    """True for an overload of the namespace aten."""
    return isinstance(target, torch._ops.OpOverload) and target.namespace == "aten"


class Canonicaliser:
    """One walk over a program.

    `values` keeps what each ATen node stands for now, after operators that work in place; `made` what it was at first.
    """

    def __init__(self, program: Program, samples: Tensor, *, kept: bool = False) -> None:
        self.program = program
        name = program.inputs[0].name if len(program.inputs) == 1 else "inputs"
        self.builder = Builder({name: samples}, program.source)
        self.claims = Claims(program.source)
        self.context = Context(self.builder, program.batch)
        self.context.kept = kept
        self.entries = cut_out(program.inputs, self.builder.inputs[name], self._cut)
        for part in program.inputs:
            self.entries[part.name].meta["whole"] = part.whole
        self.values: dict[fx.Node, Any] = {}
        self.made: dict[fx.Node, Any] = {}
        self.faults: list[NodeFault] = []
        self._families: dict[fx.Node, set[fx.Node]] = {}
        self._done: set[fx.Node] = set()
        self._state: dict[int, str] = {}  # buffers and parameters, by where their memory is

    def run(self) -> list[Any]:
        """Convert every node and return the values of the output node.

        Raises:
            UnsupportedError: naming every node without a form in the dialect.
        """
        results: list[Any] = []
        with torch.no_grad():
            for node in self.program.graph.nodes:
                self._done.add(node)
                if node.op == "placeholder":
                    if node.name in self.entries:
                        self.values[node] = Flow(self.entries[node.name])
                    else:
                        self.values[node] = own = self.program.constants[node.name].detach().clone()
                        self._state[own.untyped_storage().data_ptr()] = node.name
                elif node.op == "output":
                    results = list(fx.node.map_arg(node.args[0], self.values.__getitem__))
                else:
                    self._convert(node)
        if self.faults:
            count = len(self.faults)
            hint = "replace the named operators in the model, or cut the model before them"
            raise UnsupportedError(
                f"{count} operator{'s have' if count > 1 else ' has'} no form in the spiking dialect",
                hint=instead_of(self.faults, hint),
                faults=tuple(self.faults),
            )
        return results

    def _cut(self, op: Op, node: fx.Node, part: Part) -> fx.Node:
        return self.builder.call(op, node, origin=Origin(part.name, "input"))

    def _convert(self, node: fx.Node) -> None:
        name = operator_name(node)
        where = self.program.where(node)
        try:
            self.values[node] = self.made[node] = self._value(node, name, where)
        except Refusal as reason:
            self.faults.append(NodeFault(where, f"aten.{name}", str(reason)))
            self.values[node] = _LOST
        except _MISFITS as error:
            # A rule met a form of the operator that it was not written for.
            text = (str(error).splitlines() or [""])[0]
            unknown = f"this form of the operator is not known: {text[:200]}"
            self.faults.append(NodeFault(where, f"aten.{name}", unknown))
            self.values[node] = _LOST

    def _value(self, node: fx.Node, name: str, where: str) -> Any:
        if name.startswith(CHECKS) or node.op == "get_attr":
            # Checks have no value; get_attr is the body of a region (autocast), which is refused where it is called.
            return _LOST
        if node.op != "call_function":
            raise Refusal(f"a node of kind {node.op}")
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.values.__getitem__)
        leaves = list(_leaves([args, kwargs]))
        if not isinstance(node.target, torch._ops.OpOverload):
            return self._size(node, name, args, leaves)
        if any(leaf is _LOST for leaf in leaves):
            if is_aten(node.target) and name not in OPERATORS:
                raise Refusal("no rule for this operator")
            return _LOST
        if not is_aten(node.target):
            raise Refusal(f"{node.target} is a custom operator; only ATen operators are known")
        named = _named(node.target, args, kwargs)
        if name in ("sym_size", "sym_numel"):
            return self._sym(name, named)
        self._refuse_mutation(node.target, named)
        if any(isinstance(leaf, Flow | BatchSize | Comparison) for leaf in leaves):
            return self._apply(node, name, where, named)
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            raise Refusal("it draws random numbers")
        self.claims.add(result_bytes(node.target, args, kwargs), f"the constant that {where} (aten.{name}) computes")
        return node.target(*args, **kwargs)

    def _refuse_mutation(self, target: torch._ops.OpOverload, named: dict[str, Any]) -> None:
        """Refuse what changes a buffer, also through a view of it: the next call would compute something else."""
        written = {argument.name for argument in target._schema.arguments if argument.is_write}
        for key in written.intersection(named):
            value = named[key]
            changed = self._state.get(value.untyped_storage().data_ptr()) if isinstance(value, Tensor) else None
            if changed is not None and value.numel():
                stored = changed.removeprefix("b_").removeprefix("p_")
                raise Refusal(
                    f"it changes {stored!r}, which the module keeps, so that its answers would differ from call to call"
                )

    def _apply(self, node: fx.Node, name: str, where: str, named: dict[str, Any]) -> Any:
        """Call the rule of an operator that has an activation, or a size with the batch in it, among its inputs."""
        assert isinstance(node.target, torch._ops.OpOverload)
        if not named:
            raise Refusal("none of its arguments has a name that it knows")
        first_name, first = next(iter(named.items()))
        rule = OPERATORS.get(name)
        if any(isinstance(leaf, Comparison) for leaf in _leaves(named)):
            reader = comparisons.READERS.get(name)
            if reader is None:
                self.context.enter(where, f"aten.{name}")
                named = {key: self._as_numbers(one) for key, one in named.items()}
                first = next(iter(named.values()))
            rule = reader or rule
        if rule is None:
            raise Refusal("no rule for this operator")
        mutates = node.target._schema.is_mutable
        if mutates and not isinstance(first, Flow):
            raise Refusal("it writes data into a constant")
        self.context.enter(where, f"aten.{name}{'_' if mutates else ''}")
        options = {key: value for key, value in named.items() if key not in (first_name, *_STORAGE)}
        if name not in ("to", "_to_copy"):
            dtype = options.pop("dtype", None)
            if isinstance(dtype, torch.dtype) and not dtype.is_floating_point:
                raise Refusal(f"it computes in {dtype}")
        result = rule(self.context, first, **options)
        self._follow(node, result, mutates)
        return result

    def _as_numbers(self, value: Any) -> Any:
        return value.numbers(self.context) if isinstance(value, Comparison) else value

    def _size(self, node: fx.Node, name: str, args: tuple[Any, ...], leaves: list[Any]) -> Any:
        if name in COMPARISONS:
            return _LOST
        if name not in SIZE_FUNCTIONS:
            raise Refusal("no rule for this function")
        if any(leaf is _LOST for leaf in leaves):
            return _LOST
        if name == "getitem":
            self._join_family(node)
        return SIZE_FUNCTIONS[name](*args)

    def _sym(self, name: str, named: dict[str, Any]) -> Any:
        x = named["self"]
        shape = shape_of(x)
        if name == "sym_size":
            return shape[named["dim"]]
        total: Any = 1
        for size in shape:
            total = size * total
        return total

    def _follow(self, node: fx.Node, result: Any, mutates: bool) -> None:
        """Keep track of views, so that an in-place operator changes every name of the value it changes."""
        source = node.args[0]
        if not isinstance(source, fx.Node):
            return
        if not mutates:
            if _may_alias(node):
                self._join_family(node)
            return
        changed = self.values[source]
        for member in self._families.get(source, {source}):
            if self.values.get(member) is changed:
                self.values[member] = result
            elif not _disjoint(member, source) and any(user not in self._done for user in member.users):
                raise Refusal("it changes a tensor in place of which a view is still in use")
        self._join_family(node)

    def _join_family(self, node: fx.Node) -> None:
        """`node` may share its memory with its first argument, and with all that argument shares memory with."""
        source = node.args[0]
        assert isinstance(source, fx.Node)
        family = self._families.setdefault(source, {source})
        family.add(node)
        self._families[node] = family


def _disjoint(first: fx.Node, second: fx.Node) -> bool:
    """True for two different pieces of one split."""
    pieces = [node.target is operator.getitem for node in (first, second)]
    return all(pieces) and first.args[0] is second.args[0] and first.args[1] != second.args[1]


def _may_alias(node: fx.Node) -> bool:
    name = operator_name(node)
    if OPERATORS.get(name) in (wiring.identity, wiring.dropout, wiring.convert):
        return name not in ("clone", "_to_copy", "lift_fresh_copy")
    assert isinstance(node.target, torch._ops.OpOverload)
    return any(argument.alias_info is not None for argument in node.target._schema.arguments)


def _leaves(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _named(target: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Every given argument under its schema name, in schema order."""
    names = [argument.name for argument in target._schema.arguments]
    named = dict(zip(names, args, strict=False)) | dict(kwargs)
    return {name: named[name] for name in names if name in named}


def checked_outputs(results: list[Any]) -> list[fx.Node]:
    """The dialect nodes of a program's outputs, each with the batch first.

    Raises:
        UnsupportedError: naming every output that is not one value per sample.
    """
    faults = []
    for index, value in enumerate(results):
        if value is _LOST:
            raise InternalError("an output was lost without a reason")
        if isinstance(value, Comparison):
            faults.append(f"output {index} is a comparison of activations")
        elif not isinstance(value, Flow):
            faults.append(f"output {index} does not depend on the input")
        elif not value.plain:
            faults.append(f"output {index} has its batch on axis {value.position}, or merged with another axis")
    if faults or not results:
        raise UnsupportedError(
            "the model's outputs are not one value per sample",
            hint="return tensors whose first axis is the batch",
            causes=tuple(faults),
        )
    return [value.node for value in results]
