"""The estimate of a network's energy: over all steps, layer by layer, and up to each step."""

from __future__ import annotations

from typing import Any

from snnconvert.cost.energy import LayerOperations, energy, layer_rows
from snnconvert.cost.energy_constants import Constants
from snnconvert.cost.energy_over_time import over_time
from snnconvert.graph.dialect import neurons_of
from snnconvert.graph.types import Snn
from snnconvert.study.operations import Operations


def estimate(counted: Operations, snn: Snn, constants: Constants | None = None) -> dict[str, Any]:
    """The estimate of energy from counted operations, layer by layer and step by step."""
    schedule = snn.schedule
    rows = [
        LayerOperations(
            macs=row.synapses,
            accumulates=row.accumulates,
            multiplies=row.multiplies,
            neurons=row.neurons,
            updates=row.updates,
            spikes=row.spikes,
            weights=row.weights,
            weight_reads=row.weight_reads,
            payload_bits=row.payload_bits,
            padded=row.padded,
        )
        for row in counted.layers
    ]
    largest = max((op.levels for op in neurons_of(snn.graph).values()), default=1)
    answers = [schedule.answer_step(frame) for frame in range(schedule.frames)]
    levels = [largest * max(1, sum(step <= t for step in answers)) for t in range(1, schedule.timesteps + 1)]
    compared = layer_rows(rows, timesteps=schedule.timesteps, own=constants)
    layers = [
        {
            "name": one.name,
            "origin": one.origin,
            "ann_multiplications": one.synapses,
            "ann_multiplications_with_padding": one.padded,
            "snn_additions": one.accumulates,
            "snn_multiplications": one.multiplies,
            "neuron_updates": one.updates,
            "spikes": one.spikes,
            **against,
        }
        for one, against in zip(counted.layers, compared, strict=True)
    ]
    return {
        **energy(rows, timesteps=schedule.timesteps, levels=schedule.frames * largest, own=constants),
        "images": counted.images,
        "layers": layers,
        "over_time": over_time(rows, [one.over_time for one in counted.layers], levels=levels, own=constants),
        "neurobench": counted.neurobench,
    }
