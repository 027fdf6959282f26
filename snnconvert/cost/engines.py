"""How long machines take for a network's work, and with what energy: one function a kind of machine and a phase.

Phases are the forward pass, the backward pass (dL/ds of the layers behind, W^T gu) and the weight update (dL/dw, the
sum of gu s over time). Everything is counted from the network and its measured sparsity; no figure of one machine is
made from a published ratio to another. Structure of the look-up engines: Liang et al., arXiv 2107.11746; tables of g
inputs, 2^g sums each, and entries that are skipped where all g bits are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from snnconvert.cost.machines import Machine
from snnconvert.cost.workload import LayerWork
from snnconvert.errors import OptionError

FORWARD, BACKWARD, UPDATE = "forward", "backward", "weight update"
PICO = 1e-12


@dataclass(frozen=True)
class Phase:
    """One phase for one sample.

    Attributes:
        name: FORWARD, BACKWARD or UPDATE.
        operations: numbers by kind.
        moved: bytes to and from main memory.
        compute: seconds of its engine alone; `memory`: of main memory alone.
        seconds: of both, as far as they do not overlap.
        joules: energy.
    """

    name: str
    operations: dict[str, float]
    moved: float
    compute: float
    memory: float
    seconds: float
    joules: float


@dataclass(frozen=True)
class Cost:
    """What one sample costs.

    Attributes:
        phases: one after the other, or of engines that work side by side.
        pipelined: whether phases overlap, so that the slowest decides.
        area: square millimetres.
        clock: Hz, or None where the machine's steps are no cycles.
        notes: what the model leaves out for this network.
    """

    phases: tuple[Phase, ...]
    pipelined: bool
    area: float
    clock: float | None
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Time per sample in the steady state."""
        each = [phase.seconds for phase in self.phases]
        memory = sum(phase.memory for phase in self.phases)
        return max(*each, memory) if self.pipelined and len(each) > 1 else sum(each)

    @property
    def joules(self) -> float:
        """Energy per sample."""
        return sum(phase.joules for phase in self.phases)

    @property
    def area_time(self) -> float:
        """Area times time, square millimetre seconds: does not depend on how much hardware the area is filled with."""
        return self.area * self.seconds


def cost(machine: Machine, layers: Sequence[LayerWork], *, training: bool, batch: int) -> Cost:
    """What a machine needs for one sample of a batch.

    Args:
        layers: the work of one sample.
        training: forward, backward and weight update; otherwise the forward pass alone.
        batch: samples that share one version of the weights: each is read, and made tables of, once for all of them.

    Raises:
        OptionError: the machine cannot train.
    """
    return _KINDS[machine.kind](machine, layers, training, batch)


# --- a processor that computes densely ---


def _processor(machine: Machine, layers: Sequence[LayerWork], training: bool, batch: int) -> Cost:
    """Layer by layer the longer of arithmetic and memory; energy is power times time."""
    rate = machine["multiply_accumulates"] * machine["utilisation"]
    word = machine["word"]

    def phase(name: str, macs: Callable[[LayerWork], float], values: Callable[[LayerWork], float]) -> Phase:
        moved = [word * (values(one) * one.steps + one.weights / batch) for one in layers]
        compute = [macs(one) / rate for one in layers]
        memory = [each / machine["memory_bandwidth"] for each in moved]
        seconds = sum(map(max, compute, memory))
        operations = {"multiply-accumulates": sum(map(macs, layers))}
        return Phase(name, operations, sum(moved), sum(compute), sum(memory), seconds, machine["power"] * seconds)

    # the sums go to memory and back before the neurons read them; membranes are read and written, spikes written
    phases = [
        phase(
            FORWARD,
            lambda one: one.steps * one.moving + one.constant + one.analog,
            lambda one: one.inputs + 5 * one.neurons,
        )
    ]
    if training:
        phases += [
            phase(BACKWARD, lambda one: one.steps * one.moving + one.analog, lambda one: one.inputs + 5 * one.neurons),
            phase(UPDATE, lambda one: one.steps * one.moving + one.constant, lambda one: one.inputs + one.neurons),
        ]
    return Cost(tuple(phases), False, machine["area"], machine["clock"])


# --- look-up engines, and one that skips zeros on both sides ---


def hit(density: float, group: float) -> float:
    """Probability that not all `group` bits are 0, for independent bits."""
    return float(1.0 - (1.0 - density) ** group)


@dataclass(frozen=True)
class _Engines:
    """Operators of the three engines, and what their work costs."""

    machine: Machine

    @property
    def _arithmetic(self) -> float:
        return 1e6 * self.machine["area"] * self.machine["arithmetic_share"] / self.machine["area_scale"]

    @property
    def adders(self) -> float:
        """Of the forward engine."""
        return self._arithmetic * self.machine["forward_share"] / self.machine["adder_area"]

    @property
    def multipliers(self) -> float:
        """Multiply-accumulators of the backward engine."""
        size = self.machine["adder_area"] + self.machine["multiplier_area"]
        return self._arithmetic * self.machine["backward_share"] / size

    @property
    def update_adders(self) -> float:
        """Of the weight-update engine."""
        share = 1.0 - self.machine["forward_share"] - self.machine["backward_share"]
        return self._arithmetic * share / self.machine["adder_area"]

    def look_up(self) -> float:
        """Joules of one table entry read and added."""
        return PICO * (8 * self.machine["word"] * self.machine["sram_bit"] + self.machine["add"])

    def multiply(self) -> float:
        """Joules of one multiply-accumulate with both operands read."""
        read = 16 * self.machine["word"] * self.machine["sram_bit"]
        return PICO * (read + self.machine["add"] + self.machine["multiply"])

    def phase(self, name: str, operations: dict[str, float], operators: float, joules: float, moved: float) -> Phase:
        """A phase whose operations take a cycle each on `operators`."""
        compute = sum(operations.values()) / (operators * self.machine["clock"])
        memory = moved / self.machine["memory_bandwidth"]
        seconds = max(compute, memory)
        other = self.machine["other_power"] * seconds
        spent = joules + 8 * moved * PICO * self.machine["dram_bit"] + other
        return Phase(name, operations, moved, compute, memory, seconds, spent)


