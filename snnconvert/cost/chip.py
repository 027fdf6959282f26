"""How a network fits a chip: every limit that it breaks, layer by layer, and what the chip's integers cost in accuracy.

A target is a TOML file whose keys are the fields of `Target`; what it leaves out is not known and not checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
from torch import fx

from snnconvert.compile.integers import SCALES
from snnconvert.cost.cores import Placed, placed
from snnconvert.data.datasets import Dataset
from snnconvert.data.sampling import balanced_sample
from snnconvert.errors import OptionError
from snnconvert.files import parsed_toml, read_toml
from snnconvert.graph.dialect import arguments, calls, neurons_of, op_of, origin_of, role_of
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Neuron, Op, Role, Weighted
from snnconvert.graph.types import Snn
from snnconvert.progress import Progress, silent
from snnconvert.simulate.integer import IntegerCurve, integer_curve
from snnconvert.study.converted import Converted, Means

# on which a conversion for a chip is run in its integers
MOST_IMAGES = 500
SWEEP_WEIGHT_BITS, SWEEP_STATE_BITS = (3, 4, 6, 8), (8, 10, 12, 16)
# of an input value, where a target does not say: no fewer than any sensor has
INPUT_BITS = 16
LISTS = ("pools", "strides", "kernel_memory", "neuron_memory")
CHOICES = {"reset": ("subtract", "zero"), "scale_per": SCALES}


@dataclass(frozen=True)
class Target:
    """Limits of a chip; None where not known.

    Attributes:
        weight_bits, state_bits, input_bits: of a weight, a membrane potential and an input value, sign included.
        scale_per: what may have a unit of its own, "channel" (if thresholds may differ within a layer; assumed where
            not known) or "layer".
        reset: what a spike does to the membrane: subtract (the threshold) or zero (for which a network is calibrated
            with --neuron if-zero).
        units_per_spike: largest number that one spike carries.
        signed_spikes: whether spikes may be negative.
        layers: neuron layers (cores) on the chip.
        destinations: layers that one layer can send to.
        fan_in, fan_out: synapses per neuron, and per spike.
        neurons_per_layer, weight_bytes_per_layer: memory of a core.
        kernel_memory, neuron_memory: words of each core, as `cores` counts them; the layers then have to fit, one to a
            core, and branches cannot be summed into the same neurons.
        biases_per_layer: of a core.
        kernel: largest side of a convolution; pools: sides that pooling may have; strides: that convolutions may have.
        analogue_operators: whether operators on real values (attention, gates, normalisation) can run.
    """

    name: str
    source: str = "not stated"
    weight_bits: int | None = None
    state_bits: int | None = None
    input_bits: int | None = None
    scale_per: str | None = None
    reset: str | None = None
    units_per_spike: int | None = None
    signed_spikes: bool | None = None
    layers: int | None = None
    destinations: int | None = None
    fan_in: int | None = None
    fan_out: int | None = None
    neurons_per_layer: int | None = None
    weight_bytes_per_layer: int | None = None
    kernel_memory: tuple[int, ...] | None = None
    neuron_memory: tuple[int, ...] | None = None
    biases_per_layer: int | None = None
    kernel: int | None = None
    pools: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None
    analogue_operators: bool | None = None


def load_target(name: str) -> Target:
    """A target from a TOML file, or a bundled one by its name.

    Raises:
        OptionError: no such file or name, no TOML, an unknown key, or a value of the wrong kind.
    """
    folder = resources.files("snnconvert.cost").joinpath("targets")
    bundled = sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))
    hint = f"name a TOML file, or one of the bundled targets: {', '.join(bundled)}"
    try:
        own = name in bundled
        values = parsed_toml(folder.joinpath(f"{name}.toml").read_text("utf-8")) if own else read_toml(name)
    except (OSError, ValueError) as error:
        raise OptionError(f"--target {name} cannot be read: {error}", hint=hint) from error
    known = [field.name for field in fields(Target)]
    if unknown := sorted(set(values) - set(known)):
        raise OptionError(f"--target {name}: unknown key {unknown[0]!r}", hint=f"known keys: {', '.join(known)}")
    kinds = get_type_hints(Target)
    made: dict[str, Any] = {"name": Path(name).stem}
    for key, value in values.items():
        allowed = get_args(kinds[key]) or (kinds[key],)
        if isinstance(value, list) and all(type(item) is int for item in value):
            made[key] = tuple(value)
        elif type(value) in allowed and not (type(value) is int and value < 1):
            made[key] = value
        else:
            made[key] = None
        wanted_list = key in LISTS
        if made[key] is None or wanted_list != isinstance(made[key], tuple):
            wanted = "a list of whole numbers" if wanted_list else str(kinds[key]).replace(" | None", "")
            raise OptionError(f"--target {name}: {key} = {value!r} is not possible", hint=f"{key} is {wanted}")
    for key, allowed in CHOICES.items():
        if made.get(key) not in (None, *allowed):
            hint = f"choose {' or '.join(allowed)}"
            raise OptionError(f"--target {name}: {key} = {made[key]!r} is not known", hint=hint)
    if len(made.get("kernel_memory", ())) != len(made.get("neuron_memory", ())):
        hint = "give both, with one number for each core"
        raise OptionError(f"--target {name}: kernel_memory and neuron_memory belong together", hint=hint)
    return Target(**made)


def violations(snn: Snn, target: Target) -> list[dict[str, Any]]:
    """Every limit of `target` that `snn` breaks: rows of layer, limit, allowed, found and text, in data-flow order."""
    found = [
        {"layer": layer, "limit": limit, "allowed": plain, "found": value, "text": text}
        for layer, limit, plain, value, text in _broken(snn, target)
    ]
    found += _without_core(cores_of(snn, target), target)
    count = len(neurons_of(snn.graph))
    if target.layers is not None and count > target.layers:
        text = f"the network has {count} neuron layers, the chip {target.layers}"
        found.insert(
            0, {"layer": "the network", "limit": "layers", "allowed": target.layers, "found": count, "text": text}
        )
    return found


def cores_of(snn: Snn, target: Target) -> list[Placed]:
    """Which layer goes to which core; empty where the memories of cores are not known."""
    if target.kernel_memory is None or target.neuron_memory is None:
        return []
    return placed(snn, target.kernel_memory, target.neuron_memory)


def _without_core(layers: Sequence[Placed], target: Target) -> Iterator[dict[str, Any]]:
    for one in layers:
        row = {"layer": one.layer, "allowed": 1}
        if one.kernels != 1:
            text = f"a core has one kernel; {one.kernels} branches are summed into these neurons"
            yield {**row, "limit": "kernels", "found": one.kernels, "text": text}
        elif one.core is None:
            text = f"no free core holds its {one.kernel:,} words of kernel and {one.neurons:,} of neurons"
            yield {**row, "limit": "cores", "found": 0, "text": text}
        if _over(one.biases, target.biases_per_layer):
            text = f"{one.biases:,} biases in one layer"
            yield {**row, "limit": "biases", "allowed": target.biases_per_layer, "found": one.biases, "text": text}


def _broken(snn: Snn, target: Target) -> Iterator[tuple[str, str, Any, Any, str]]:
    flow = flows(snn.graph)
    for node, op in calls(snn.graph):
        where = str(origin_of(node))
        if target.analogue_operators is False:
            yield from _beyond_thresholds(where, node, op)
        if isinstance(op, Neuron):
            size, readers = math.prod(node.meta["shape"]), len(_readers(node))
            if target.reset not in (None, op.row.reset):
                text = (
                    f"{op.row.name} neurons reset to zero"
                    if op.row.reset == "zero"
                    else "a spike subtracts the threshold"
                )
                yield where, "reset", target.reset, op.row.reset, text
            if _over(op.levels, target.units_per_spike):
                text = f"a spike carries up to {op.levels} units"
                yield where, "units_per_spike", target.units_per_spike, op.levels, text
            if target.signed_spikes is False and op.row.negative:
                yield where, "signed_spikes", False, True, f"{op.model} neurons send negative spikes"
            if _over(size, target.neurons_per_layer):
                yield where, "neurons_per_layer", target.neurons_per_layer, size, f"{size:,} neurons in one layer"
            if _over(readers, target.destinations):
                yield where, "destinations", target.destinations, readers, f"{readers} layers read these spikes"
        elif isinstance(op, Weighted):
            yield from _weighted(where, op, target)
        elif op.window and target.pools is not None:
            side = max(op.window)
            if side not in target.pools or min(op.window) not in target.pools:
                yield where, "pools", list(target.pools), side, f"pooling over {'x'.join(map(str, op.window))}"
        elif op.role == Role.ANALOG and target.analogue_operators is False and flow[node] != Flow.CONSTANT:
            yield where, "analogue_operators", False, True, f"a {op.plain_name} on real values in every step"


def _beyond_thresholds(where: str, node: fx.Node, op: Op) -> Iterator[tuple[str, str, Any, Any, str]]:
    """What neurons do besides comparing a sum with a threshold."""
    what = "products of two streams of spikes" if op.role == Role.PRODUCT else ""
    if op.role == Role.NEURON and not op_of(node, Neuron).plain:
        what = f"neurons with {'thresholds that spikes set' if len(arguments(node)) > 1 else 'functions of membranes'}"
    if what:
        yield where, "analogue_operators", False, True, what


def _weighted(where: str, op: Weighted, target: Target) -> Iterator[tuple[str, str, Any, Any, str]]:
    weight, (fan_in, fan_out) = op.weight, op.fans()
    kernel, stride = tuple(weight.shape[2:]) or (1,), op.stride or (1,)
    if _over(fan_in, target.fan_in):
        yield where, "fan_in", target.fan_in, fan_in, f"{fan_in:,} synapses per neuron"
    if _over(fan_out, target.fan_out):
        yield where, "fan_out", target.fan_out, fan_out, f"a spike reaches up to {fan_out:,} neurons"
    size = math.ceil(weight.numel() * (target.weight_bits or 8) / 8)
    if _over(size, target.weight_bytes_per_layer):
        yield where, "weight_bytes_per_layer", target.weight_bytes_per_layer, size, f"{size:,} bytes of weights"
    if _over(max(kernel), target.kernel):
        yield where, "kernel", target.kernel, max(kernel), f"a kernel of {'x'.join(map(str, kernel))}"
    if target.strides is not None and not set(stride) <= set(target.strides):
        yield where, "strides", list(target.strides), max(stride), f"a stride of {max(stride)}"


def _over(value: int, limit: int | None) -> bool:
    return limit is not None and value > limit


def _readers(node: fx.Node) -> set[fx.Node]:
    """The neuron layers (or the read-out) that spikes of `node` reach."""
    found, todo, seen = set[fx.Node](), list(node.users), set[fx.Node]()
    while todo:
        user = todo.pop()
        if user in seen:
            continue
        seen.add(user)
        if user.op == "output" or role_of(user) == Role.NEURON:
            found.add(user)
        else:
            todo += list(user.users)
    return found


def on_the_chip(converted: Converted, means: Means) -> dict[str, Any]:
    """The study of a network that is for a chip: its report's section, on at most so many images (`MOST_IMAGES`)."""
    data = converted.inputs.evaluation
    if data is not None:
        data = data.subset(balanced_sample(data.labels, len(data), MOST_IMAGES, seed=0))
    assert means.target is not None
    return chip_section(converted.snn, load_target(means.target), data, progress=means.progress)


