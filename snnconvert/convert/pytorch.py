"""The PyTorch door: an nn.Module, exported to ATen by torch.export and canonicalised into the dialect."""

from __future__ import annotations

import copy
import hashlib
import inspect
import logging
import math
import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from snnconvert.convert.aten_ops.canonicalise import Canonicaliser, Program, checked_outputs, operator_name
from snnconvert.convert.aten_ops.ranking import without_ranking
from snnconvert.convert.aten_ops.regions import without_regions
from snnconvert.convert.lowering.flow import Flow
from snnconvert.errors import DataError, InternalError, ModelFileError, UnsupportedError
from snnconvert.graph.dialect import output_nodes, verify
from snnconvert.graph.edit import finish
from snnconvert.graph.inputs import with_rows
from snnconvert.graph.kinds import Stage
from snnconvert.graph.parts import Part, as_parts, fitting, shape_of_parts, special, unpacked
from snnconvert.graph.types import Ann, Source
from snnconvert.graph.walk import walk

TOLERANCE = 1e-4
_LARGEST_ROUNDING = 1e-2
_SEED = 20


def import_module(
    module: nn.Module,
    input_shape: tuple[int, ...] | Sequence[Part],
    *,
    name: str = "",
    source: Source | None = None,
) -> Ann:
    """Bring `module` into the dialect, and check the result against the module itself.

    Args:
        module: a model whose inputs are tensors; it is copied, its own state and mode are left alone.
        input_shape: shape of one sample, batch excluded, for instance (3, 32, 32); or its inputs, in their order.
        name: how messages and reports call the model; the class name by default.
        source: where the model came from; by default it is described as a module in memory.

    Raises:
        DataError: the module does not run on an input of that shape.
        UnsupportedError: the module cannot be exported, or holds operators without a form in the dialect.
        InternalError: the imported graph differs from the module by more than 1e-4 of its largest output, and by more
            than ten times the module's own rounding error (which counts up to 1e-2, for ill-conditioned networks).
    """
    label = name or type(module).__name__
    copied = _copy(module, label)
    parts = as_parts(input_shape)
    samples = seeded_samples(2, parts)
    expected = _run(copied, samples, parts, label)
    program = _export(copied, samples, parts, label)
    outputs = without_ranking(program.graph, _output_names(expected))
    canonicaliser = Canonicaliser(program, samples)
    results = zip(outputs.names, outputs.places, canonicaliser.run(), strict=True)
    kept = [result for result in results if result[2] is not None]
    graph = canonicaliser.builder.finish(checked_outputs([value for *_, value in kept]))
    verify(graph, Stage.ANN)
    parts = with_rows(parts, graph)
    _compare(graph, copied, canonicaliser, parts, label, [place for _, place, _ in kept])
    if source is None:
        source = Source(name=label, location="module in memory", sha256=weights_digest(copied), format="pytorch")
    source = replace(source, notes=(*source.notes, *outputs.notes))
    names = tuple(key for key, *_ in kept)
    return Ann(graph=graph, input_shape=shape_of_parts(parts), outputs=names, source=source, inputs=special(parts))


def seeded_samples(batch: int, shape: tuple[int, ...] | Sequence[Part], seed: int = _SEED) -> Tensor:
    """Normal noise of shape (batch, *sample), whole where parts are, the same on every call."""
    parts = as_parts(shape)
    noise = torch.randn(batch, *shape_of_parts(parts), generator=torch.Generator().manual_seed(seed))
    return fitting(parts, noise)