def _look_up_engines(machine: Machine, layers: Sequence[LayerWork], training: bool, batch: int) -> Cost:
    engines, notes = _Engines(machine), []
    phases = [_look_up_forward(engines, layers, training, batch)]
    if training:
        phases += [_dual_sparsity(engines, layers), _look_up_update(engines, layers, batch)]
    if any(one.analog for one in layers):
        notes.append("operators on real values that move are charged as multiplications of the forward engine")
    return Cost(tuple(phases), True, machine["area"], machine["clock"], tuple(notes))


def _look_up_forward(engines: _Engines, layers: Sequence[LayerWork], training: bool, batch: int) -> Phase:
    """One look-up for g inputs, none where all are 0; tables are made once a batch."""
    machine = engines.machine
    group, word = machine["group"], machine["word"]
    looks = sum(one.steps * one.planes * one.moving / group * hit(one.density, group) for one in layers)
    looks += sum(machine["input_bits"] * one.constant / group * hit(0.5, group) for one in layers)
    built = sum((2**group - 1) * one.weights / group / batch for one in layers)
    updates, analog = sum(2 * one.updates for one in layers), sum(one.analog for one in layers)
    joules = (looks + updates) * engines.look_up() + 2 * built * engines.look_up() + analog * engines.multiply()
    spikes = sum(one.sent for one in layers)
    kept = sum(one.updates * word for one in layers) if training else 0.0
    moved = 2 * spikes + kept + sum(one.weights * word / batch for one in layers)
    operations = {"look-ups": looks, "table sums": built, "neuron updates": updates}
    if analog:
        operations["multiplications"] = analog
    return engines.phase(FORWARD, operations, engines.adders, joules, moved)


def _dual_sparsity(engines: _Engines, layers: Sequence[LayerWork]) -> Phase:
    """Products of gradients that are not zero, where the result will lie in a surrogate window."""
    word = engines.machine["word"]
    products = sum(one.steps * one.moving * _given(one.gradient) * one.needed for one in layers)
    carried = sum(2 * one.updates for one in layers)
    moved = sum(one.updates * word + one.sent for one in layers)
    operations = {"multiply-accumulates": products, "neuron updates": carried}
    return engines.phase(BACKWARD, operations, engines.multipliers, (products + carried) * engines.multiply(), moved)


def _look_up_update(engines: _Engines, layers: Sequence[LayerWork], batch: int) -> Phase:
    """Sums of g gradients, looked up by the g bits of each input; what the picture feeds is added up over time."""
    machine = engines.machine
    group, word = machine["group"], machine["word"]
    looks = built = 0.0
    for one in layers:
        both = hit(one.density, group) * hit(_given(one.gradient), group)
        looks += one.steps * one.planes * one.moving / group * both
        built += (2**group - 1) / group * one.steps * one.neurons * hit(_given(one.gradient), group)
    products = sum(one.constant for one in layers)
    joules = (looks + 2 * built) * engines.look_up() + products * engines.multiply()
    spikes = sum(one.sent for one in layers)
    moved = spikes + sum(one.weights * word / batch for one in layers)
    operations = {"look-ups": looks, "table sums": built, "multiply-accumulates": products}
    return engines.phase(UPDATE, operations, engines.update_adders, joules, moved)


def _given(gradient: float | None) -> float:
    """A layer that no training step has seen is taken as dense."""
    return 1.0 if gradient is None else gradient


# --- cores that work when spikes arrive ---


def _event_driven(machine: Machine, layers: Sequence[LayerWork], training: bool, batch: int) -> Cost:
    """Each layer on cores of its own, evenly loaded; all cores wait for each other at the end of a step."""
    del batch
    if training:
        raise OptionError(
            f"--training: {machine.name} has no engine for BPTT, so that it would have to be invented",
            hint="leave --training out, or choose --machine h2learn or v100",
        )
    reads, updates, spikes = (sum(getattr(one, what) for one in layers) for what in ("reads", "updates", "spikes"))
    slowest = 0.0
    used = 0
    for one in layers:
        cores = max(1, math.ceil(one.neurons / machine["neurons_per_core"]))
        used += cores
        own = one.reads * machine["synapse_time"] + one.updates * machine["update_time"]
        slowest = max(slowest, own / cores)
    steps = max(one.steps for one in layers)
    seconds = slowest + steps * machine["barrier"]
    joules = PICO * (
        reads * machine["synapse_energy"] + updates * machine["update_energy"] + spikes * machine["spike_energy"]
    )
    chips = math.ceil(used / machine["cores"])
    host = sum(one.constant + one.analog for one in layers)
    notes = [f"{used} cores, {chips} chip{'s' * (chips != 1)}; traffic between chips is not charged"]
    if host:
        notes.append(f"{host:,.0f} multiplications on real values are the host's and not charged")
    operations = {"synaptic operations": reads, "neuron updates": updates, "spikes": spikes}
    only = Phase(FORWARD, operations, 0.0, seconds, 0.0, seconds, joules)
    return Cost((only,), False, chips * machine["area"], None, tuple(notes))


_KINDS: dict[str, Callable[[Machine, Sequence[LayerWork], bool, int], Cost]] = {
    "processor": _processor,
    "look-up engines": _look_up_engines,
    "event-driven": _event_driven,
}
