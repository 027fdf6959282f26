"""From calibrated floats to a spiking network: balance, fold, round, in the precision that is asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from snnconvert.compile.balance import balance
from snnconvert.compile.precision import in_precision
from snnconvert.compile.spikify import spikify
from snnconvert.errors import ModelFileError, UnsupportedError, listed
from snnconvert.graph.checkpoint import graph_rows, graph_tensors
from snnconvert.graph.dialect import sites
from snnconvert.graph.edit import copied
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.types import Calibrated, NeuronChoice, Snn


def compile_network(
    calibrated: Calibrated,
    schedule: Schedule | None = None,
    neuron: NeuronChoice | None = None,
    precision: str = "float32",
) -> Snn:
    """The spiking network that `calibrated` becomes.

    Args:
        calibrated: thresholds and weights; not changed. What a full frame of a neuron is worth stays the same in every
            schedule.
        schedule: when sites integrate and emit; the calibration's own where it is None.
        neuron: at rectifying sites; the calibration's own where it is None.
        precision: of weights, one of PRECISIONS.

    Raises:
        UnsupportedError: if the graph has no activation site at all.
        OptionError: if the precision is not known.
    """
    network, schedule, neuron = calibrated.network, schedule or calibrated.schedule, neuron or calibrated.neuron
    if not sites(network.graph):
        raise UnsupportedError(
            f"{network.source.name} has no activation that could become a spiking neuron",
            hint="a network without ReLU-like activations stays as it is: there is nothing to convert",
        )
    snn = Snn(
        graph=spikify(balance(copied(network.graph), schedule), calibrated, schedule, neuron),
        schedule=schedule,
        input_shape=network.input_shape,
        outputs=network.outputs,
        task=network.task,
        inputs=network.inputs,
        source=network.source,
        preprocessing=calibrated.preprocessing,
        calibration=calibrated.record,
        neuron=neuron,
        # the margin belongs to the answers of this schedule
        early_exit=calibrated.early_exit if schedule == calibrated.schedule else None,
        label_offset=calibrated.label_offset,
        calibrated=calibrated,
    )
    return in_precision(snn, precision)


def compiled_again(calibrated: Calibrated, schedule: Schedule, neuron: NeuronChoice, precision: str) -> Snn:
    """`compile_network` for a calibration that comes from a file.

    Raises:
        ModelFileError: the file describes a calibration that no network can be made of.
    """
    try:
        return compile_network(calibrated, schedule, neuron, precision)
    except (LookupError, TypeError, ValueError, RuntimeError, AssertionError, AttributeError, ArithmeticError) as error:
        raise ModelFileError(
            f"the calibration in this checkpoint is damaged: {type(error).__name__}: {error}",
            hint="convert the model again, or copy the file again",
        ) from error


def difference(snn: Snn) -> str:
    """How `snn` differs from what its calibration would be compiled to today; empty if it does not, or holds none."""
    if snn.calibrated is None:
        return ""
    again = compiled_again(snn.calibrated, snn.schedule, snn.neuron, snn.precision)
    stored, made = ({row["name"]: row for row in graph_rows(one.graph)["nodes"]} for one in (snn, again))
    differing = {name for name in stored.keys() | made.keys() if stored.get(name) != made.get(name)}
    old, new = graph_tensors(snn.graph), graph_tensors(again.graph)
    for name in old.keys() | new.keys():
        if name not in old or name not in new or not same_tensor(old[name], new[name]):
            differing.add(name.rpartition(".")[0])
    if not differing:
        return ""
    return (
        f"this version would compile the calibration to another network ({listed(sorted(differing), 3)} differ); "
        "what runs is the network as it was written"
    )


def same_tensor(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal in type, shape and every value."""
    return one.dtype == other.dtype and torch.equal(one, other)