def weights_digest(module: nn.Module) -> str:
    """sha256 over the names and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _copy(module: nn.Module, label: str) -> nn.Module:
    unset = [key for key, value in module.state_dict().items() if torch.nn.parameter.is_lazy(value)]
    if unset:
        raise ModelFileError(
            f"{label} has lazy layers whose weights do not exist yet",
            hint="run the model once on an input of the right shape (and train it) before it is converted",
            causes=tuple(f"{key} is uninitialized" for key in unset),
        )
    # Hooks such as weight_norm leave computed tensors on the module, which deepcopy refuses; they are computed again.
    computed = [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in computed if not value.is_leaf}
    try:
        copied = copy.deepcopy(module, memo)
    except (RuntimeError, TypeError) as error:
        raise UnsupportedError(
            f"{label} cannot be copied: {_first_line(error)}",
            hint="remove hooks and other objects that copy.deepcopy refuses from the module",
        ) from None
    copied = copied.to("cpu").eval().float()
    faulty = [key for key, value in copied.state_dict().items() if _not_finite(value)]
    if faulty:
        raise ModelFileError(
            f"{label} holds weights that are not finite",
            hint="train or load the model again; a network with such weights has no meaningful output",
            causes=tuple(f"{key} holds NaN or infinity" for key in faulty),
        )
    return copied


def _not_finite(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all())


def _run(module: nn.Module, samples: Tensor, parts: Sequence[Part], label: str) -> Any:
    try:
        with torch.no_grad():
            return _called(module, samples, parts)
    except Exception as error:
        shape = parts[0].shape if len(parts) == 1 else ", ".join(part.describe() for part in parts)
        raise DataError(
            f"{label} does not run on an input of shape {shape}: {_first_line(error)}",
            hint="give the shape of one sample that the model was trained on, channels first, for instance 3,224,224",
        ) from None


def _called(module: nn.Module, samples: Tensor, parts: Sequence[Part]) -> Any:
    return module(*(value.clone() for value in unpacked(parts, samples).values()))


def _export(module: nn.Module, samples: Tensor, parts: Sequence[Part], label: str) -> Program:
    """The undecomposed ATen graph. Two samples: torch.export takes a batch of 1 for a constant."""
    try:
        with torch.no_grad(), _quiet():
            exported = torch.export.export(
                module,
                tuple(unpacked(parts, samples).values()),
                # one entry for all the arguments that *args takes
                dynamic_shapes=_dynamic(module, len(parts)),
                strict=False,
            )
    except Exception as error:
        raise _export_error(error, label) from None
    constants: dict[str, Tensor] = {}
    inputs = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind == torch.export.graph_signature.InputKind.USER_INPUT:
            inputs.append(spec.arg.name)
        elif spec.target is not None:
            stored = exported.constants if spec.target in exported.constants else exported.state_dict
            constants[spec.arg.name] = stored[spec.target]
    if len(inputs) != len(parts):
        raise UnsupportedError(
            f"{label} has {len(inputs)} inputs ({', '.join(inputs)}), of which {len(parts)} were given",
            hint="give data with one array for each, under the names of its forward method's arguments",
        )
    named = tuple(replace(part, name=name) for part, name in zip(parts, inputs, strict=True))
    return Program(without_regions(exported.graph_module), constants, named, module_namer(module))


def _dynamic(module: nn.Module, count: int) -> Any:
    free = {0: torch.export.Dim.DYNAMIC}
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if kinds and kinds[0] == inspect.Parameter.VAR_POSITIONAL:
        return ((free,) * count,)
    return (free,) * count


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch.export logs and prints to itself: its failures are told in our own words."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _export_error(error: Exception, label: str) -> UnsupportedError:
    kind, text = type(error).__name__, str(error)
    if "DataDependent" in kind or "data-dependent" in text.lower() or "Could not guard" in text:
        return UnsupportedError(
            f"{label} takes decisions from the values of its tensors, so its graph is not fixed",
            hint="replace `if` and `while` on tensor values (also .item() and int(tensor)) by tensor operators",
            causes=(_user_line(error) or _first_line(error),),
        )
    if "Dim.DYNAMIC" in text or "specializ" in text.lower() or "ConstraintViolation" in kind:
        return UnsupportedError(
            f"{label} fixes the batch size",
            hint="use x.shape[0] or -1 instead of a number, or of len(x), where the model reshapes the batch",
            causes=(_first_line(error),),
        )
    return UnsupportedError(
        f"{label} cannot be exported by torch.export",
        hint="export the model to ONNX and convert that file, or simplify the named construct",
        causes=(f"{kind}: {_first_line(error)}",),
    )


def _user_line(error: BaseException) -> str:
    """The innermost line outside PyTorch and this package that led to `error`."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]


def module_namer(module: nn.Module) -> Any:
    """A function from an exported node to the user's name for it.

    A node of a torch.nn layer bears the layer's path ("layer1.0.relu"); a functional call bears the path of the module
    whose `forward` makes it and the operator ("layer1.0.add").
    """
    leaves = {
        path
        for path, child in module.named_modules()
        if path and not list(child.children()) and type(child).__module__.startswith("torch.nn.modules")
    }

    def where(node: fx.Node) -> str:
        stack = node.meta.get("nn_module_stack") or {}
        paths = [str(entry[0]) for entry in stack.values() if isinstance(entry, tuple)]
        path = re.sub(r"@\d+", "", paths[-1]) if paths else ""
        if path in leaves:
            return path
        return f"{path}.{operator_name(node)}" if path else operator_name(node)

    return where