def chip_section(
    snn: Snn,
    target: Target,
    data: Dataset | None,
    *,
    batch_size: int = 64,
    sweep: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The report's section: violations, accuracy within the target's bits, and, on request, over a range of bits."""
    wanted: list[tuple[int, int]] = []
    if target.weight_bits is not None or target.state_bits is not None:
        wanted.append((target.weight_bits or 16, target.state_bits or 32))
    if sweep:
        wanted += [(weight, state) for weight in SWEEP_WEIGHT_BITS for state in SWEEP_STATE_BITS]
    # products of spikes and thresholds that these set are nothing that the chip's integers are known for
    wanted = [] if data is None or data.labels is None or snn.schedule.whole else list(dict.fromkeys(wanted))
    runs = []
    for number, (weight_bits, state_bits) in enumerate(wanted):
        assert data is not None
        progress("chip", number, len(wanted))
        batches = (
            (images, np.asarray(labels, np.int64)) for images, labels in data.batches(batch_size) if labels is not None
        )
        curve = integer_curve(
            snn,
            batches,
            weight_bits=weight_bits,
            state_bits=state_bits,
            input_bits=target.input_bits or INPUT_BITS,
            scale_per=target.scale_per or SCALES[0],
        )
        runs += rows_of(curve)
    progress("chip", len(wanted), max(1, len(wanted)))
    limits = {key: value for key, value in asdict(target).items() if value is not None}
    section = {"target": limits, "violations": violations(snn, target), "runs": pareto(runs)}
    cores = cores_of(snn, target)
    return section if not cores else {**section, "cores": [asdict(one) for one in cores]}


def rows_of(curve: IntegerCurve) -> list[dict[str, Any]]:
    """The curve at every power of two and at the end."""
    last = len(curve.correct)
    steps = sorted({2**power for power in range(16) if 2**power < last} | {last})
    return [
        {
            "weight_bits": curve.weight_bits,
            "state_bits": curve.state_bits,
            "timesteps": t,
            "correct": curve.correct[t - 1],
            "samples": curve.samples,
            "spikes_per_image": curve.spikes if t == last else None,
            "saturations_per_image": curve.saturations if t == last else None,
            "shortcut_synapses": curve.shortcut_synapses if t == last else None,
        }
        for t in steps
        if curve.correct[t - 1] is not None
    ]


def pareto(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs, each with `best`: no other is at least as right with no more steps and no more bits of either kind."""

    def beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
        costs = ("timesteps", "weight_bits", "state_bits")
        no_worse = all(one[key] <= other[key] for key in costs) and one["correct"] >= other["correct"]
        return no_worse and any(one[key] != other[key] for key in (*costs, "correct"))

    return [{**row, "best": not any(beats(other, row) for other in runs)} for row in runs]
