"""What happens to non-linearities without a spiking form: units, analog operators, or a refusal."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, fx

from snnconvert.convert.approximate import Approximation, approximate, candidates, remarks
from snnconvert.convert.attention import with_spiking_operators
from snnconvert.convert.passes.logits import keep_logits
from snnconvert.errors import ModelFileError, UnsupportedError, listed
from snnconvert.graph.dialect import calls, origin_of, sites, verify
from snnconvert.graph.edit import copied, finish, insert_after
from snnconvert.graph.kinds import Identity, Role, Stage
from snnconvert.graph.types import Ann
from snnconvert.graph.walk import batch_of

NAMED = 12
IMAGES = 64
LARGEST_ERROR = 0.05


def with_units(
    ann: Ann, images: Tensor | None, *, way: str = "auto", strict: bool = False, whole: bool = False
) -> tuple[Ann, Ann]:
    """The network to compare with, and the network to convert; both say in their notes what was approximated.

    Args:
        ann: a canonical network.
        images: calibration inputs in canonical order, shape (n, *sample), or None for fits on a fixed range.
        way: for functions such as SiLU. "units": written as a few spiking units each, where these fit. "analog":
            computed in the mean, and the result sent by signed neurons, so that what follows reads spikes. "auto":
            units, unless they change the network's outputs by more than `LARGEST_ERROR`.
        strict: refuse whatever stays analog.
        whole: whether the schedule has forms of spikes for products, layer norms, softmaxes and smooth functions.

    Raises:
        UnsupportedError: if no activation spikes; or `strict`, naming every analog node.
    """
    records: tuple[Approximation, ...] = ()
    network = with_spiking_operators(ann) if whole else ann
    exact, notes = network, network.source.notes
    if way != "analog":
        network, records = approximate(exact, images)
        found = _error(ann, network, images) if network is not exact and way == "auto" and not strict else 0.0
        if found > LARGEST_ERROR:
            network, records = exact, ()
            notes = (*notes, f"written as spiking units, {_functions(ann)} would change the outputs by {found:.1%}")
    network = _sent(network)
    refuse_without_sites(network, offered=False)
    if strict:
        refuse_analog(network, spared=False, untried=way == "analog")
    notes = (*notes, *remarks(records))
    analog = analog_nodes(network.graph)
    if analog:
        named = listed([str(origin_of(node)) for node in analog], NAMED)
        notes = (*notes, f"{len(analog)} node(s) stay analog, exact in the mean at every step: {named}")
    source = replace(ann.source, notes=notes)
    return replace(ann, source=source), replace(network, source=source)


@torch.inference_mode()
def _error(ann: Ann, network: Ann, images: Tensor | None) -> float:
    """Relative difference of the outputs (Euclidean norm over the images)."""
    if images is None:
        return 0.0
    batches = images[:IMAGES].split(batch_of(network.graph))  # type: ignore[no-untyped-call]
    runs = [zip(*(graph(few) for few in batches), strict=True) for graph in (ann.graph, network.graph)]
    pairs = [(torch.cat(before).double(), torch.cat(after).double()) for before, after in zip(*runs, strict=True)]
    return max(float((after - before).norm() / before.norm().clamp(min=1e-30)) for before, after in pairs)


def _functions(ann: Ann) -> str:
    wanted = candidates(ann.graph)
    return f"{len(wanted)} node(s) ({', '.join(dict.fromkeys(origin_of(node).operator for node in wanted))})"


def _sent(ann: Ann) -> Ann:
    """`ann` with a signed neuron behind every function that stays analog, so that weights read spikes."""
    graph = copied(ann.graph)
    wanted = candidates(graph)
    if not wanted:
        return ann
    for node in wanted:
        insert_after(graph, node, Identity(), suffix="sent", users=list(node.users))
    return replace(ann, graph=verify(finish(graph), Stage.ANN))


def analog_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    """Nodes without a spiking form, in data-flow order."""
    return [node for node, op in calls(graph) if op.role == Role.ANALOG]


def needs_windows(ann: Ann) -> bool:
    """Whether all of `ann` has a form of spikes in windows of one layer after the other, and in nothing else."""
    ann = keep_logits(ann)
    offered = set(candidates(ann.graph))
    left = [node for node in analog_nodes(ann.graph) if node not in offered]
    return bool(left) and not analog_nodes(with_spiking_operators(ann).graph)


def refuse_without_sites(ann: Ann, *, offered: bool = True) -> None:
    """A conversion without a single spiking neuron is none.

    Raises:
        UnsupportedError: if `ann` has no activation site (and nothing that could become one, where that is `offered`).
    """
    if sites(ann.graph) or (offered and candidates(ann.graph)):
        return
    raise UnsupportedError(
        f"{ann.source.name} has no activation that could become a spiking neuron",
        hint="a network without ReLU-like activations would stay as it is: there is nothing to convert",
    )


def refuse_analog(ann: Ann, *, spared: bool, untried: bool = False, whole: bool = False) -> None:
    """What `--strict-spiking` asks for.

    Args:
        spared: whether candidates for units are none of its business, since they may still become some.
        untried: whether the hint may advise units: they were declined, not tried in vain.
        whole: as for `with_units`.

    Raises:
        UnsupportedError: naming every analog node (but those that may still become units, where these are `spared`).
    """
    ann = with_spiking_operators(ann) if whole else ann
    offered = set(candidates(ann.graph))
    refused = [node for node in analog_nodes(ann.graph) if not spared or node not in offered]
    if refused:
        hint = "leave --strict-spiking away to compute them as analog operators, exact in the mean at every step"
        helped = len(offered.intersection(refused)) if untried else 0
        if helped:
            which = "them" if helped == len(refused) else f"{helped} of them"
            hint = f"--approximate units writes {which} as spiking units where these fit; or {hint}"
        if not whole and helped < len(refused) and len(analog_nodes(with_spiking_operators(ann).graph)) < len(refused):
            hint = f"--schedule serial sends products, layer norms, softmaxes and smooth functions as spikes; or {hint}"
        raise UnsupportedError(
            f"{ann.source.name} has {len(refused)} node(s) without a spiking form, and --strict-spiking was given",
            hint=hint,
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
