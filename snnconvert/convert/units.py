"""What happens to non-linearities without a spiking form: units, analog operators, or a refusal."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, fx

from snnconvert.convert.approximate import approximate as written_as_units
from snnconvert.convert.approximate import candidates, remarks
from snnconvert.errors import ModelFileError, UnsupportedError
from snnconvert.graph.dialect import calls, origin_of, sites
from snnconvert.graph.ops import Role
from snnconvert.graph.types import Ann

NAMED = 12


def with_units(ann: Ann, images: Tensor | None, *, approximate: bool, strict: bool = False) -> tuple[Ann, Ann]:
    """The network to compare with, and the network to convert; both say in their notes what was approximated.

    Args:
        ann: a canonical network.
        images: calibration inputs in canonical order, shape (n, *sample), or None for fits on a fixed range.
        approximate: write what can be as spiking units; otherwise everything analog stays so.
        strict: refuse whatever stays analog.

    Raises:
        UnsupportedError: if no activation spikes; or `strict`, naming every analog node.
    """
    network, records = written_as_units(ann, images) if approximate else (ann, ())
    refuse_without_sites(network, approximate=False)
    if strict:
        refuse_analog(network, approximate=False)
    notes = (*ann.source.notes, *remarks(records))
    analog = analog_nodes(network.graph)
    if analog:
        named = ", ".join(str(origin_of(node)) for node in analog[:NAMED])
        more = f" and {len(analog) - NAMED} more" if len(analog) > NAMED else ""
        notes = (*notes, f"{len(analog)} node(s) stay analog, exact in the mean at every step: {named}{more}")
    source = replace(ann.source, notes=notes)
    return replace(ann, source=source), replace(network, source=source)


def analog_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """Nodes without a spiking form, in data-flow order."""
    return [node for node, op in calls(graph) if op.role == Role.ANALOG]


def refuse_without_sites(ann: Ann, *, approximate: bool) -> None:
    """A conversion without a single spiking neuron is none.

    Raises:
        UnsupportedError: if `ann` has no activation site (and nothing that could become one, with `approximate`).
    """
    if sites(ann.graph) or (approximate and candidates(ann.graph)):
        return
    could = "" if approximate or not candidates(ann.graph) else "; --approximate auto writes its activations as units"
    raise UnsupportedError(
        f"{ann.source.name} has no activation that could become a spiking neuron",
        hint=f"a network without ReLU-like activations would stay as it is: there is nothing to convert{could}",
    )


def refuse_analog(ann: Ann, *, approximate: bool) -> None:
    """What `--strict-spiking` asks for.

    Raises:
        UnsupportedError: naming every analog node (but those that may still become units, with `approximate`).
    """
    spared = set(candidates(ann.graph)) if approximate else set()
    refused = [node for node in analog_nodes(ann.graph) if node not in spared]
    if refused:
        raise UnsupportedError(
            f"{ann.source.name} has {len(refused)} node(s) without a spiking form, and --strict-spiking was given",
            hint="leave --strict-spiking away to compute them as analog operators, exact in the mean at every step",
            causes=tuple(str(origin_of(node)) for node in refused),
        )


def refuse_overflow(name: str, outputs: Tensor) -> None:
    """Refuse a model that itself gives NaN or infinity.

    Raises:
        ModelFileError: naming the model; the conversion is not to blame.
    """
    if not torch.isfinite(outputs).all():
        raise ModelFileError(
            f"the original network {name} itself gives NaN or infinity: its numbers overflow float32",
            hint="check its weights, and that --scale, --mean and --std are those of its training; the network before "
            "conversion has to give finite outputs on these images",
        )