def _output_names(outputs: Any) -> list[str]:
    """One name per output leaf: its key in a dict, else "output", or "output_1" and so on when there are several."""
    leaves = pytree.tree_flatten_with_path(outputs)[0]
    if len(leaves) == 1 and not leaves[0][0]:
        return ["output"]
    names = []
    for place, (path, _) in enumerate(leaves):
        key = getattr(path[-1], "key", None) if path else None
        names.append(str(key) if isinstance(key, str) else f"output_{place}" if place else "output")
    return names


def relative_difference(expected: Tensor, found: Tensor) -> float:
    """Largest absolute difference over the largest absolute value of `expected`."""
    if expected.shape != found.shape:
        return float("inf")
    scale = max(float(expected.abs().max()), 1e-12) if expected.numel() else 1.0
    difference = float((expected - found).abs().max()) if expected.numel() else 0.0
    return difference / scale if math.isfinite(difference) else float("inf")


def _compare(  # noqa: PLR0917
    graph: fx.GraphModule,
    module: nn.Module,
    canonicaliser: Canonicaliser,
    parts: Sequence[Part],
    label: str,
    places: list[int | None],
) -> None:
    """Compare with the module on a batch of another size than the one exported with.

    Args:
        places: which output of the module each output of the graph is; None for scores that it only ranks, which are
            compared with what the exported program computes.
    """
    samples = seeded_samples(3, parts, _SEED + 1)
    with torch.no_grad():
        leaves, found = pytree.tree_leaves(_called(module, samples, parts)), graph(samples)
    if None in places:
        *_, (_, values) = canonicaliser.program.values(samples)
        exported = [value for value in values if isinstance(value, Tensor)]
        expected = [exported[at] if place is None else leaves[place] for at, place in enumerate(places)]
    else:
        expected = [leaves[place] for place in places if place is not None]
    if not all(bool(torch.isfinite(value).all()) for value in expected):
        raise DataError(
            f"{label} answers with NaN or infinity to normal noise of shape {shape_of_parts(parts)}",
            hint="check that the weights are those of this architecture, and that its training did not diverge",
        )
    worst = max(relative_difference(a, b) for a, b in zip(expected, found, strict=True))
    if worst <= TOLERANCE:
        return
    if worst <= min(_LARGEST_ROUNDING, 10 * _rounding_error(module, samples, parts, expected, places)):
        return
    raise InternalError(
        f"the imported {label} differs from the PyTorch module by {worst:.1e} of its largest output",
        causes=(first_divergence(graph, canonicaliser, samples),),
    )


def _rounding_error(
    module: nn.Module, samples: Tensor, parts: Sequence[Part], single: list[Tensor], places: list[int | None]
) -> float:
    """How far the module's own answer in single precision is from its answer in double: no import can be closer."""
    precise = copy.deepcopy(module).double()
    try:
        with torch.no_grad():
            leaves = pytree.tree_leaves(_called(precise, samples.double(), parts))
    except RuntimeError:  # Modules that make float32 tensors on the way do not run in double precision.
        return 0.0
    pairs = [(leaves[place], one) for place, one in zip(places, single, strict=True) if place is not None]
    return max((relative_difference(double, one.double()) for double, one in pairs), default=0.0)


def first_divergence(graph: fx.GraphModule, canonicaliser: Canonicaliser, samples: Tensor) -> str:
    """Run both graphs side by side and name the first ATen node whose value the dialect does not reproduce."""
    with torch.no_grad():
        ours = {step.node.name: step.value for step in walk(graph, samples)}
    program = canonicaliser.program
    for node, theirs in program.values(samples):
        value = canonicaliser.made.get(node)
        if not isinstance(value, Flow) or value.merged or value.node.name not in ours:
            continue
        difference = relative_difference(theirs.movedim(value.position or 0, 0), ours[value.node.name])
        if difference > TOLERANCE:
            name = f"{program.where(node)} (aten.{operator_name(node)})"
            return f"the first node that differs is {name}, by {difference:.1e} of its largest value"
    return "no single node differs"


def choose_output(ann: Ann, output_name: str) -> Ann:
    """The same network with the output `output_name` alone, and what it needs."""
    node = output_nodes(ann.graph)[ann.outputs.index(output_name)]
    (output,) = [node for node in ann.graph.graph.nodes if node.op == "output"]
    output.args = ((node,),)
    return replace(ann, graph=finish(ann.graph), outputs=(output_name,))
