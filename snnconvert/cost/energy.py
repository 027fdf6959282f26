"""An honest estimate of energy: SNN against ANN in fp32, INT8, and in the width that carries what T steps carry.

The usual ratio in papers, E = (MAC 4.6 + AC 0.9) / (MAC 4.6), compares with an fp32 ANN and counts arithmetic only.
It is given for comparability and never decides. What decides are integer ANNs, with arithmetic, and with memory for
two extremes of data reuse. If the SNN wins in all of them it saves energy; if it loses in all it does not; otherwise
the estimate cannot tell, and says so. These are models of hardware, not measurements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from snnconvert.cost.energy_constants import Constants, break_even_points, default_constants
from snnconvert.errors import InternalError

_BASELINES = ("fp32 ANN", "INT8 ANN")
ARITHMETIC, REUSE, NO_REUSE, NETWORK = (
    "arithmetic only",
    "with memory, weights reused",
    "with memory, no reuse",
    "moving activations only",
)
ASSUMPTIONS = (
    "A spike costs one weight read and one addition per synapse; an input that is not a spike costs a multiplication.",
    "A spike of several units costs an addition for each set bit of their number, and its payload is moved too.",
    "Synapses are counted where they are: none in the padding. Pooling and sums of branches are free on both sides.",
    "Integer rows: 32-bit accumulators on both sides; a multiplication costs in proportion to both its widths.",
    "The second integer ANN has activations of ceil(log2(levels + 1)) bits: as many levels as the SNN has in T steps.",
    "Weights reused: the ANN reads each weight once per image, the SNN once per timestep or once per operation, "
    "whichever is less.",
    "No reuse: both networks read a weight for each operation.",
    "Moving activations: on-chip network, one hop, addressed spikes against dense activations; 22 nm constants.",
    "Neurons: each update costs an addition, a comparison and a read and write of the membrane potential; "
    "each spike one subtraction.",
    "Leakage, control, input and output of the chip are left out on both sides; zero activations save the ANN nothing.",
)


@dataclass(frozen=True)
class LayerOperations:
    """Operations of one layer for one image, all timesteps together.

    Attributes:
        macs: multiplications of the dense ANN layer.
        accumulates: additions of a weight caused by spikes.
        multiplies: multiplications that the SNN still does (real-valued input, analogue operators).
        neurons: number of neurons (0 for a layer without).
        updates: neuron updates (neurons times the steps in which they are updated).
        spikes: spikes that the layer emits.
        weights: number of distinct weights.
        weight_bits: width of one weight in the integer rows.
        weight_reads: synapses that spikes reach; fewer than `accumulates` where a spike carries several units, which
            costs one addition for each set bit. As many where not given.
        payload_bits: bits of a spike besides its address.
        padded: `macs` with those on padding, as papers usually count; shown, not charged.
    """

    macs: float
    accumulates: float
    multiplies: float
    neurons: float
    updates: float
    spikes: float
    weights: float
    weight_bits: int = 8
    weight_reads: float | None = None
    payload_bits: int = 0
    padded: float | None = None

    @property
    def reads(self) -> float:
        """Weights that spikes make the network read."""
        return self.accumulates if self.weight_reads is None else self.weight_reads


def energy(
    layers: Sequence[Mapping[str, Any] | LayerOperations],
    *,
    timesteps: int,
    levels: int | None = None,
    own: Constants | None = None,
) -> dict[str, Any]:
    """The `energy` section of a report.

    Args:
        layers: the fields of LayerOperations, per layer, including the first layer and the classifier.
        timesteps: T.
        levels: distinct non-zero values that a neuron's output can take within one answer; T where not given.
        own: constants of the user; their rows then decide, and those with the default constants stand beside them.

    Raises:
        InternalError: no layers, no dense operations, or a negative count.
    """
    rows = [row if isinstance(row, LayerOperations) else LayerOperations(**row) for row in layers]
    if (
        not rows
        or any((value or 0) < 0 for row in rows for value in vars(row).values())
        or not sum(row.macs for row in rows)
    ):
        raise InternalError(f"energy: {len(rows)} layers without usable operation counts")
    base, bits = default_constants(), activation_bits(levels or timesteps)
    estimates = compared(rows, base, timesteps, bits, decides=own is None)
    if own is not None:
        estimates = compared(rows, own, timesteps, bits) + estimates
    synaptic = sum(row.accumulates for row in rows)
    dense = sum(row.macs for row in rows)
    return {
        "verdict": _verdict(estimates, timesteps),
        "rows": estimates,
        "spikes_per_synapse": synaptic / dense,
        "activation_bits": bits,
        "operations": {
            "ann_multiplications": dense,
            "ann_multiplications_with_padding": sum(row.padded or row.macs for row in rows),
            "snn_additions": synaptic,
            "snn_multiplications": sum(row.multiplies for row in rows),
            "neuron_updates": sum(row.updates for row in rows),
            "spikes": sum(row.spikes for row in rows),
        },
        "break_even": break_even_points(),
        "constants": [*(own.rows if own is not None else ()), *base.rows],
        "assumptions": list(ASSUMPTIONS),
    }


def activation_bits(levels: int) -> int:
    """Bits of an integer activation that carries 0 and as many levels."""
    return max(1, math.ceil(math.log2(levels + 1)))


def compared(
    rows: Sequence[LayerOperations], constants: Constants, timesteps: int, bits: int, *, decides: bool = True
) -> list[dict[str, Any]]:
    """SNN against the fp32, INT8 and INTb ANN: rows of baseline, scope, constants, snn_pj, ann_pj, ratio, decides."""
    value = constants.values
    found = [_fp32(rows, value), *_integer(rows, value, 8, timesteps, _BASELINES[1])]
    if bits != 8:
        found += _integer(rows, value, bits, timesteps, f"INT{bits} ANN")
    return [
        {
            **row,
            "constants": constants.sets["noc_sparse_bit"] if row["scope"] == NETWORK else constants.name,
            "decides": row["decides"] and decides,
        }
        for row in found
    ]


def layer_rows(
    rows: Sequence[LayerOperations], *, timesteps: int, own: Constants | None = None
) -> list[dict[str, float | None]]:
    """Each layer on its own against the INT8 ANN, memory counted and nothing reused.

    `ratio` is SNN over ANN; `spikes_per_synapse` what was measured, `break_even` where the ratio would be 1 (0 where
    the neurons' own updates already cost more than the ANN's layer). All null for a layer without synapses.
    """
    value = (own or default_constants()).values
    found: list[dict[str, float | None]] = []
    for row in rows:
        _, _, whole, _ = _integer([row], value, 8, timesteps, _BASELINES[1])
        measured = row.accumulates / row.macs if row.macs else None
        even = None
        if row.macs and row.accumulates:
            silent = replace(row, accumulates=0.0, weight_reads=0.0, spikes=0.0)
            _, _, floor, _ = _integer([silent], value, 8, timesteps, _BASELINES[1])
            each = (whole["snn_pj"] - floor["snn_pj"]) / row.accumulates
            even = max(0.0, (whole["ann_pj"] - floor["snn_pj"]) / each / row.macs)
        found.append({"ratio": whole["ratio"], "spikes_per_synapse": measured, "break_even": even})
    return found


def _fp32(rows: Sequence[LayerOperations], value: Mapping[str, float]) -> dict[str, Any]:
    add, mac = value["fp32_add"], value["fp32_add"] + value["fp32_multiply"]
    snn = sum(row.accumulates * add + row.multiplies * mac for row in rows)
    return _row(_BASELINES[0], ARITHMETIC, snn, sum(row.macs for row in rows) * mac, decides=False)


def _integer(
    rows: Sequence[LayerOperations], value: Mapping[str, float], bits: int, timesteps: int, baseline: str
) -> list[dict[str, Any]]:
    """Rows against an ANN with `bits`-bit activations: arithmetic, memory with and without reuse, network on chip."""
    add, sram, state = value["int32_add"], value["sram_bit"], value["state_bits"]
    totals = dict.fromkeys(("snn", "ann", "snn_best", "ann_best", "snn_worst", "ann_worst", "snn_noc", "ann_noc"), 0.0)
    for row in rows:
        # Real-valued inputs of the SNN are 8 bits wide, whatever the ANN it is compared with.
        eight = value["int8_multiply"] * row.weight_bits / 8.0
        synapses = row.reads + row.multiplies
        totals["snn"] += (
            (row.accumulates + row.multiplies) * add + row.multiplies * eight + row.updates * 2 * add + row.spikes * add
        )
        totals["ann"] += row.macs * (eight * bits / 8.0 + add)
        address = max(1, math.ceil(math.log2(max(2.0, row.neurons))))
        events = row.spikes * 2 * (address + row.payload_bits)
        membrane = row.updates * 2 * state + events
        activations = 2 * row.neurons * bits
        totals["snn_best"] += sram * (min(synapses, row.weights * timesteps) * row.weight_bits + membrane)
        totals["snn_worst"] += sram * (synapses * row.weight_bits + membrane)
        totals["ann_best"] += sram * (row.weights * row.weight_bits + activations)
        totals["ann_worst"] += sram * (row.macs * row.weight_bits + activations)
        totals["snn_noc"] += value["noc_sparse_bit"] * events / 2
        totals["ann_noc"] += value["noc_dense_bit"] * activations / 2
    snn, ann = totals["snn"], totals["ann"]
    return [
        _row(baseline, ARITHMETIC, snn, ann),
        _row(baseline, REUSE, snn + totals["snn_best"], ann + totals["ann_best"]),
        _row(baseline, NO_REUSE, snn + totals["snn_worst"], ann + totals["ann_worst"]),
        _row(baseline, NETWORK, totals["snn_noc"], totals["ann_noc"], decides=False),
    ]


def _row(baseline: str, scope: str, snn: float, ann: float, *, decides: bool = True) -> dict[str, Any]:
    ratio = snn / ann if ann > 0 else None
    return {"baseline": baseline, "scope": scope, "snn_pj": snn, "ann_pj": ann, "ratio": ratio, "decides": decides}


def _verdict(estimates: list[dict[str, Any]], timesteps: int) -> dict[str, str]:
    ratios = [row["ratio"] for row in estimates if row["decides"] and row["ratio"] is not None]
    literature = next((row["ratio"] for row in estimates if row["scope"] == ARITHMETIC), None)
    usual = (
        f" (Arithmetic against an fp32 ANN, as often published, would give {literature:.2g} of its energy.)"
        if literature is not None
        else ""
    )
    low, high, at = min(ratios), max(ratios), f"T = {timesteps}"
    if high < 1:
        text = f"Saves energy by this estimate: {1 / high:.1f} to {1 / low:.1f} times less than integer ANNs at {at}."
        return {"code": "saves", "text": text + usual}
    if low > 1:
        text = f"Does not save energy by this estimate: {low:.1f} to {high:.1f} times what integer ANNs need at {at}."
        return {"code": "does_not_save", "text": text + usual}
    text = f"Cannot tell whether it saves energy: {low:.2g} to {high:.2g} times what integer ANNs need at {at}, "
    return {"code": "cannot_tell", "text": text + "depending on the ANN's width and on how memory is used." + usual}
